"""Promises of `ratoon up`, `status`, `logs` and `down`."""

import json
import os
import shutil
import socket
import sys
import textwrap
import urllib.request
from pathlib import Path

import psutil
import pytest

from ratoon.config import ConfigError
from tasks import environment, processes, services
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
        def start(root: Path, port: int) -> Service:
            command = [sys.executable, str(script), str(port)]
            log = root / ".ratoon" / "logs" / f"{name}.log"
            service = processes.start(name, command, os.environ, root=root, log=log)
            address = f"http://127.0.0.1:{port}"
            return service.model_copy(update={"address": address, "health": address})

        return start

    def work(root: Path, running) -> Service:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        return processes.start("worker", command, os.environ, root=root, log=root / ".ratoon" / "logs" / "worker.log")

    monkeypatch.setattr(services, "_start_prefect", serve("prefect"))
    monkeypatch.setattr(services, "_start_mlflow", serve("mlflow"))
    monkeypatch.setattr(services, "_start_worker", work)
    monkeypatch.setattr(services, "worker_online", lambda found: processes.alive(found["worker"]))
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
    assert [item["state"] for item in services.status(small)] == ["healthy"] * 3
    services.down(small, said.append)
    assert [item["state"] for item in services.status(small)] == ["not started"] * 3
    assert not any(processes.alive(service) for service in first.values())
    services.down(small, said.append)


def test_what_died_is_started_again_and_the_rest_stays(small):
    first = services.up(small, prefect_port=free(), mlflow_port=free(), report=lambda _: None)
    victim = psutil.Process(first["mlflow"].pid)
    victim.kill()
    victim.wait()
    assert {item["name"]: item["state"] for item in services.status(small)}["mlflow"] == "dead"
    again = services.up(small, mlflow_port=free(), report=lambda _: None)
    assert again["prefect"].pid == first["prefect"].pid
    assert again["mlflow"].pid != first["mlflow"].pid


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
    def broken(root: Path, port: int) -> Service:
        command = [sys.executable, "-c", "raise SystemExit('database is of a newer version')"]
        return processes.start("mlflow", command, os.environ, root=root, log=root / ".ratoon" / "logs" / "mlflow.log")

    started: list[Service] = []
    start = services._start_prefect
    monkeypatch.setattr(services, "_start_mlflow", broken)
    monkeypatch.setattr(services, "_start_prefect", lambda root, port: started.append(start(root, port)) or started[-1])
    with pytest.raises(
        services.ServiceFailed, match=r"(?s)mlflow ended while starting; .*mlflow\.log:\ndatabase is of"
    ):
        services.up(small, prefect_port=free(), mlflow_port=free(), report=lambda _: None)
    assert not processes.alive(started[0])
    assert processes.recorded(small) == {}


def test_one_that_never_answers_is_given_up_and_shown_waiting(small, monkeypatch):
    monkeypatch.setattr(services, "SAY_SECONDS", 0.1)
    service = services._start_prefect(small, free())
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
    found = services._environment(tmp_path, both)
    assert found["PREFECT_API_URL"] == "http://prefect:1/api"
    assert found["MLFLOW_TRACKING_URI"] == "http://mlflow:1"
    assert found["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "INFO"
    assert found["RATOON_ROOT"] == str(tmp_path)
    assert "RATOON_LIVE" not in found
    assert environment.OURS not in found


def test_logs_name_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="no service 'prefekt'; did you mean 'prefect'"):
        services.logs(tmp_path, "prefekt")
    with pytest.raises(ConfigError, match=r"prefect\.log: not found; `ratoon up` starts prefect"):
        services.logs(tmp_path, "prefect")


def test_status_is_also_one_json_document(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(
        (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.store(tmp_path))
    assert services.show_status(tmp_path, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in found["services"]] == ["prefect", "mlflow", "worker"]
    assert found["champion"] is None
    assert not (tmp_path / ".ratoon" / "mlflow.db").exists()
    assert services.show_status(tmp_path) == 0
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
DEPLOYMENTS = """
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $RATOON_ROOT }}"
deployments:
  - name: default
    entrypoint: hello.hello
    work_pool: {name: cpu}
"""


def page(url: str) -> str:
    return urllib.request.urlopen(url, timeout=20).read().decode()


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
    assert [item["state"] for item in services.status(tmp_path)] == ["healthy"] * 3
    assert "<html" in page(f"{found['prefect'].address}/").lower()
    assert "<html" in page(f"{found['mlflow'].address}/").lower()
    for service in found.values():  # nothing listens beyond this machine
        family = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
        listening = [c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert set(listening) <= {"127.0.0.1"}

    changes = environment.prepare(tmp_path)
    assert changes["PREFECT_API_URL"] == f"{found['prefect'].address}/api"
    command = [sys.executable, "-m", "prefect", "deployment", "run", "hello/default", "--watch"]
    done = subprocess.run(
        command, env={**os.environ, **changes}, capture_output=True, text=True, timeout=180, cwd=tmp_path, check=False
    )
    assert "Flow run finished successfully" in done.stdout, done.stdout + services.logs(tmp_path, "worker")

    services.down(tmp_path)
    assert not any(processes.alive(service) for service in found.values())
    # What was tracked through the server is there without it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.store(tmp_path))
    from tasks import tracking

    runs = tracking.client().search_runs([tracking.client().get_experiment_by_name("line").experiment_id])
    assert [run.data.metrics for run in runs] == [{"loss_nats": 2.0}]
