"""The end of a command: fast, and nothing that was to be done at the end is left out."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDING = """
from ratoon.leave import leave
import atexit, sys, threading, time

class Late:
    def __del__(self):
        print("taken apart")

kept = [Late()]
kept.append(kept)
atexit.register(print, "a handler")
threading.Thread(target=lambda: (time.sleep(0.3), print("a thread"))).start()
print("work", end="; ")
sys.exit(leave(3)) if "leave" in sys.argv else sys.exit(1 / 0)
"""


def end(*words, **options):
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ENDING, *words]
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False, **options)


def test_threads_and_handlers_are_waited_for_output_is_written_and_the_rest_is_left():
    done = end("leave")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == "work; a thread\na handler\n"


def test_an_error_that_nobody_caught_is_told_as_ever():
    done = end()
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "a handler" in done.stdout


def test_the_command_line_leaves_so_with_its_exit_code(tmp_path):
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ratoon", "--root", str(tmp_path), "status"]
    done = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ratoon: ")
