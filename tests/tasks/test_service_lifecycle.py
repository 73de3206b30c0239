"""Promises of `ratoon up`, `status`, `logs` and `down`."""

import json
import os
import shutil
import socket
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import psutil
import pytest
from hello_deployment import DEPLOYMENTS

from ratoon.config import ConfigError
from tasks import environment, launch, logbook, processes, services, status
from tasks.access import Bind
from tasks.processes import Service

SERVER = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


@pytest.fixture
def stopped(tmp_path):
    yield
    for service in processes.recorded(tmp_path).values():
        processes.stop(service, grace_seconds=0.5)


@pytest.fixture
def small(tmp_path, monkeypatch, stopped):
    """Small servers in the place of Prefect's and MLflow's; the register, ports, waiting and stopping are real."""
    script = tmp_path / "server.py"
    script.write_text(SERVER, encoding="utf-8")

    def serve(name):
        def start(root: Path, port: int, bind: Bind) -> Service:
            command = [sys.executable, str(script), str(port)]
            service = processes.start(name, command, os.environ, root=root, log=launch.log(root, name))
            address = f"http://127.0.0.1:{port}"
            return service.model_copy(
                update={"address": address, "health": address, "host": bind.host, "login": bind.login}
            )

        return start

    def work(root: Path, running, name: str = "worker") -> Service:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        return processes.start(name, command, os.environ, root=root, log=launch.log(root, name))

    monkeypatch.setattr(launch, "prefect", serve("prefect"))
    monkeypatch.setattr(launch, "mlflow", serve("mlflow"))
    monkeypatch.setattr(launch, "worker", work)
    for module in (services, status):
        monkeypatch.setattr(module, "worker_online", lambda found, name="worker": processes.alive(found[name]))
    return tmp_path


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_up_twice_is_once_and_down_leaves_nothing(small):
    said: list[str] = []
    first = services.up(small, prefect_port=free(), mlflow_port=free(), report=said.append)
    again = services.up(small, report=said.append)
    assert {n: s.pid for n, s in first.items()} == {n: s.pid for n, s in again.items()}
    assert str(first["prefect"].address) in said[-1]
    assert f"MLFLOW_TRACKING_URI={first['mlflow'].address}" in said[-1]
    assert [item["state"] for item in status.status(small)] == ["healthy"] * 4
    services.down(small, said.append)
    assert [item["state"] for item in status.status(small)] == ["not started"] * 3
    assert not any(processes.alive(service) for service in first.values())
    services.down(small, said.append)


def test_what_died_is_started_again_and_the_rest_stays(small):
    first = services.up(small, prefect_port=free(), mlflow_port=free(), report=lambda _: None)
    victim = psutil.Process(first["mlflow"].pid)
    victim.kill()
    victim.wait()
    assert {item["name"]: item["state"] for item in status.status(small)}["mlflow"] == "dead"
    again = services.up(small, mlflow_port=free(), report=lambda _: None)
    assert again["prefect"].pid == first["prefect"].pid
    assert again["mlflow"].pid != first["mlflow"].pid
    assert again["mlflow"].address == first["mlflow"].address, "bookmarks and workers know it by its port"


def test_a_taken_port_gives_way(small):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        found = services.up(small, prefect_port=taken, mlflow_port=taken, report=lambda _: None)
    ports = {int(found[name].address.rsplit(":", 1)[1]) for name in ("prefect", "mlflow")}
    assert taken not in ports
    assert len(ports) == 2


def test_a_server_that_ends_says_why_and_what_was_started_is_stopped_again(small, monkeypatch):
    def broken(root: Path, port: int, bind: Bind) -> Service:
        command = [sys.executable, "-c", "raise SystemExit('database is of a newer version')"]
        made = processes.start("mlflow", command, os.environ, root=root, log=launch.log(root, "mlflow"))
        return made.model_copy(update={"address": f"http://127.0.0.1:{port}", "health": f"http://127.0.0.1:{port}/x"})

    started: list[Service] = []
    start = launch.prefect
    monkeypatch.setattr(launch, "mlflow", broken)
    monkeypatch.setattr(launch, "prefect", lambda *given: started.append(start(*given)) or started[-1])
    with pytest.raises(
        services.ServiceFailed, match=r"(?s)mlflow ended while starting; .*mlflow\.log:\ndatabase is of"
    ):
        services.up(small, prefect_port=free(), mlflow_port=free(), report=lambda _: None)
    assert not processes.alive(started[0])
    assert processes.recorded(small) == {}


def test_one_that_never_answers_is_given_up_and_shown_waiting(small, monkeypatch):
    monkeypatch.setattr(services, "SAY_SECONDS", 0.1)
    service = launch.prefect(small, free(), Bind())
    processes.record(small, {"prefect": service})
    mute = service.model_copy(update={"health": f"http://127.0.0.1:{free()}"})
    said: list[str] = []
    with pytest.raises(services.ServiceFailed, match="prefect did not answer within 1 s"):
        services.wait(mute, said.append, seconds=1)
    assert said[0].startswith("prefect: starting, ")


def test_servers_get_fixed_addresses_and_print_to_their_own_log(tmp_path, monkeypatch):
    monkeypatch.setenv("RATOON_LIVE", "1")
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    both = {
        name: Service(name=name, pid=1, started=0, address=f"http://{name}:1", health=None, log="")
        for name in ("prefect", "mlflow")
    }
    found = launch.surroundings(tmp_path, both)
    assert found["PREFECT_API_URL"] == "http://prefect:1/api"
    assert found["MLFLOW_TRACKING_URI"] == "http://mlflow:1"
    assert found["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "INFO"
    assert found["RATOON_ROOT"] == str(tmp_path)
    assert "RATOON_LIVE" not in found
    assert environment.OURS not in found


def test_a_worker_for_gpus_is_asked_for_once_and_comes_back_by_itself(small):
    quiet = {"prefect_port": free(), "mlflow_port": free(), "report": lambda _: None}
    assert "worker-gpu" not in services.up(small, **quiet)
    first = services.up(small, gpu=True, **quiet)["worker-gpu"]
    victim = psutil.Process(first.pid)
    victim.kill()
    victim.wait()
    again = services.up(small, **quiet)["worker-gpu"]
    assert processes.alive(again)
    assert again.pid != first.pid


def test_children_of_a_server_that_died_give_its_port_back(small, monkeypatch):
    port = free()
    script = small / "parent.py"
    script.write_text(
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, {str(small / 'server.py')!r}, sys.argv[1]])\ntime.sleep(60)\n",
        encoding="utf-8",
    )
    served = launch.mlflow

    def start(root: Path, port: int, bind: Bind) -> Service:
        command = [sys.executable, str(script), str(port)]
        service = processes.start("mlflow", command, os.environ, root=root, log=launch.log(root, "mlflow"))
        address = f"http://127.0.0.1:{port}"
        return service.model_copy(update={"address": address, "health": address})

    monkeypatch.setattr(launch, "mlflow", start)
    first = services.up(small, prefect_port=free(), mlflow_port=port, report=lambda _: None)
    leader = psutil.Process(first["mlflow"].pid)
    (child,) = leader.children()
    leader.kill()
    leader.wait()
    assert child.is_running()
    monkeypatch.setattr(launch, "mlflow", served)
    again = services.up(small, report=lambda _: None)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert again["mlflow"].address == first["mlflow"].address


def test_where_servers_listen_is_remembered_and_not_changed_under_them(small, monkeypatch):
    said = {"PREFECT_SERVER_API_AUTH_STRING": "ann:a-long-password", "MLFLOW_TRACKING_USERNAME": "ann"}
    for name, value in {**said, "MLFLOW_TRACKING_PASSWORD": "another-password"}.items():
        monkeypatch.setenv(name, value)
    quiet = {"prefect_port": free(), "mlflow_port": free(), "report": lambda _: None}
    services.up(small, bind=Bind("127.0.0.1", True), **quiet)
    with pytest.raises(ConfigError, match=r"listen on 127\.0\.0\.1 and ask for a login; `ratoon down` first"):
        services.up(small, bind=Bind(), **quiet)
    found = processes.recorded(small)
    processes.stop(found["prefect"])
    assert services.up(small, **quiet)["prefect"].login
    processes.stop(processes.recorded(small)["prefect"])
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD not set"):
        services.up(small, **quiet)


def test_watching_starts_again_what_dies_and_stops_everything_at_the_end(small, monkeypatch):
    monkeypatch.setattr(services, "LOOK_SECONDS", 0.05)
    ports = {"prefect_port": free(), "mlflow_port": free()}
    ended = threading.Event()
    starts: list[int] = []

    def start() -> None:
        starts.append(len(starts))
        if len(starts) == 2:
            raise services.ServiceFailed("not yet")
        services.up(small, report=lambda _: None, **ports)

    said: list[str] = []
    watcher = threading.Thread(target=services.watch, args=(small, start, ended, said.append))
    watcher.start()
    try:
        until(lambda: services._all_alive(small))
        victim = psutil.Process(processes.recorded(small)["mlflow"].pid)
        victim.kill()
        until(lambda: len(starts) == 3 and services._all_alive(small))
        running = processes.recorded(small)
    finally:
        ended.set()
        watcher.join(timeout=60)
    assert said[0].startswith("not yet\ntried again in ")
    assert processes.recorded(small) == {}
    assert not any(processes.alive(service) for service in running.values())


def test_what_a_person_takes_down_is_not_started_again_by_the_watcher(small, monkeypatch):
    monkeypatch.setattr(services, "LOOK_SECONDS", 0.05)
    ports = {"prefect_port": free(), "mlflow_port": free()}
    said: list[str] = []

    def start() -> None:
        services.up(small, report=lambda _: None, **ports)

    watcher = threading.Thread(target=services.watch, args=(small, start, threading.Event(), said.append))
    watcher.start()
    until(lambda: services._all_alive(small))
    services.down(small, said.append)
    watcher.join(timeout=30)
    assert not watcher.is_alive()
    assert "taken down by `ratoon down`: no longer watched" in said
    assert processes.recorded(small) == {}


def until(ready, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_status_is_also_one_json_document(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(
        (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.store(tmp_path))
    assert status.show(tmp_path, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in found["services"]] == ["prefect", "mlflow", "worker"]
    assert found["champion"] is None
    assert not (tmp_path / ".ratoon" / "mlflow.db").exists()
    assert status.show(tmp_path) == 0
    assert "`ratoon up` starts it" in capsys.readouterr().out


# ---------------------------------------------------------------- the real thing

FLOW = """
from pathlib import Path
from prefect import flow

@flow(name="hello")
def hello() -> str:
    from tasks import environment, tracking
    environment.apply(Path.cwd())
    with tracking.run("line", "served", kind="refresh") as run:
        run.metrics({"loss_nats": 2.0}, step=1)
    return run.id
"""


def page(url: str) -> str:
    return urllib.request.urlopen(url, timeout=20).read().decode()


def answer(url: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, Message]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as reply:
            return reply.status, reply.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


@pytest.mark.slow
def test_servers_and_worker_come_up_run_a_deployment_and_go_down(tmp_path, stopped, monkeypatch):
    import subprocess

    checkout = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hello.py").write_text(textwrap.dedent(FLOW), encoding="utf-8")
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENTS, encoding="utf-8")
    shutil.copy(checkout / "params.yaml", tmp_path)
    found = services.up(tmp_path, prefect_port=4300, mlflow_port=5100)
    assert [item["state"] for item in status.status(tmp_path)] == ["healthy"] * 4
    assert "<html" in page(f"{found['prefect'].address}/").lower()
    assert "<html" in page(f"{found['mlflow'].address}/").lower()
    for service in found.values():  # nothing listens beyond this machine
        family = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
        listening = [c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert set(listening) <= {"127.0.0.1"}

    # A stranger's page in a browser on this machine: no answer it may read, nothing it may change, no name of its own.
    api, stranger = f"{found['prefect'].address}/api", {"Origin": "http://stranger.example"}
    assert answer(f"{api}/health", stranger)[1].get("access-control-allow-origin") is None
    assert answer(f"{api}/flow_runs/filter", stranger, b"{}")[0] == 403
    assert (
        answer(f"{found['mlflow'].address}/api/2.0/mlflow/experiments/search", {"Host": "stranger.example"})[0] == 403
    )
    # The page asks the server it came from, whatever its port.
    assert json.loads(page(f"{found['prefect'].address}/ui-settings"))["api_url"] == "/api"

    changes = environment.prepare(tmp_path)
    assert changes["PREFECT_API_URL"] == f"{found['prefect'].address}/api"
    command = [sys.executable, "-m", "prefect", "deployment", "run", "hello/default", "--watch"]
    done = subprocess.run(
        command, env={**os.environ, **changes}, capture_output=True, text=True, timeout=180, cwd=tmp_path, check=False
    )
    assert "Flow run finished successfully" in done.stdout, done.stdout + logbook.end(tmp_path, "worker")

    services.down(tmp_path)
    assert not any(processes.alive(service) for service in found.values())
    # What was tracked through the server is there without it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.store(tmp_path))
    from tasks import tracking

    runs = tracking.client().search_runs([tracking.client().get_experiment_by_name("line").experiment_id])
    assert [run.data.metrics for run in runs] == [{"loss_nats": 2.0}]
