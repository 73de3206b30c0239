"""What a training process lets go of stays at hand for its next step."""

import os
import subprocess
import sys
from types import SimpleNamespace

from ratoon.training import heap

# A process's first block of this size has pages of its own, which go back as soon as it is let go of. What the process
# has in memory then is told in bytes: how many of them a page fault brings is the kernel's. With a step's tensors this
# cannot be told: a few bytes that lie beyond them keep all of the heap below in use.
BLOCK = 2**24
STEP = f"""
import ctypes, resource, sys
from pathlib import Path
from ratoon.training.heap import keep_heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

if sys.argv[1] == "kept":
    assert keep_heap()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
block = ctypes.c_void_p(c.malloc(ctypes.c_size_t({BLOCK})))
ctypes.memset(block, 1, {BLOCK})
held = resident()
c.free(block)
print(held - resident())
"""


def given_back(how):
    """Bytes that the system had back when the block was let go of."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", STEP, how], capture_output=True, text=True, check=True, env=plain)
    return int(done.stdout)


def test_what_a_step_lets_go_of_stays_with_the_process_for_the_next():
    assert given_back("as it is") > BLOCK / 2
    assert given_back("kept") < BLOCK / 20


def test_an_allocator_that_cannot_be_told_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not heap.keep_heap()
    refusing = SimpleNamespace(mallopt=lambda *_: 0)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: refusing)
    assert not heap.keep_heap()
