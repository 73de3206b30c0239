"""Promises of the one place where the environment of Prefect, MLflow and DVC is set."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks import environment, launch, processes
from tasks.processes import Service


@pytest.fixture
def listener():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def itself(name: str, port: int) -> Service:
    """This very process, as a service that listens on `port`."""
    started = psutil.Process().create_time()
    return Service(
        name=name, pid=os.getpid(), started=started, address=f"http://127.0.0.1:{port}", health=None, log="x"
    )


def test_without_services_everything_is_embedded_in_the_project(tmp_path):
    found = environment.prepare(tmp_path, {"PATH": "/bin"})
    assert found["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/.ratoon/mlflow.db"
    assert found["PREFECT_HOME"] == f"{tmp_path}/.ratoon/prefect"
    assert found["PREFECT_SERVER_EPHEMERAL_ENABLED"] == "true"
    # A memo of types that were not written would keep `ratoon up` from writing them.
    assert found["PREFECT_API_BLOCKS_REGISTER_ON_START"] == "false"
    assert found["PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION"] == "false"
    assert int(found["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"]) == 180
    assert "PREFECT_API_URL" not in found


def test_servers_write_down_what_an_embedded_api_leaves_out(tmp_path, monkeypatch):
    for name in environment.EMBEDDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not environment.EMBEDDED.keys() & launch.surroundings(tmp_path, {}).keys()
    monkeypatch.setenv("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")  # a person's own
    assert launch.surroundings(tmp_path, {})["PREFECT_API_BLOCKS_REGISTER_ON_START"] == "false"


def test_what_a_person_has_set_wins(tmp_path):
    given = {"PATH": "/bin", "MLFLOW_TRACKING_URI": "http://mlflow.example:5000", "PREFECT_API_URL": "http://p/api"}
    found = environment.prepare(tmp_path, given)
    assert "MLFLOW_TRACKING_URI" not in found
    assert "PREFECT_API_URL" not in found
    assert "PREFECT_SERVER_EPHEMERAL_ENABLED" not in found


def test_a_persons_way_of_waiting_is_not_overruled(tmp_path):
    """Where both are set, the number of spins is what libgomp obeys."""
    assert environment.prepare(tmp_path, {"PATH": "/bin"})["GOMP_SPINCOUNT"] == "10000"
    assert "GOMP_SPINCOUNT" not in environment.prepare(tmp_path, {"PATH": "/bin", "OMP_WAIT_POLICY": "ACTIVE"})


def test_services_that_answer_are_used(tmp_path, listener):
    processes.record(tmp_path, {name: itself(name, listener) for name in ("prefect", "mlflow")})
    found = environment.prepare(tmp_path, {})
    assert found["PREFECT_API_URL"] == f"http://127.0.0.1:{listener}/api"
    assert found["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{listener}"
    assert "PREFECT_SERVER_EPHEMERAL_ENABLED" not in found


def test_a_dead_service_is_not_used(tmp_path, listener):
    dead = itself("mlflow", listener).model_copy(update={"started": 1.0})
    processes.record(tmp_path, {"mlflow": dead})
    assert environment.prepare(tmp_path, {})["MLFLOW_TRACKING_URI"].startswith("sqlite:")


def test_a_second_call_follows_the_services_and_leaves_a_persons_own(tmp_path, listener, monkeypatch):
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", "DO_NOT_TRACK": "0"})
    processes.record(tmp_path, {name: itself(name, listener) for name in ("prefect", "mlflow")})
    environment.apply(tmp_path)
    assert os.environ["MLFLOW_TRACKING_URI"].startswith("http:")
    processes.record(tmp_path, {})
    environment.apply(tmp_path)
    assert os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite:")
    assert "PREFECT_API_URL" not in os.environ
    assert os.environ["DO_NOT_TRACK"] == "0"


def test_what_a_person_sets_for_a_child_of_ours_wins_there_too(tmp_path):
    first = {"PATH": "/bin", **environment.prepare(tmp_path, {"PATH": "/bin"})}
    child = {**first, "MLFLOW_TRACKING_URI": "http://mlflow.example:5000"}
    found = environment.prepare(tmp_path / "elsewhere", child)
    assert "MLFLOW_TRACKING_URI" not in found
    assert found["PREFECT_HOME"] == f"{tmp_path}/elsewhere/.ratoon/prefect"


def test_python_is_this_interpreter(tmp_path):
    bin_folder = str(Path(sys.executable).parent)
    path = environment.prepare(tmp_path, {"PATH": f"/usr/bin:{bin_folder}:/bin"})["PATH"]
    assert path.split(":") == [bin_folder, "/usr/bin", "/bin"]


def test_behind_a_proxy_this_machine_is_asked_directly(tmp_path):
    assert "127.0.0.1" in environment.prepare(tmp_path, {"HTTPS_PROXY": "http://proxy:3128"})["NO_PROXY"]
    assert "NO_PROXY" not in environment.prepare(tmp_path, {})


def test_each_tools_own_switch_says_that_telemetry_is_off(tmp_path):
    changes = environment.prepare(tmp_path)
    code = "\n".join(
        [
            "from dvc.analytics import is_enabled as dvc",
            "from mlflow.telemetry.utils import is_telemetry_disabled as mlflow",
            "from prefect._internal.analytics import is_telemetry_enabled as prefect",
            "from prefect.settings import get_current_settings as settings",
            "print(mlflow(), prefect(), settings().server.analytics_enabled, dvc())",
        ]
    )
    # MLflow turns itself off under CI and pytest; here its switch alone must do it.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CI", "PYTEST", "GITHUB"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **changes}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False", "False", "False"]


def test_importing_the_module_imports_none_of_the_three():
    code = "import sys, tasks.environment; print({'prefect', 'mlflow', 'dvc'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
