"""What a run costs on this machine, from a few of its own steps.

In a process of its own, so that the peak of its memory is what the run's will be: the request is opened as a run opens
it, with its methods, and takes real steps on real rows, an evaluation and a checkpoint. Rows per forward pass double
from 1 until the recipe's are reached or `SECONDS` are spent; what was not reached is extrapolated by a straight line.
"""

import ctypes
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from ratoon.config import ConfigError
from ratoon.lm.flops import flops_of
from ratoon.records import Record
from ratoon.stream.mixture import Batch
from ratoon.training import checkpoint
from ratoon.training.loop import advance, mean_loss
from ratoon.training.method import Method, Step
from ratoon.training.pool import map_processes
from ratoon.training.reading import EVALUATION_ROWS
from ratoon.training.request import Request
from ratoon.training.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State

SECONDS = 20.0  # for the steps, and a third of it for the evaluation; what has begun is ended
REPEATS = 5
SLOW = 0.01  # of the recipe's learning rate: the weights are thrown away, but must not diverge


class Reading(Record):
    """A pass over some rows."""

    rows: int
    seconds: float
    peak_bytes: int


class Probe(Record):
    device: str
    device_bytes: int  # of memory
    disk_free_bytes: int
    threads: int
    params: int
    flops_per_token: int  # of training
    forward_flops_per_token: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    methods_bytes: int
    process_bytes: int  # once the run is open, without its weights and the optimizer's memory
    start_seconds: float
    update_seconds: float  # a step's beside its forward and backward passes
    passes: tuple[Reading, ...]  # forward and backward
    evaluations: tuple[Reading, ...]
    held_out_rows: int  # of one evaluation, over all sources
    held_out_at_once: int  # at most, in one forward pass
    checkpoint: Reading  # rows: 0
    checkpoint_bytes: int


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


def measure(request: Request, copies: int = 1) -> Probe:
    """Of `copies` such runs at once, the slowest one's. Raises ConfigError where the machine has no memory for it."""
    try:
        found = map_processes(probe, [request] * copies, copies, lambda: None)
    except BrokenProcessPool:
        micro = request.recipe.micro_rows or request.recipe.rows_per_step
        raise ConfigError(
            f"{request.name}: the process that tried a few steps was killed, as the system does when memory runs out; "
            f"lower train.micro_rows (now {micro}), or prepare.held_out.max_tokens, or take a smaller base"
        ) from None
    return max(found, key=lambda one: one.passes[-1].seconds)


def probe(request: Request) -> Probe:
    # What methods and orders keep beside a run is taken away again.
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=nearest(Path(request.out))) as folder:
        return tried(request.model_copy(update={"out": folder}))


def tried(request: Request) -> Probe:
    begun = time.perf_counter()
    run = Run(request)
    start_seconds = time.perf_counter() - begun
    meter = Meter(run.model.device)
    weights, remembered = size(p for p in run.model.parameters()), optimizer_size(run.state)
    process = max(0, meter.current() - weights - remembered)
    passes, update_seconds = training_passes(run, meter)
    flops, recipe = flops_of(run.model), request.recipe
    saved, saved_bytes = save(run, meter)
    return Probe(
        device=meter.name,
        device_bytes=meter.total(),
        disk_free_bytes=shutil.disk_usage(nearest(Path(request.out))).free,
        threads=recipe.threads or torch.get_num_threads(),
        params=run.params,
        flops_per_token=flops.training(request.row_tokens),
        forward_flops_per_token=flops.forward(request.row_tokens),
        weights_bytes=weights,
        gradients_bytes=size(p for p in run.model.parameters() if p.requires_grad),
        optimizer_bytes=optimizer_size(run.state),
        methods_bytes=size(checkpoint.method_tensors(run.state).values()),
        process_bytes=process,
        start_seconds=start_seconds,
        update_seconds=update_seconds,
        passes=passes,
        evaluations=evaluation_passes(run, meter),
        held_out_rows=sum(held_out.count for held_out in run.held_out.values()),
        held_out_at_once=min(EVALUATION_ROWS, max(held_out.count for held_out in run.held_out.values())),
        checkpoint=saved,
        checkpoint_bytes=saved_bytes,
    )


def size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def optimizer_size(state: "State") -> int:
    """0 before the first step for a rule that remembers nothing until then."""
    return size(v for kept in state.optimizer.state.values() for v in kept.values() if torch.is_tensor(v))


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


class Stopwatch(Method):
    """Seconds from the beginning of a step until all its gradients are there."""

    name = "stopwatch"

    def __init__(self, meter: Meter) -> None:
        self.meter, self.begun, self.seconds = meter, 0.0, 0.0

    def begin(self, model: "PreTrainedModel", step: Step) -> None:
        self.begun = self.meter.now()

    def after_gradients(self, state: "State") -> None:
        self.seconds = self.meter.now() - self.begun


def ascend(most: int, seconds: float, read: Callable[[int], Reading]) -> tuple[Reading, ...]:
    """Readings at 1, 2, 4 ... `most` rows, as far as `seconds` go and two sizes at least: a line needs them.

    Each size is read twice, for the first pass warms up and makes the optimizer's state; the last up to `REPEATS` more.
    """
    found: list[Reading] = []
    rows, ends = 1, time.perf_counter() + seconds
    while True:
        first, again = read(rows), read(rows)
        found.append(typical([first, again], again.seconds))
        left = ends - time.perf_counter()
        if rows == most or (left < 4 * again.seconds and len(found) > 1):
            break
        rows = min(most, 2 * rows)
    last = [found.pop()]
    while len(last) < REPEATS and time.perf_counter() + last[-1].seconds < ends:
        last.append(read(rows))
    return (*found, typical(last, median(one.seconds for one in last)))


def typical(readings: list[Reading], seconds: float) -> Reading:
    return readings[0].model_copy(update={"seconds": seconds, "peak_bytes": max(one.peak_bytes for one in readings)})


def training_passes(run: Run, meter: Meter) -> tuple[tuple[Reading, ...], float]:
    """Forward and backward over growing numbers of rows, and the median of what else a step takes."""
    recipe, state, watch = run.request.recipe, run.state, Stopwatch(meter)
    state.methods = (*state.methods, watch)
    others: list[float] = []

    def read(rows: int) -> Reading:
        one = recipe.model_copy(update={"micro_rows": rows})
        whole = meter.read(
            rows,
            lambda: advance(
                state,
                state.step + 1,
                batch_at=lambda step: run.mixture.read(step * rows, rows),
                lr_at=lambda step: SLOW * recipe.learning_rate,
                recipe=one,
            ),
        )
        others.append(whole.seconds - watch.seconds)
        return whole.model_copy(update={"seconds": watch.seconds})

    try:
        passes = ascend(recipe.micro_rows or recipe.rows_per_step, SECONDS, read)
    finally:
        state.methods = state.methods[:-1]
    return passes, median(others[1:])


def evaluation_passes(run: Run, meter: Meter) -> tuple[Reading, ...]:
    """Over held-out rows, up to as many as an evaluation reads at once."""
    held_out = max(run.held_out.values(), key=lambda one: one.count)

    def read(rows: int) -> Reading:
        batch = Batch(*held_out.rows.read(np.arange(rows)))
        return meter.read(rows, lambda: mean_loss(run.model, [batch], run.request.recipe, held_out.rows.separator))

    return ascend(min(held_out.count, EVALUATION_ROWS), SECONDS / 3, read)


def nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there: what is only estimated leaves nothing behind."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def save(run: Run, meter: Meter) -> tuple[Reading, int]:
    """A checkpoint on the disk where the run's will lie, taken away again."""
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=nearest(Path(run.request.out))) as folder:
        place = Path(folder)
        reading = meter.read(0, lambda: checkpoint.save(run.state, place, tokenizer=None, identity="probe", tokens=0))
        return reading, sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
