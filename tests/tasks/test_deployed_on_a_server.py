"""Promises of `ratoon deploy` and of what it sets up, against a real Prefect server."""

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect import flow, get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Pending, Running
from webhook_receiver import receiver

from ratoon import config
from ratoon.config import ConfigError
from ratoon.layout import Layout
from tasks import (
    announce,
    automations,
    catch_up,
    deployments,
    launch,
    notify,
    orphans,
    processes,
    services,
    slots,
    switches,
)
from tasks.job import alone, alone_or_within

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SECRET = "CANARY-6d1f"


def until(answer, what, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := answer():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Declarations alone, and a server of their own; this process talks to it."""
    root = tmp_path_factory.mktemp("served")
    for name in ("params.yaml", "prefect.yaml", "data/sources", "models/bases"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", notify.VARIABLE):
        os.environ.pop(name, None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    server = launch.prefect(root, processes.free_port(4400))
    try:
        services.wait(server, lambda _: None)
        api = f"{server.address}/api"
        os.environ["PREFECT_API_URL"] = api
        with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: root / "home"}):
            yield root
    finally:
        processes.stop(server)


@pytest.fixture(scope="module")
def told(project):
    lines = []
    deployments.register(project, lines.append)
    return lines


@pytest.fixture(scope="module")
def client(told):
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def messages():
    """What a webhook receives: (path, body)."""
    with receiver() as (address, received):
        yield f"{address}/hook/{SECRET}", received


def state_of(client):
    pools = {pool.name for pool in client.read_work_pools()}
    ours = [a for a in client.read_automations() if a.name.startswith(automations.OURS)]
    limits = {limit.name: limit.limit for limit in client.read_global_concurrency_limits(limit=50)}
    return pools, {(a.name, a.id) for a in ours}, limits


def test_registering_twice_is_once_and_a_switch_of_the_page_stays(project, client, told):
    assert told == ["schedules and triggers are off: turn them on in the Prefect page, or in prefect.yaml"]
    before = state_of(client)
    assert before[0] >= {"cpu", "gpu"}
    assert before[2]["gpu"] >= 1
    for name, _, part in list(switches.parts(client)):
        if name in ("refresh/default weekly", "refresh/default refresh on drift"):
            switches.turn(client, part, True)
    lines = []
    deployments.register(project, lines.append)
    assert state_of(client) == before
    on = {name for name, on in switches.found(client).items() if on}
    assert on == {"refresh/default weekly", "refresh/default refresh on drift"}
    assert lines[0] == "trigger   refresh/default refresh on drift"
    assert lines[1].startswith("schedule  refresh/default weekly: next Mon ")
    for name, _, part in list(switches.parts(client)):
        if name in on:
            switches.turn(client, part, False)


def test_the_form_on_the_server_offers_what_is_declared(client):
    refresh = client.read_deployment_by_name("refresh/default")
    fields = refresh.parameter_openapi_schema["definitions"]["Ask"]["properties"]
    assert fields["base"]["enum"] == ["nano", "smollm2-135m"]
    assert fields["budget"]["enum"] == ["default", "small"]
    assert fields["sources"]["items"]["enum"] == ["python-code", "python-docs"]
    with pytest.raises(Exception, match="base"):
        client.create_flow_run_from_deployment(refresh.id, parameters={"ask": {"base": "nanno"}})


def test_after_weeks_of_downtime_one_run_catches_up(client):
    from flows.refresh import refresh

    @flow
    def asks(ask=None):
        return catch_up.given_way()

    deployed = client.read_deployment_by_name("refresh/default")
    now = datetime.now(UTC)
    (part,) = [part for name, _, part in switches.parts(client) if name == "refresh/default weekly"]
    switches.turn(client, part, True)
    window = {"start_time": (now - timedelta(days=22)).isoformat(), "end_time": now.isoformat(), "min_runs": 3}
    client.request("POST", f"/deployments/{deployed.id}/schedule", json=window)
    switches.turn(client, part, False)
    found = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=50)
    runs = [run for run in found if run.auto_scheduled and run.expected_start_time <= now]
    assert len(runs) == 3
    assert run_flow(asks, flow_run=runs[2]) is None  # first, and over before the others begin
    for run in runs[:2]:
        ended = run_flow(refresh, flow_run=run, return_type="state")
        assert ended.is_cancelled()
        assert "the newest catches up for all" in ended.message
    third = client.create_flow_run_from_deployment(deployed.id, parameters=runs[2].parameters)
    assert run_flow(asks, flow_run=third) is None  # a person's


def test_verdicts_and_failures_are_told_and_the_address_lies_nowhere(project, client, messages, capfd):
    address, received = messages
    assert notify.add(address, "team") == "127.0.0.1"
    asked = config.load(project).operate
    deployments.tell(asked, client)
    kept = state_of(client)
    deployments.tell(asked, client)
    assert state_of(client) == kept
    assert notify.addresses() == {"team": "127.0.0.1"}
    for event in ("ratoon.promoted", "ratoon.refused", "ratoon.asked"):
        announce.announce(
            event, "ratoon-nano", {"summary": f"of {event}\nwhy: so\ndo this", "link": "report: file:///r"}
        )
    deployed = client.read_deployment_by_name("sweep/default")
    run = client.create_flow_run_from_deployment(deployed.id, name="sweep nano")

    @flow(name="sweep")
    def fails(ask=None):
        raise ConfigError("no such text")

    run_flow(fails, flow_run=run, return_type="state")
    until(lambda: len(received) == 4, received)
    assert {path for path, _ in received} == {f"/hook/{SECRET}"}
    texts = sorted(body["text"] for _, body in received)
    assert texts[0] == "ratoon-nano: a person has to say\nof ratoon.asked\nwhy: so\ndo this\nreport: file:///r"
    assert [text.splitlines()[0] for text in texts[1:3]] == ["ratoon-nano: promoted", "ratoon-nano: refused"]
    assert texts[3].startswith("sweep failed: sweep nano\nwhy: ")
    assert "no such text" in texts[3]
    assert texts[3].endswith(f"/runs/flow-run/{run.id}")
    assert not [path for path in project.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    notify.remove("team")
    deployments.tell(asked, client)
    assert not [a for a in client.read_automations() if "team" in a.name]
    assert SECRET not in "".join(capfd.readouterr())


def test_new_text_starts_a_refresh_where_its_trigger_is_on(client):
    deployed = client.read_deployment_by_name("refresh/default")
    (part,) = [part for name, _, part in switches.parts(client) if name == "refresh/default refresh on new text"]
    switches.turn(client, part, True)
    time.sleep(3)  # the server reads an automation that changed in its own time
    announce.new_data("ratoon-smollm2-135m", "smollm2-135m", {"rows": "abc"})

    def started():
        runs = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=50)
        return [r for r in runs if r.deployment_id == deployed.id and not r.auto_scheduled and catch_up.by_machine(r)]

    (run,) = until(started, "the run of the trigger")
    assert run.parameters == {"ask": {"base": "smollm2-135m"}}
    switches.turn(client, part, False)


def test_a_run_without_a_sign_of_life_is_marked_crashed_and_gives_back_its_place(client):
    deployed = client.read_deployment_by_name("prepare/default")
    run = client.create_flow_run_from_deployment(deployed.id)
    limit = f"deployment:{deployed.id}"
    client.set_flow_run_state(run.id, Pending())
    client.set_flow_run_state(run.id, Running())
    assert client.read_global_concurrency_limit_by_name(limit).active_slots == 1
    soon = automations.silent(seconds=10)
    made = client.create_automation(soon.model_copy(update={"name": "a short silence"}))
    time.sleep(3)  # the server reads a new automation in its own time
    emit_event("prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"})
    crashed = until(lambda: (r := client.read_flow_run(run.id)).state.is_crashed() and r, "crashed", 120)
    assert "no sign of life for 10 seconds" in crashed.state.message
    assert client.read_global_concurrency_limit_by_name(limit).active_slots == 0
    client.delete_automation(made)


def test_a_place_whose_holder_never_began_is_given_back(client, monkeypatch):
    deployed = client.read_deployment_by_name("drift/default")
    run = client.create_flow_run_from_deployment(deployed.id)
    client.set_flow_run_state(run.id, Pending())
    limit = f"deployment:{deployed.id}"
    orphans.free(client)
    assert client.read_flow_run(run.id).state.is_pending()  # its worker may be at it
    assert client.read_global_concurrency_limit_by_name(limit).active_slots == 1
    monkeypatch.setattr(orphans, "NEVER_BEGAN", timedelta(seconds=-1))
    orphans.free(client)
    assert client.read_flow_run(run.id).state.is_crashed()
    assert client.read_global_concurrency_limit_by_name(limit).active_slots == 0


def test_a_server_started_again_remembers_who_holds_a_slot(project):
    assert launch.surroundings(project, {})["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith(".filesystem")


HOLD = """
import sys, time
from prefect import flow
from tasks import slots
@flow
def hold():
    with slots.taken(1, lease=60):
        print("held", flush=True)
        time.sleep(600)
hold()
"""


def test_a_slot_is_waited_for_and_that_of_a_killed_run_is_free_again(project, client):
    client.upsert_global_concurrency_limit_by_name("gpu", 1)
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
    finally:
        holder.kill()
    said = []

    @flow
    def waits():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                slots, "get_run_logger", lambda: type("L", (), {"info": lambda self, text: said.append(text)})()
            )
            with slots.taken(1, say=5):
                return client.read_global_concurrency_limit_by_name("gpu").active_slots

    assert waits() == 1
    assert said
    assert said[0].startswith("waiting for 1 of the slots of the limit `gpu`")
    assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 0


def test_a_part_within_a_refresh_does_not_wait_for_the_lock_of_the_refresh(client, tmp_path):
    job = SimpleNamespace(layout=Layout(tmp_path), line="mine")

    @flow
    def part():
        with alone_or_within(job):
            return "let in"

    @flow
    def whole():
        with alone(job):
            return part()

    assert whole() == "let in"
    assert part() == "let in"


def test_slots_nobody_made_are_a_letter(client):
    @flow
    def asks():
        with slots.taken(1, limit="none-such"):
            pass

    with pytest.raises(ConfigError, match=r"no 1 slots of the concurrency limit 'none-such'(.|\n)*operate\.gpu_slots"):
        asks()


def test_without_a_server_there_is_nobody_to_tell(project, monkeypatch):
    monkeypatch.setattr(deployments, "served", lambda: False)
    with pytest.raises(ConfigError, match="`ratoon up` starts one here, PREFECT_API_URL names another"):
        deployments.register(project, print)


def test_every_name_of_the_file_is_registered(project, client):
    listed = yaml.safe_load((project / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert len(deployments.named(project)) == len(listed)
    for name in deployments.named(project):
        assert client.read_deployment_by_name(name).work_pool_name in ("cpu", "gpu")
