"""Seconds and bytes of a device, read around a piece of work, over more and more rows of it."""

import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median

import torch

from ratoon.records import Record

REPEATS = 5


class Reading(Record):
    """A pass over some rows."""

    rows: int
    seconds: float
    peak_bytes: int


def at_rows(readings: Iterable[Reading], rows: int) -> Reading:
    """The reading of a pass over `rows`, measured or on the line through the two largest that were."""
    found = list(readings)
    if rows <= found[-1].rows:
        return next(one for one in found if one.rows >= rows)
    before, last = found[-2:]
    steps = (rows - last.rows) / (last.rows - before.rows)
    return Reading(
        rows=rows,
        seconds=last.seconds + steps * max(0.0, last.seconds - before.seconds),
        peak_bytes=round(last.peak_bytes + steps * max(0, last.peak_bytes - before.peak_bytes)),
    )


class Meter:
    """Time and memory of a device."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.name = torch.cuda.get_device_name(device) if self.cuda else "CPU"

    def read(self, rows: int, work: Callable[[], object]) -> Reading:
        self.reset()
        begun = self.now()
        work()
        return Reading(rows=rows, seconds=self.now() - begun, peak_bytes=self.peak())

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def reset(self) -> None:
        """The peak to what is held now. Where the system does not let us, passes that grow have peaks that grow."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return
        with suppress(OSError, AttributeError):
            # Given back first: what one pass let go of, C's allocator would keep, and the next seem to need.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.cuda else resident("VmHWM")

    def total(self) -> int:
        if self.cuda:
            return int(torch.cuda.get_device_properties(0).total_memory)
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def current(self) -> int:
        return torch.cuda.memory_allocated() if self.cuda else resident("VmRSS")


def resident(field: str) -> int:
    """Bytes, of Linux's account of this process; elsewhere the peak so far."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field))
    except (OSError, StopIteration):
        # Not on Linux: there a child begins with the peak of the process it was forked from.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ascend(
    most: int, seconds: float, read: Callable[[int], Reading], now: Callable[[], float] = time.perf_counter
) -> tuple[Reading, ...]:
    """Readings at 1, 2, 4 ... `most` rows, as far as `seconds` go and two sizes at least: a line needs them.

    Each size is read twice, for the first pass warms up and makes the optimizer's state; the last up to `REPEATS` more.
    now  a clock: ranks go by one
    """
    found: list[Reading] = []
    rows, ends = 1, now() + seconds
    while True:
        first, again = read(rows), read(rows)
        found.append(typical([first, again], again.seconds))
        left = ends - now()
        if rows == most or (left < 4 * again.seconds and len(found) > 1):
            break
        rows = min(most, 2 * rows)
    last = [found.pop()]
    while len(last) < REPEATS and now() + last[-1].seconds < ends:
        last.append(read(rows))
    return (*found, typical(last, median(one.seconds for one in last)))


def typical(readings: list[Reading], seconds: float) -> Reading:
    return readings[0].model_copy(update={"seconds": seconds, "peak_bytes": max(one.peak_bytes for one in readings)})
