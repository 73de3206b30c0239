"""Two processes never train in one folder, however the supervisor of the first ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ratoon.training.sole import Occupied, sole

# A supervisor in small: hands the folder to a child, which outlives it by so many seconds.
SUPERVISOR = """
import subprocess, sys, time
from pathlib import Path
from ratoon.training.sole import sole
folder, seconds = Path(sys.argv[1]), sys.argv[2]
with sole(folder, 5) as lock:
    child = subprocess.Popen(["sleep", seconds], pass_fds=(lock.fileno(),), start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def killed_supervisor(folder, seconds):
    """The child that a supervisor left behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    return child


def test_who_comes_after_a_killed_supervisor_waits_for_the_child_it_left(tmp_path):
    begun = time.monotonic()
    killed_supervisor(tmp_path, 1.5)
    with sole(tmp_path, 30):
        assert time.monotonic() - begun >= 1.5


def test_a_child_that_does_not_leave_is_named_and_one_that_is_killed_frees_the_folder(tmp_path):
    child = killed_supervisor(tmp_path, 600)
    (tmp_path / "pid").write_text(str(child))
    try:
        with pytest.raises(Occupied, match=rf"another training process \(process {child}\)"), sole(tmp_path, 0.3):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
    with sole(tmp_path, 10):
        pass


def test_the_folder_is_free_again_as_soon_as_a_run_has_ended(tmp_path):
    for _ in range(2):
        with sole(tmp_path, 0):
            pass
