"""Servers of one machine: Prefect's and MLflow's pages and workers, on loopback unless asked. `ratoon up`, `down`.

They use the same databases under `.ratoon/` as the embedded default, so that nothing is lost going up or down.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ratoon.config import ConfigError
from tasks import access, launch, processes
from tasks.access import Bind
from tasks.processes import Service
from tasks.status import worker_online

READY_SECONDS = 180.0  # a first start makes its database; on a slow disk that is a minute
SAY_SECONDS = 5.0
LOOK_SECONDS = 15.0  # how often `up --watch` looks; what dies is away for so long at most, and its start
MAX_PAUSE_SECONDS = 600.0  # between tries to start what will not start
# A training saves before it goes; nobody waits longer than it takes.
GRACE_SECONDS = {"worker": 120.0, "worker-gpu": 120.0}
Say = Callable[[str], None]


class ServiceFailed(RuntimeError):
    """A server ended, or did not answer in time. The message holds the end of its log."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- up


def up(
    root: Path,
    *,
    prefect_port: int = 4200,
    mlflow_port: int = 5000,
    bind: Bind | None = None,
    gpu: bool = False,
    report: Say = say,
) -> dict[str, Service]:
    """Start what does not run yet, wait until it answers, register the deployments of prefect.yaml.

    Ports are the first to try; one that is taken gives way to the next. What runs stays as it is, and what died is
    started as it was. Raises ServiceFailed with the end of the log of what did not come up; what this call started
    is stopped again.
    """
    root = root.resolve()
    with _alone(root):
        recorded = processes.recorded(root)
        bound = _bound(recorded, bind)
        services = _living(recorded)
        fresh: list[Service] = []

        def keep(service: Service) -> None:
            services[service.name] = service
            fresh.append(service)
            processes.record(root, services)

        try:
            _start_servers(root, recorded, services, bound, {"prefect": prefect_port, "mlflow": mlflow_port}, keep)
            for name in ("prefect", "mlflow"):
                wait(services[name], report)
            deploy(root, services, report)
            for name in _workers(recorded, gpu):
                if name not in services:
                    keep(launch.worker(root, services, name))
                _wait_for_worker(services, report, name)
        except BaseException:
            for service in reversed(fresh):
                processes.stop(service)
                services.pop(service.name)
            processes.record(root, services)
            raise
    report(_addresses(services))
    return services


def _living(recorded: Mapping[str, Service]) -> dict[str, Service]:
    """What still runs. Of what died, the children may live on and hold its port: they are ended."""
    services = {name: item for name, item in recorded.items() if processes.alive(item)}
    for name in recorded.keys() - services.keys():
        processes.stop(recorded[name])
    return services


def _start_servers(
    root: Path,
    recorded: Mapping[str, Service],
    services: Mapping[str, Service],
    bound: Bind,
    first_ports: Mapping[str, int],
    keep: Callable[[Service], None],
) -> None:
    if launch.KEEPER not in services:
        keep(launch.keeper(root))
    for name, first in first_ports.items():
        if name not in services:

            def port(wanted: int) -> int:
                return processes.free_port(wanted, avoid=_ports(services), host=bound.host)

            start = launch.prefect if name == "prefect" else launch.mlflow
            keep(start(root, _again(name, recorded, port, first), bound))


def _bound(recorded: Mapping[str, Service], asked: Bind | None) -> Bind:
    """As asked; unasked, as it was. Raises ConfigError where that changes what runs, or its secrets are not at hand."""
    servers = [recorded[name] for name in ("prefect", "mlflow") if name in recorded]
    was = Bind(servers[0].host, servers[0].login) if servers else None
    if asked is None:
        return access.bind(*was, os.environ) if was else Bind()
    if was and asked != was and any(processes.alive(item) for item in servers):
        raise ConfigError(
            f"the servers listen on {was.host}{' and ask for a login' if was.login else ''}; `ratoon down` first"
        )
    return asked


def _again(name: str, recorded: Mapping[str, Service], port: Callable[[int], int], first: int) -> int:
    """The port it had, so that bookmarks and workers find it again; else the first free one."""
    had = recorded.get(name)
    if had and had.address:
        before = int(had.address.rsplit(":", 1)[1])
        with contextlib.suppress(ConfigError):
            found = port(before)
            if found == before:
                return found
    return port(first)


def _workers(recorded: Mapping[str, Service], gpu: bool) -> list[str]:
    """One for the pool `cpu`, always; one for `gpu` where asked, or where there was one."""
    return [name for name in launch.POOLS if name == "worker" or gpu or name in recorded]


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
    log = launch.log(root, "deploy")
    with log.open("ab") as output:
        begins = output.tell()
        done = subprocess.run(
            [sys.executable, "-m", "ratoon", "--root", str(root), "deploy"],
            cwd=root,
            env=launch.surroundings(root, services),
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


def _wait_for_worker(services: Mapping[str, Service], report: Say, name: str = "worker") -> None:
    _until(lambda: worker_online(services, name), services[name], report, READY_SECONDS)


def _addresses(services: Mapping[str, Service]) -> str:
    prefect, mlflow = services["prefect"].address, services["mlflow"].address
    pools = " and ".join(pool for name, pool in launch.POOLS.items() if name in services)
    login = "\nBoth ask for the names and passwords you set." if services["prefect"].login else ""
    return (
        f"Prefect   {prefect}\nMLflow    {mlflow}\nworker    pool {pools}, one run at a time{login}\n"
        f"`ratoon` finds them by itself; for the prefect and mlflow commands in this shell:\n"
        f"  export PREFECT_API_URL={prefect}/api MLFLOW_TRACKING_URI={mlflow}\n"
        f"`ratoon down` stops them"
    )


# ---------------------------------------------------------------- watch, down


def watch(root: Path, start: Callable[[], object], ended: threading.Event, report: Say = say) -> None:
    """Keep everything up until `ended` is set or somebody takes it down, then stop it all. What a systemd unit runs.

    A start that fails is tried again, ever later up to every ten minutes; a mistake of a person's ends it.
    """
    pause, was_up = LOOK_SECONDS, False
    try:
        while not ended.is_set():
            with _alone(root):  # what is under way elsewhere is looked at when it is done
                taken_down = was_up and not processes.register(root).exists()
                well = _all_alive(root)
            if taken_down:
                report("taken down by `ratoon down`: no longer watched")
                return
            if well:
                pause, was_up = LOOK_SECONDS, True
            else:
                try:
                    start()
                    pause, was_up = LOOK_SECONDS, True
                except (ServiceFailed, OSError) as error:
                    report(f"{error}\ntried again in {pause:.0f} s")
                    pause = min(2 * pause, MAX_PAUSE_SECONDS)
            ended.wait(pause)
    finally:
        down(root, report)


def _all_alive(root: Path) -> bool:
    services = processes.recorded(root)
    return set(launch.ALWAYS) <= services.keys() and all(processes.alive(item) for item in services.values())


def down(root: Path, report: Say = say) -> None:
    """Stop what `up` started, the workers first, each with all its children. Nothing running is no error."""
    root = root.resolve()
    with _alone(root):
        services = processes.recorded(root)
        for name in sorted(services, key=_place, reverse=True):
            processes.stop(services.pop(name), GRACE_SECONDS.get(name, 10.0))
            processes.record(root, services)
            report(f"{name}: stopped")
        if not services:
            processes.register(root).unlink(missing_ok=True)


def _place(name: str) -> int:
    return launch.NAMES.index(name) if name in launch.NAMES else -1
