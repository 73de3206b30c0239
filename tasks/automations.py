"""Automations of ours on a Prefect server: made once, brought up to date, never doubled."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

OURS = "ratoon: "  # how their names begin; what does not is a person's
HEARTBEAT_SECONDS = 180  # Prefect's own interval
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS  # fewer missed beats mark healthy runs (PrefectHQ/prefect issue 16459)
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "Paused", "Suspended", "AwaitingRetry")
MANY = 200


def silent(seconds: int = SILENT_SECONDS) -> AutomationCore:
    """A run whose process died without a word. Marked Crashed it gives back its place in its deployment."""
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=f"{OURS}runs that went silent",
        description="No sign of life from a run: its machine or its process is gone. Marked Crashed, it is in no "
        "one's way; started again, it goes on from its last checkpoint.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *(f"prefect.flow-run.{end}" for end in ENDS)},
            match=ResourceSpecification.model_validate({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no sign of life for {seconds} seconds: the process or its machine is gone. Start it again: "
                "it goes on where it was.",
            )
        ],
    )


def settle(client: SyncPrefectClient, wanted: Sequence[AutomationCore]) -> None:
    """Those that are missing are made, those that differ replaced, ours that are not wanted any more removed.

    Whether one is on is a person's to say, on the page.
    """
    present: dict[str, list[Any]] = {}
    for found in client.read_automations():
        if found.name.startswith(OURS):
            present.setdefault(found.name, []).append(found)
    for asked in wanted:
        first, *doubles = present.pop(asked.name, []) or [None]
        for double in doubles:
            client.delete_automation(double.id)
        if first is None:
            client.create_automation(asked)
        elif not same(first, asked):
            client.update_automation(first.id, asked.model_copy(update={"enabled": first.enabled}))
    for stale in (it for group in present.values() for it in group):
        client.delete_automation(stale.id)


def same(found: AutomationCore, asked: AutomationCore) -> bool:
    return fingerprint(found) == fingerprint(asked)


def fingerprint(automation: AutomationCore) -> Any:
    """What it does, in whatever order the server lists it."""
    return plain(automation.model_dump(mode="json", include={"description", "trigger", "actions"}))


def plain(value: Any) -> Any:
    """Without ids the server adds and without what is not set."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in sorted(value.items()) if key != "id" and one not in (None, [], {})}
    if isinstance(value, list):
        return sorted((plain(one) for one in value), key=repr)
    return value
