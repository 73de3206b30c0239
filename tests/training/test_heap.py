"""What a training process lets go of stays at hand for its next step."""

import subprocess
import sys
from types import SimpleNamespace

from ratoon.training import heap

# A step holds 32 tensors of 2 MiB and lets go of them all together. What the process has in memory then, against what
# it had while it held them, is told in bytes and not in page faults: how many bytes a fault brings is the kernel's.
STEPS = """
import resource, sys
from pathlib import Path
import torch
from ratoon.training.heap import keep_heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def step():
    held = [torch.ones(2**19) for _ in range(32)]
    return resident()

if sys.argv[1] == "kept":
    assert keep_heap()
step()
step()
held = step()
print(held - resident())
"""
HELD = 32 * 2**21


def given_back(how):
    """Bytes that the system had back after a step."""
    done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_what_a_step_lets_go_of_stays_with_the_process_for_the_next():
    assert given_back("as it is") > HELD / 2
    assert given_back("kept") < HELD / 20


def test_an_allocator_that_cannot_be_told_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not heap.keep_heap()
    refusing = SimpleNamespace(mallopt=lambda *_: 0)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: refusing)
    assert not heap.keep_heap()
