"""Prefect's API where no server runs: a process beside ours, which lives as long as we do.

Prefect would start one itself, with the first flow. Ours starts with the command, before Prefect is imported: it takes
seconds, or ten where its database is new, and the libraries of a flow are imported meanwhile.

Either ends when we end by ourselves. Of one that is killed it would live on for ever: a third process, of 11 MB, waits
for that and ends it.
"""

import atexit
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tasks.processes import HOST

API = "prefect.server.api.server:create_app"
# What Prefect gives the API that it starts itself: no pages, and none of the services of a server that lasts.
LEAVES_OUT = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
LOOK_SECONDS, END_SECONDS = 0.05, 5.0
WAIT = """
import os, signal, sys
watched = os.pidfd_open(int(sys.argv[1]))  # a number alone may be another's by then
sys.stdin.buffer.read()
try:
    signal.pidfd_send_signal(watched, signal.SIGTERM)
except ProcessLookupError:
    pass
"""
_tied: set[int] = set()
_booted: list[subprocess.Popen[bytes]] = []


def served() -> bool:
    """Whether Prefect's API is a server of its own, which lasts."""
    from prefect.settings import get_current_settings

    return not _booted and get_current_settings().api.url is not None


def boot(root: Path) -> bool:
    """Start the API of this process, where Prefect would: after tasks.environment.apply. Whether it was started."""
    if _booted or "prefect" in sys.modules or settled(root):
        return False
    package = importlib.util.find_spec("prefect")
    if package is None or not package.submodule_search_locations:
        return False
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    where = ["--app-dir", str(Path(package.submodule_search_locations[0]).parent), "--host", HOST, "--port", str(port)]
    command = [sys.executable, "-m", "uvicorn", *where, "--factory", API, "--log-level", "error", "--lifespan", "on"]
    process = subprocess.Popen(command, env={**os.environ, **LEAVES_OUT})
    _booted.append(process)
    atexit.register(end, process)
    _tie(process.pid)
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    return True


def settled(root: Path) -> bool:
    """Whether a person has said which API there is, in any of the places where Prefect looks."""
    if os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_SERVER_EPHEMERAL_ENABLED") != "true":
        return True
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    project = root / "pyproject.toml"
    return (
        any(path.exists() for path in (profiles, root / "prefect.toml", root / ".env"))
        or (project.exists() and b"[tool.prefect" in project.read_bytes())
        or "PREFECT_PROFILE" in os.environ
    )


def wait() -> None:
    """Until the API that was started here answers. Raises RuntimeError where it ends, or takes too long."""
    for process in _booted:
        seconds = float(os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180"))
        until = time.monotonic() + seconds
        while not healthy():
            if process.poll() is not None:
                raise RuntimeError(f"Prefect's API ended with exit code {process.returncode} before it answered")
            if time.monotonic() > until:
                raise RuntimeError(
                    f"Prefect's API did not answer within {seconds:g} s; on a slow disk set "
                    f"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS higher"
                )
            time.sleep(LOOK_SECONDS)


def healthy() -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{os.environ['PREFECT_API_URL']}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Gently, and then not. What Prefect still had to tell it was told before: its handlers run first."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tie() -> None:
    """Have the API that Prefect started for this process end with it, however it ends. Linux; elsewhere nothing."""
    if served():
        return
    for child in psutil.Process().children():
        if child.pid not in _tied and is_api(child):
            _tie(child.pid)


def _tie(pid: int) -> None:
    if hasattr(os, "pidfd_open"):
        # Its end of the pipe is closed when we are gone, and not before.
        command = [sys.executable, "-I", "-S", "-c", WAIT, str(pid)]
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        _tied.add(pid)


def is_api(process: psutil.Process) -> bool:
    try:
        return API in process.cmdline()
    except psutil.Error:
        return False
