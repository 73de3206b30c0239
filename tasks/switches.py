"""Schedules and triggers of deployments are on or off: declared in prefect.yaml, turned on the page, kept over both.

Registering a deployment makes its schedules and triggers anew. What a person turned on the page is theirs and stays,
until the line of prefect.yaml says something else than it did: then the file is the newer word.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import TypeAdapter

from ratoon.config.reading import read_yaml

DECLARED = "ratoon_switches"  # a variable of the server's: what the file said when it was last read
Switches = dict[str, bool]
Schedule: TypeAdapter[Any] = TypeAdapter(CronSchedule | IntervalSchedule | RRuleSchedule)


def declared(root: Path) -> Switches:
    """Of prefect.yaml; Prefect's own default is on."""
    found: Switches = {}
    for deployment in read_yaml(root / "prefect.yaml").get("deployments") or []:
        name = f"{deployment['entrypoint'].rsplit('.', 1)[-1]}/{deployment['name']}"
        for schedule in deployment.get("schedules") or []:
            if "slug" in schedule:
                found[f"{name} {schedule['slug']}"] = bool(schedule.get("active", True))
        for trigger in deployment.get("triggers") or []:
            if "name" in trigger:
                found[f"{name} {trigger['name']}"] = bool(trigger.get("enabled", True))
    return found


def found(client: SyncPrefectClient) -> Switches:
    """As they are on the server now."""
    return {name: on for name, on, _ in parts(client)}


def parts(client: SyncPrefectClient) -> Iterator[tuple[str, bool, Any]]:
    """Name, whether on, and (deployment, schedule) or automation."""
    flows = {flow.id: flow.name for flow in client.read_flows(limit=200)}
    for deployment in client.read_deployments(limit=200):
        name = f"{flows.get(deployment.flow_id, '?')}/{deployment.name}"
        for schedule in deployment.schedules:
            if schedule.slug:
                yield f"{name} {schedule.slug}", bool(schedule.active), (deployment, schedule)
        for automation in client.read_resource_related_automations(f"prefect.deployment.{deployment.id}"):
            yield f"{name} {automation.name}", automation.enabled, automation


def wanted(now: Switches, before: Switches, page: Switches) -> Switches:
    """The file where it changed or the page knows nothing, else the page."""
    return {name: page[name] if name in page and before.get(name) == on else on for name, on in now.items()}


def settle(client: SyncPrefectClient, now: Switches, page: Switches) -> None:
    """After registering: `page` is how the switches stood before it."""
    kept = client.read_variable_by_name(DECLARED)
    before: Switches = json.loads(kept.value) if kept and isinstance(kept.value, str) else {}
    should = wanted(now, before, page)
    for name, on, part in list(parts(client)):
        if name in should and should[name] != on:
            turn(client, part, should[name])
    value = json.dumps(now, sort_keys=True)
    if kept is None:
        client.create_variable(VariableCreate(name=DECLARED, value=value))
    elif kept.value != value:
        client.update_variable(VariableUpdate(name=DECLARED, value=value))


def turn(client: SyncPrefectClient, part: Any, on: bool) -> None:
    if isinstance(part, tuple):
        deployment, schedule = part
        client.update_deployment_schedule(deployment.id, schedule.id, active=on)
    elif on:
        client.resume_automation(part.id)
    else:
        client.pause_automation(part.id)


def told(client: SyncPrefectClient, ours: Sequence[str]) -> Iterator[str]:
    """What will start by itself, and when."""
    some = False
    for name, on, part in sorted(parts(client), key=lambda it: it[0]):
        what = name.split(" ", 1)[0]
        if what not in ours or not on:
            continue
        some = True
        if isinstance(part, tuple):
            yield f"schedule  {name}: next {following(part[1].schedule)}"
        else:
            yield f"trigger   {name}"
    if not some:
        yield "schedules and triggers are off: turn them on in the Prefect page, or in prefect.yaml"


def following(schedule: Any) -> str:
    again = Schedule.validate_python(schedule.model_dump(mode="json", exclude_none=True))
    dates: list[datetime] = run_coro_as_sync(again.get_dates(1))  # type: ignore[assignment]
    return f"{dates[0]:%a %Y-%m-%d %H:%M %Z}" if dates else "never"
