"""Which process a run belongs to, so that another day it can be told whether that one still lives.

A pid alone proves nothing, for the kernel hands numbers out again; a number means nothing on another machine, nor in
another container. Only what is known is said: of a process elsewhere, that nobody knows.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from tasks.processes import SAME_START_SECONDS

TAG = "ratoon.owner"  # of a run in MLflow
NAMESPACE = Path("/proc/self/ns/pid")  # containers of one machine may have one name, and numbers of their own


class Owner(NamedTuple):
    host: str
    namespace: str
    pid: int
    started: float  # seconds since the epoch, as psutil gives it


def own() -> Owner:
    """This process."""
    pid = os.getpid()
    return Owner(socket.gethostname(), namespace(), pid, round(psutil.Process(pid).create_time(), 2))


def namespace() -> str:
    try:
        return os.readlink(NAMESPACE)
    except OSError:
        return ""


def tag() -> dict[str, str]:
    """What a run carries from its creation on."""
    return {TAG: json.dumps(own()._asdict())}


def parsed(tags: Mapping[str, str]) -> Owner | None:
    """None where nobody wrote it down, or not so that it can be read."""
    try:
        return Owner(**json.loads(tags.get(TAG, "")))
    except (TypeError, ValueError):
        return None


def is_gone(owner: Owner | None) -> bool:
    """Whether it is certain that the process has ended."""
    if owner is None or (owner.host, owner.namespace) != (socket.gethostname(), namespace()):
        return False
    try:
        process = psutil.Process(owner.pid)
        another = abs(process.create_time() - owner.started) >= SAME_START_SECONDS
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
