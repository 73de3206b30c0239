"""A run whose process was killed does not run for ever; one that nobody can see is left alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks import embedded, environment, owner, tracking, zombies
from tasks.tracking import TrackingUnavailable

# A training in small: its run is open when it is killed.
KILLED = """
import sys, time
from tasks import tracking
with tracking.run("line", "train 40%", kind="train") as run:
    print(run.id, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    environment.apply(root)
    return root


def status(run_id):
    return tracking.client().get_run(run_id).info.status


def opened(**changes):
    """A run of another process than this one, RUNNING."""
    client = tracking.client()
    found = client.get_experiment_by_name("line")
    experiment = found.experiment_id if found else client.create_experiment("line")
    tags = {} if changes == {"nobody": True} else {owner.TAG: json.dumps({**owner.own()._asdict(), **changes})}
    return client.create_run(experiment, tags=tags).info.run_id


def test_the_run_of_a_killed_process_is_ended_as_killed_and_that_of_a_living_one_goes_on(root):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    dead = process.stdout.readline().strip()
    with tracking.run("line", "refresh", kind="refresh") as mine:
        assert zombies.bury() == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert zombies.bury() == [dead]
        assert (status(dead), status(mine.id)) == ("KILLED", "RUNNING")
    assert status(mine.id) == "FINISHED"
    assert zombies.bury() == []


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}, {"nobody": True}])
def test_a_process_that_cannot_be_seen_from_here_is_not_said_to_be_dead(changes, root):
    unknown = opened(**changes)
    assert unknown not in zombies.bury()
    assert status(unknown) == "RUNNING"


def test_a_number_that_is_another_process_s_now_does_not_keep_a_run_alive(root):
    run = opened(started=psutil.Process().create_time() - 3600)
    assert zombies.bury() == [run]


def test_a_tag_that_nobody_can_read_is_nobodys(root):
    for text in ("", "{", "[]", '{"pid": 1}'):
        assert owner.parsed({owner.TAG: text}) is None
    assert not owner.is_gone(None)


def test_a_store_that_is_away_is_no_reason_to_fail(monkeypatch, caplog, root):
    def away():
        raise TrackingUnavailable("MLflow at http://127.0.0.1:1 does not answer")

    monkeypatch.setattr(tracking, "client", away)
    assert zombies.bury() == []
    assert "does not answer" in caplog.text


# A refresh in small: a flow in a flow, both under way when it is killed.
KILLED_FLOWS = """
import time
from prefect import flow
from tasks.orphans import claim
@flow(on_running=[claim])
def train():
    print("trains", flush=True)
    time.sleep(600)
@flow(on_running=[claim])
def refresh():
    train()
refresh()
"""


def test_flow_runs_of_a_killed_process_are_crashed_at_once_and_those_of_a_living_one_go_on(tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    from tasks import orphans

    def states():
        with get_client(sync_client=True) as client:
            return {run.state_name for run in client.read_flow_runs()}

    with prefect_test_harness(server_startup_timeout=180):
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        env |= {"PREFECT_API_URL": str(get_current_settings().api.url)}
        command = [sys.executable, "-c", KILLED_FLOWS]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env)
        assert process.stdout.readline().strip() == "trains"
        assert orphans.crash(tmp_path) == []
        assert states() == {"Running"}
        process.kill()
        process.wait()
        process.stdout.close()
        assert len(orphans.crash(tmp_path)) == 2
        assert states() == {"Crashed"}
        assert orphans.crash(tmp_path) == []
    assert not list((tmp_path / orphans.FOLDER).iterdir())


def test_the_api_that_a_killed_command_had_started_does_not_outlive_it(tmp_path):
    if not hasattr(os, "pidfd_open"):
        pytest.skip("it takes Linux to hear of another process's end")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_URL")}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PREFECT_HOME": str(tmp_path / "prefect")}
    env |= {"PREFECT_SERVER_EPHEMERAL_ENABLED": "true", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
    command = [sys.executable, "-c", KILLED_FLOWS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env)
    assert process.stdout.readline().strip() == "trains"
    (api,) = (child for child in psutil.Process(process.pid).children() if embedded.is_api(child))
    process.kill()
    process.wait()
    process.stdout.close()
    psutil.wait_procs([api], timeout=120)
    assert not api.is_running()
