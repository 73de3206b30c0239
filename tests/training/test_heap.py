"""What a training process lets go of stays at hand for its next step."""

import subprocess
import sys
from types import SimpleNamespace

from ratoon.training import heap

# Faults of a second round of the same tensors, which is a step after a step: 32 of 2 MiB, let go of all together.
ROUNDS = """
import resource, sys
import torch
from ratoon.training.heap import keep_heap

def step():
    held = [torch.ones(2**19) for _ in range(32)]

if sys.argv[1] == "kept":
    assert keep_heap()
step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 32 * 2**21 // 4096


def faults(how):
    done = subprocess.run([sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_step_that_asks_for_what_the_last_let_go_of_gets_the_same_pages():
    assert faults("given back") > PAGES / 2
    assert faults("kept") < PAGES / 20


def test_an_allocator_that_cannot_be_told_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not heap.keep_heap()
    refusing = SimpleNamespace(mallopt=lambda *_: 0)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: refusing)
    assert not heap.keep_heap()
