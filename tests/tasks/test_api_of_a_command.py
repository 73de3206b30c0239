"""Prefect's API that a command starts for itself: before Prefect is imported, once, and no longer than the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks import embedded, environment

ROOT = Path(__file__).parents[2]
COMMAND = """
import json, os, sys
from pathlib import Path
from tasks import embedded, environment
environment.apply(Path.cwd())
assert embedded.boot(Path.cwd()) and not embedded.boot(Path.cwd())
assert "prefect" not in sys.modules
embedded.wait()
from prefect import flow

@flow
def answer():
    import psutil
    apis = [child.pid for child in psutil.Process().children() if embedded.is_api(child)]
    imported = "prefect.server.api.server" in sys.modules
    return {"apis": apis, "served": embedded.served(), "server imported": imported}

print(json.dumps(answer()), flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RATOON_", "MLFLOW_"))
    }
    started = []

    def call(*words):
        command = [sys.executable, "-c", COMMAND, *words]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**kept, "PYTHONPATH": str(ROOT)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process, json.loads(process.stdout.readline())

    yield call
    for process in started:
        process.kill()
        process.communicate()


def test_one_api_answers_and_ends_with_the_command(start):
    process, said = start("wait")
    (pid,) = said["apis"]
    api = psutil.Process(pid)
    assert not said["served"]  # nobody listens to its events, and no page shows its runs
    assert not said["server imported"]  # two seconds, in a process that asks a server
    process.communicate(timeout=60)
    assert process.returncode == 0
    psutil.wait_procs([api], timeout=30)
    assert not api.is_running()


def test_it_ends_with_a_command_that_is_killed(start):
    if not hasattr(os, "pidfd_open"):
        pytest.skip("it takes Linux to hear of another process's end")
    process, said = start("wait")
    api = psutil.Process(*said["apis"])
    process.kill()
    process.wait()
    psutil.wait_procs([api], timeout=60)
    assert not api.is_running()


def test_an_api_that_ends_before_it_answers_is_told_at_once(tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"])
    monkeypatch.setattr(embedded, "_booted", [process])
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(RuntimeError, match="exit code 3"):
        embedded.wait()


@pytest.mark.parametrize(
    "place", ["PREFECT_API_URL", "PREFECT_PROFILE", "profiles.toml", "prefect.toml", ".env", "pyproject.toml"]
)
def test_where_a_person_may_have_named_an_api_prefect_decides(tmp_path, monkeypatch, place):
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_ENABLED", "true")
    (tmp_path / "home").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    assert not embedded.settled(tmp_path)
    if place.startswith("PREFECT"):
        monkeypatch.setenv(place, "http://prefect.example/api")
    else:
        text = '[tool.prefect.api]\nurl = "http://prefect.example/api"\n'
        (tmp_path / ("home" if place == "profiles.toml" else "") / place).write_text(text)
    assert embedded.settled(tmp_path)


def test_the_environment_of_a_project_without_services_lets_it_start(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(environment.prepare(tmp_path, {"PATH": "/bin"})))
    assert not embedded.settled(tmp_path)
