"""Promises about long-lived processes: recognised, never mistaken, ended whole."""

import socket
import sys
import time

import psutil
import pytest

from ratoon.config import ConfigError
from tasks import processes
from tasks.processes import Service

PARENT = (
    "import subprocess, sys, time; "
    "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session={own}); "
    "print(c.pid, flush=True); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"


def started(tmp_path, code: str) -> tuple[Service, str]:
    service = processes.start("x", [sys.executable, "-c", code], {"PATH": "/bin"}, root=tmp_path, log=tmp_path / "log")
    until = time.monotonic() + 20
    while not (said := (tmp_path / "log").read_text()).strip():
        assert time.monotonic() < until
        time.sleep(0.02)
    return service, said.strip()


@pytest.mark.parametrize("own", [False, True])
def test_stopping_a_service_ends_its_children_too_even_in_a_session_of_their_own(tmp_path, own):
    service, child = started(tmp_path, PARENT.format(own=own))
    assert processes.alive(service)
    processes.stop(service)
    assert not processes.alive(service)
    assert not psutil.pid_exists(int(child)) or psutil.Process(int(child)).status() == psutil.STATUS_ZOMBIE


def test_one_that_ignores_the_request_is_killed(tmp_path):
    service, _ = started(tmp_path, STUBBORN)
    processes.stop(service, grace_seconds=0.5)
    assert not processes.alive(service)


def test_a_pid_handed_to_another_process_is_neither_ours_nor_stopped(tmp_path):
    service, _ = started(tmp_path, STUBBORN)
    try:
        stranger = service.model_copy(update={"started": service.started - 3600})
        assert not processes.alive(stranger)
        processes.stop(stranger, grace_seconds=0.2)
        assert processes.alive(service)
    finally:
        processes.stop(service, grace_seconds=0.1)


def test_a_child_whose_parent_died_is_still_found(tmp_path):
    service, child = started(tmp_path, PARENT.format(own=False))
    leader = psutil.Process(service.pid)
    leader.kill()
    leader.wait()
    assert psutil.pid_exists(int(child))
    processes.stop(service)
    assert not psutil.pid_exists(int(child)) or psutil.Process(int(child)).status() == psutil.STATUS_ZOMBIE


def test_what_was_recorded_before_a_reboot_is_never_taken_for_ours(tmp_path):
    service, child = started(tmp_path, PARENT.format(own=False))
    leader = psutil.Process(service.pid)
    leader.kill()
    leader.wait()
    # A group of that number lives, as one may after a reboot: another's.
    before = service.model_copy(update={"started": psutil.boot_time() - 3600})
    processes.stop(before, grace_seconds=0.2)
    assert psutil.pid_exists(int(child))
    processes.stop(service, grace_seconds=0.2)


def test_a_taken_port_gives_way_to_the_next_free_one():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        assert processes.free_port(taken) > taken
        with pytest.raises(ConfigError, match=f"no free port from {taken} to {taken} on 127.0.0.1; name another"):
            processes.free_port(taken, tries=1)


def test_the_register_reads_back_what_was_written_and_a_damaged_one_says_what_to_do(tmp_path):
    assert processes.recorded(tmp_path) == {}
    service = Service(name="mlflow", pid=1, started=2.0, address="http://127.0.0.1:5000", health=None, log="log")
    processes.record(tmp_path, {"mlflow": service})
    assert processes.recorded(tmp_path) == {"mlflow": service}
    processes.register(tmp_path).write_text("{half", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"services\.json: not a register .*then delete the file"):
        processes.recorded(tmp_path)


def test_the_end_of_a_large_log_is_its_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(50_000)), encoding="utf-8")
    assert processes.tail(log, 2) == "line 49998\nline 49999"
    assert processes.tail(tmp_path / "none") == ""
