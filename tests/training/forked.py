"""A process of its own for what a test must not survive: quick, because nothing is imported again."""

import os
import signal
import sys
import traceback

import pytest
import torch

# A GPU's state does not survive a fork; what is promised here is about files and signals, not devices.
needs_fork = pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which a process that uses a GPU must not")


def start(work):
    """The id of a child that does `work` and exits with what it returns, 1 where it raises."""
    child = os.fork()
    if child:
        return child
    try:
        os._exit(work() or 0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def end_of(child):
    """Exit code; negative: the signal it died of."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(work):
    return end_of(start(work))


def die_at_file_operation(number):
    """Kills this process with SIGKILL just before its so-maniest operation on a file that changes something."""
    left = number

    def hook(event, arguments):
        nonlocal left
        changes = event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "shutil.copyfile")
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if changes or writes:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
