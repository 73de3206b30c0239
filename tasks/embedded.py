"""Prefect's API where no server runs is a process beside ours, which Prefect ends when ours ends by itself. Of one that
is killed it would live on for ever: a third process, of 11 MB, waits for that and ends it.
"""

import os
import subprocess
import sys

import psutil

from tasks.announce import served

API = "prefect.server.api.server:create_app"
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


def tie() -> None:
    """Have the API that Prefect started for this process end with it, however it ends. Linux; elsewhere nothing."""
    if served() or not hasattr(os, "pidfd_open"):
        return
    for child in psutil.Process().children():
        if child.pid not in _tied and is_api(child):
            command = [sys.executable, "-I", "-S", "-c", WAIT, str(child.pid)]
            # Its end of the pipe is closed when we are gone, and not before.
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
            _tied.add(child.pid)


def is_api(process: psutil.Process) -> bool:
    try:
        return API in process.cmdline()
    except psutil.Error:
        return False
