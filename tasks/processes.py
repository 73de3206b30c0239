"""Long-lived processes of this project: started detached, recorded, recognised again, stopped whole.

`.ratoon/services.json` is their register. A pid alone proves nothing, since the kernel hands numbers out again:
a process is ours when its start time is the recorded one too.
"""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from pydantic import TypeAdapter, ValidationError

from ratoon import records
from ratoon.config import ConfigError
from tasks.access import HOST as HOST

SAME_START_SECONDS = 2.0  # a start time is boot time plus ticks, and boot time moves when a clock is set


class Service(records.Record):
    """One process and how to reach it."""

    name: str
    pid: int
    started: float  # seconds since the epoch, as psutil gives it
    address: str | None  # None: it listens nowhere
    health: str | None  # URL that answers 200 when it is ready
    log: str
    host: str = HOST  # where it listens; `address` is how this machine calls it
    login: bool = False  # whether it asks for name and password


REGISTER = TypeAdapter(dict[str, Service])


def register(root: Path) -> Path:
    return root / ".ratoon" / "services.json"


def recorded(root: Path) -> dict[str, Service]:
    """Services by name, dead or alive; none if nothing was ever started. Raises ConfigError on a damaged register."""
    path = register(root)
    if not path.exists():
        return {}
    try:
        return REGISTER.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(
            f"{path}: not a register of services ({error.error_count()} things wrong); "
            f"stop what still runs by hand (`ps -ef | grep {root}`), then delete the file"
        ) from None


def record(root: Path, services: Mapping[str, Service]) -> None:
    records.write_text(register(root), REGISTER.dump_json(dict(services), indent=2).decode() + "\n")


def alive(service: Service) -> bool:
    """The recorded process itself runs: same pid, same start, not a zombie."""
    process = _process(service)
    return process is not None and process.status() != psutil.STATUS_ZOMBIE


def _process(service: Service) -> psutil.Process | None:
    try:
        process = psutil.Process(service.pid)
        same = abs(process.create_time() - service.started) < SAME_START_SECONDS
        return process if same else None
    except psutil.NoSuchProcess:
        return None


def listening(service: Service) -> bool:
    """Alive, and its port takes connections. True of a busy server that would answer slowly."""
    if service.address is None or not alive(service):
        return False
    parts = urlsplit(service.address)
    try:
        with socket.create_connection((parts.hostname or HOST, parts.port or 80), timeout=2):
            return True
    except OSError:
        return False


def healthy(service: Service, timeout: float = 5.0) -> bool:
    """Alive, and its health page answers within `timeout` seconds; without such a page, alive."""
    if not alive(service):
        return False
    return service.health is None or answers(service.health, timeout)


def answers(url: str, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> bool:
    # No proxy: these addresses are this machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout) as reply:
            return 200 <= reply.status < 300
    except (urllib.error.URLError, OSError, ValueError):
        return False


def free_port(first: int, avoid: Sequence[int] = (), tries: int = 100, host: str = HOST) -> int:
    """The first port from `first` on that nobody listens on. Raises ConfigError when there is none."""
    for port in range(first, min(first + tries, 65536)):
        if port in avoid:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            # Without this a port closed a minute ago still counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
    raise ConfigError(f"no free port from {first} to {first + tries - 1} on {host}; name another one to start from")


def start(name: str, command: Sequence[str], environment: Mapping[str, str], *, root: Path, log: Path) -> Service:
    """`command` in a session of its own, in the project's folder, its output in `log`. Not yet ready."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            cwd=root,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        started = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:
        started = time.time()
    return Service(name=name, pid=process.pid, started=started, address=None, health=None, log=str(log))


def stop(service: Service, grace_seconds: float = 10.0) -> None:
    """End its whole group and all its descendants: asked first, killed after `grace_seconds`."""
    victims = _family(service)
    for process in victims:
        _quietly(process.terminate)
    _, left = psutil.wait_procs(victims, timeout=grace_seconds)
    # Looked up again: between the two it may have started more.
    left = list({*left, *_family(service)})
    for process in left:
        _quietly(process.kill)
    psutil.wait_procs(left, timeout=grace_seconds)


def _family(service: Service) -> list[psutil.Process]:
    """Descendants in other sessions too: a supervisor may have started its child in its own."""
    leader = _process(service)
    if leader is None and psutil.pid_exists(service.pid):
        return []  # the number is another's now; a number still in use as a group's is never handed out
    if leader is None and service.started < psutil.boot_time() - SAME_START_SECONDS:
        return []  # the machine was started since: whatever bears the number now, it is not ours
    found = {leader, *_children(leader)} if leader is not None else set()
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == service.pid:
                found.add(process)
        except (ProcessLookupError, PermissionError):
            continue
    return list(found)


def _children(leader: psutil.Process) -> list[psutil.Process]:
    try:
        return leader.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _quietly(end: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        end()


def tail(log: Path, lines: int = 20) -> str:
    """Its last lines, read from the end: a log may have grown large."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 400 * lines))
        text = file.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])
