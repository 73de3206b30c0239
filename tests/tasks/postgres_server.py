"""Servers that a test starts and ends: any that answers at a port, and a PostgreSQL cluster of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(ends, command, address, sign=signal.SIGTERM, **more):
    """A server, until it answers; killed at the end with all its children."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, **more)

    def stop():
        if process.poll() is None:
            os.killpg(process.pid, sign)
        process.wait(30)

    ends.callback(stop)
    for _ in range(600):
        assert process.poll() is None, command
        try:
            with socket.create_connection(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{command} does not answer")


def postgres(ends, *databases):
    """A cluster with these databases; the address of each. PostgreSQL refuses to be root: then it is Debian's user."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else shutil.which("initdb") and Path(shutil.which("initdb")).parent
    if not programs:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="ratoon-pg-", dir="/tmp"))
    ends.callback(shutil.rmtree, folder, ignore_errors=True)
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    if who:
        shutil.chown(folder, "postgres", "postgres")
    port, quiet = free_port(), {"stdout": subprocess.DEVNULL, "check": True, "cwd": folder, **who}
    subprocess.run([programs / "initdb", "-D", folder / "data", "-U", "ratoon", "--auth=trust"], **quiet)
    command = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
    # Asked by SIGTERM, PostgreSQL waits until the last client has gone.
    start(ends, command, ("127.0.0.1", port), signal.SIGINT, stderr=subprocess.DEVNULL, cwd=folder, **who)
    for name in databases:
        create(programs / "createdb", port, name, cwd=folder, **who)
    return [f"postgresql+psycopg2://ratoon@127.0.0.1:{port}/{name}" for name in databases]


def create(createdb, port, name, **where):
    command = [createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "ratoon", name]
    for _ in range(50):  # the port answers a moment before the database does
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False, **where).returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError("createdb does not succeed")
