"""Servers of one machine: Prefect's and MLflow's pages and a worker, all on loopback. `ratoon up` and its kin.

They use the same databases under `.ratoon/` as the embedded default, so that nothing is lost going up or down.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratoon import config
from ratoon.config import ConfigError
from tasks import environment, processes
from tasks.processes import HOST, Service

NAMES = ("prefect", "mlflow", "worker")
POOL = "cpu"
READY_SECONDS = 180.0  # a first start makes its database; on a slow disk that is a minute
SAY_SECONDS = 5.0
Say = Callable[[str], None]


class ServiceFailed(RuntimeError):
    """A server ended, or did not answer in time. The message holds the end of its log."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- up


def up(root: Path, *, prefect_port: int = 4200, mlflow_port: int = 5000, report: Say = say) -> dict[str, Service]:
    """Start what does not run yet, wait until it answers, register the deployments of prefect.yaml.

    Ports are the first to try; one that is taken gives way to the next. What runs stays as it is.
    Raises ServiceFailed with the end of the log of what did not come up; what this call started is stopped again.
    """
    root = root.resolve()
    with _alone(root):
        services = {name: item for name, item in processes.recorded(root).items() if processes.alive(item)}
        fresh: list[Service] = []

        def keep(service: Service) -> None:
            services[service.name] = service
            fresh.append(service)
            processes.record(root, services)

        try:
            if "prefect" not in services:
                keep(_start_prefect(root, processes.free_port(prefect_port)))
            if "mlflow" not in services:
                keep(_start_mlflow(root, processes.free_port(mlflow_port, avoid=_ports(services))))
            for name in ("prefect", "mlflow"):
                wait(services[name], report)
            deploy(root, services, report)
            if "worker" not in services:
                keep(_start_worker(root, services))
            _wait_for_worker(services, report)
        except BaseException:
            for service in reversed(fresh):
                processes.stop(service)
                services.pop(service.name)
            processes.record(root, services)
            raise
    report(_addresses(services))
    return services


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One `up` or `down` of a project at a time."""
    folder = root / ".ratoon"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "services.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ports(services: Mapping[str, Service]) -> list[int]:
    return [int(item.address.rsplit(":", 1)[1]) for item in services.values() if item.address]


def _environment(root: Path, services: Mapping[str, Service]) -> dict[str, str]:
    """For servers and worker: fixed addresses, and logs that say what happens."""
    changed = {**os.environ, **environment.prepare(root)}
    # What a flow prints belongs on its page here, not on the terminal `up` was called from.
    for name in ("RATOON_LIVE", environment.OURS, "PREFECT_SERVER_EPHEMERAL_ENABLED", "PREFECT_API_URL"):
        changed.pop(name, None)
    changed |= {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        "PYTHONUNBUFFERED": "1",
        # MLflow's runner of background jobs: nothing here uses it, and it is one process more per server.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if "prefect" in services:
        changed["PREFECT_API_URL"] = f"{services['prefect'].address}/api"
    if "mlflow" in services:
        changed["MLFLOW_TRACKING_URI"] = str(services["mlflow"].address)
    return changed


def _start(
    root: Path, name: str, command: Sequence[str], services: Mapping[str, Service], port: int | None, health: str = ""
) -> Service:
    log = _log(root, name)
    started = processes.start(name, [sys.executable, "-m", *command], _environment(root, services), root=root, log=log)
    if port is None:
        return started
    address = f"http://{HOST}:{port}"
    return started.model_copy(update={"address": address, "health": address + health})


def _start_prefect(root: Path, port: int) -> Service:
    command = ["prefect", "server", "start", "--host", HOST, "--port", str(port), "--analytics-off"]
    return _start(root, "prefect", command, {}, port, "/api/health")


def _start_mlflow(root: Path, port: int) -> Service:
    command = ["mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", environment.store(root)]
    # Clients are on this machine and write files themselves; so embedded runs and served ones share one folder,
    # and a run begun under a server can be read without one.
    command += ["--default-artifact-root", (root / ".ratoon" / "mlartifacts").as_uri()]
    return _start(root, "mlflow", command, {}, port, "/health")


def _start_worker(root: Path, services: Mapping[str, Service]) -> Service:
    command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"]
    command += ["--name", _worker_name(), "--install-policy", "never"]
    return _start(root, "worker", command, services, None)


def _worker_name() -> str:
    return f"ratoon-{POOL}"


def wait(service: Service, report: Say = say, seconds: float = READY_SECONDS) -> None:
    """Until it answers. Raises ServiceFailed if it ends or takes longer than `seconds`."""
    _until(lambda: processes.healthy(service), service, report, seconds)


def _until(is_ready: Callable[[], bool], service: Service, report: Say, seconds: float) -> None:
    begun = spoken = time.monotonic()
    while not is_ready():
        now = time.monotonic()
        ended = not processes.alive(service)
        if ended or now - begun > seconds:
            what = "ended while starting" if ended else f"did not answer within {seconds:.0f} s"
            end = processes.tail(Path(service.log))
            raise ServiceFailed(f"{service.name} {what}; the end of its log, {service.log}:\n{end}")
        if now - spoken >= SAY_SECONDS:
            report(f"{service.name}: starting, {now - begun:.0f} s")
            spoken = now
        time.sleep(0.3)


# ---------------------------------------------------------------- Prefect: deployments, worker


def deploy(root: Path, services: Mapping[str, Service], report: Say = say) -> None:
    """`ratoon deploy`; without a prefect.yaml there is nothing to tell. Raises ServiceFailed with its words."""
    if (root / "prefect.yaml").exists():
        report("prefect: registering the deployments of prefect.yaml")
        report(_deploy(root, services))


def _deploy(root: Path, services: Mapping[str, Service]) -> str:
    """In a process of its own, whose Prefect knows our server; its output, which is in logs/deploy.log too."""
    log = _log(root, "deploy")
    with log.open("ab") as output:
        begins = output.tell()
        done = subprocess.run(
            [sys.executable, "-m", "ratoon", "--root", str(root), "deploy"],
            cwd=root,
            env=_environment(root, services),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=600,
            check=False,
        )
    words = log.read_bytes()[begins:].decode("utf-8", errors="replace").strip()
    if done.returncode:
        raise ServiceFailed(f"`ratoon deploy` failed (exit code {done.returncode}):\n{words[-3000:]}")
    return words


def _wait_for_worker(services: Mapping[str, Service], report: Say) -> None:
    _until(lambda: worker_online(services), services["worker"], report, READY_SECONDS)


def worker_online(services: Mapping[str, Service]) -> bool:
    """Whether Prefect hears our worker: a process alone may hang."""
    if "prefect" not in services or "worker" not in services or not processes.alive(services["worker"]):
        return False
    found = _post(f"{services['prefect'].address}/api/work_pools/{POOL}/workers/filter", {})
    return any(item.get("name") == _worker_name() and item.get("status") == "ONLINE" for item in found or [])


def _post(url: str, body: Mapping[str, Any]) -> Any:
    """The JSON answer; None if there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=5) as reply:
            return json.load(reply)
    except (urllib.error.URLError, OSError, ValueError):
        return None


def _addresses(services: Mapping[str, Service]) -> str:
    prefect, mlflow = services["prefect"].address, services["mlflow"].address
    return (
        f"Prefect   {prefect}\nMLflow    {mlflow}\nworker    pool {POOL}, one run at a time\n"
        f"`ratoon` finds them by itself; for the prefect and mlflow commands in this shell:\n"
        f"  export PREFECT_API_URL={prefect}/api MLFLOW_TRACKING_URI={mlflow}\n"
        f"`ratoon down` stops them"
    )


# ---------------------------------------------------------------- down, status, logs


def down(root: Path, report: Say = say) -> None:
    """Stop what `up` started, the worker first, each with all its children. Nothing running is no error."""
    root = root.resolve()
    with _alone(root):
        services = processes.recorded(root)
        for name in sorted(services, key=lambda name: NAMES.index(name) if name in NAMES else -1, reverse=True):
            processes.stop(services.pop(name))
            processes.record(root, services)
            report(f"{name}: stopped")
        if not services:
            processes.register(root).unlink(missing_ok=True)


def status(root: Path) -> list[dict[str, Any]]:
    """Each service: name, address, pid, log, and state: `healthy`, `starting or stuck`, `dead` or `not started`."""
    services = processes.recorded(root.resolve())
    return [_state(name, services) for name in NAMES]


def _state(name: str, services: Mapping[str, Service]) -> dict[str, Any]:
    service = services.get(name)
    if service is None:
        return {"name": name, "state": "not started", "address": None, "pid": None, "log": None}
    well = worker_online(services) if name == "worker" else processes.healthy(service)
    state = "healthy" if well else "starting or stuck" if processes.alive(service) else "dead"
    return {"name": name, "state": state, "address": service.address, "pid": service.pid, "log": service.log}


def show_status(root: Path, *, as_json: bool = False) -> int:
    """Print what runs here and which model is the champion. Exit code 0, or 1 if something started is not well."""
    found = status(root)
    line = config.load(root).refresh.line
    model = _champion(root, line)
    if as_json:
        print(json.dumps({"services": found, "model": line, "champion": model}, indent=2))
    else:
        print("\n".join(_line(item) for item in found))
        print(
            f"{line}: " + (f"champion is version {model['version']}, {model['path']}" if model else "no champion yet")
        )
    return 1 if any(item["state"] not in ("healthy", "not started") for item in found) else 0


def _line(item: Mapping[str, Any]) -> str:
    more = item["address"] or (f"log {item['log']}" if item["log"] else "`ratoon up` starts it")
    pid = f"  pid {item['pid']}" if item["pid"] else ""
    return f"{item['name']:<10}{item['state']:<19}{more}{pid}"


def _champion(root: Path, line: str) -> dict[str, Any] | None:
    from tasks import reach, tracking

    path = reach.database(tracking.store())
    if path is not None and not path.exists():
        return None  # nothing was ever tracked; asking would make the database
    found = tracking.champion(line)
    return {"version": found.version, "path": str(found.path)} if found else None


def logs(root: Path, name: str, lines: int = 100) -> str:
    """The end of a service's log. Raises ConfigError if there is no such service or nothing was logged."""
    if name not in (*NAMES, "deploy"):
        raise ConfigError(config.unknown("service", name, [*NAMES, "deploy"]))
    path = _log(root.resolve(), name)
    if not path.exists():
        raise ConfigError(f"{path}: not found; `ratoon up` starts {name} and its log")
    return processes.tail(path, lines)


def _log(root: Path, name: str) -> Path:
    path = root / ".ratoon" / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
