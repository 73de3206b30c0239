"""What a run costs on this machine, from a few of its own steps.

In a process of its own, so that the peak of its memory is what the run's will be: the request is opened as a run opens
it, with its methods, and takes real steps on real rows, an evaluation and a checkpoint. Rows per forward pass double
from 1 until the recipe's are reached or `SECONDS` are spent; what was not reached is extrapolated by a straight line.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from ratoon.config import ConfigError
from ratoon.lm.flops import flops_of
from ratoon.records import Record
from ratoon.stream.lengths import cut
from ratoon.stream.mixture import Batch
from ratoon.training import checkpoint
from ratoon.training.launch import free_port, threads_each, told
from ratoon.training.loop import advance, mean_loss
from ratoon.training.meter import Meter, Reading, ascend
from ratoon.training.method import Method, Step
from ratoon.training.pool import map_processes
from ratoon.training.ranks import ALONE, Ranks, joined
from ratoon.training.request import Request
from ratoon.training.run import Run
from ratoon.training.shards import local

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State

SECONDS = 20.0  # for the steps, and a third of it for the evaluation; what has begun is ended
SLOW = 0.01  # of the recipe's learning rate: the weights are thrown away, but must not diverge


class Shorter(Record):
    """A step of rows that are cut in parts, as train.mixture.lengths may ask; rows are counted before they are cut."""

    parts: int
    flops_per_token: int
    update_seconds: float
    passes: tuple[Reading, ...]


class Probe(Record):
    """On several ranks: of each, but for the checkpoint, which is the whole one."""

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
    ranks: int = 1  # processes that shared each step
    shorter: tuple[Shorter, ...] = ()

    def of(self, parts: int) -> "Probe":
        """With the steps of rows that are cut in so many parts."""
        cut = next((one for one in self.shorter if one.parts == parts), None)
        if cut is None:
            return self
        own = {name: getattr(cut, name) for name in ("flops_per_token", "update_seconds", "passes")}
        return self.model_copy(update=own)


def measure(request: Request, copies: int = 1) -> Probe:
    """Of `copies` such runs at once, the slowest one's. Raises ConfigError where the machine has no memory for it."""
    ranks = request.recipe.processes
    try:
        if ranks > 1:
            port = free_port()
            return map_processes(
                probe_as_rank, [(request, number, ranks, port) for number in range(ranks)], ranks, lambda: None
            )[0]
        found = map_processes(probe, [request] * copies, copies, lambda: None)
    except BrokenProcessPool:
        micro = request.recipe.micro_rows or request.recipe.rows_per_step
        raise ConfigError(
            f"{request.name}: the process that tried a few steps was killed, as the system does when memory runs out; "
            f"lower train.micro_rows (now {micro}), or prepare.held_out.max_tokens, or take a smaller base"
        ) from None
    return max(found, key=lambda one: one.passes[-1].seconds)


def way_of(request: Request) -> str:
    """Names what a probe is of, beside the run itself: how its steps are carried out."""
    said = [getattr(request.recipe, name) for name in ("device", "threads", "processes", "micro_rows")]
    return hashlib.sha256(repr([*said, request.recipe.activation_checkpointing]).encode()).hexdigest()[:8]


def probe_as_rank(asked: tuple[Request, int, int, int]) -> Probe:
    """As one of the processes of train.processes, told who it is as launch.py tells them."""
    request, number, count, port = asked
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_each(count))
    os.environ.update(told(number, count, port))
    try:
        with joined(request.recipe) as ranks:
            where = nearest(Path(request.out))
            folder = ranks.same(tempfile.mkdtemp(prefix=".probe-", dir=where) if ranks.first else "")
            try:
                found = tried(request.model_copy(update={"out": folder}), ranks)
                ranks.wait()
            finally:
                if ranks.first:
                    shutil.rmtree(folder)
            return found
    except BaseException:
        if torch.distributed.is_initialized():  # those that wait for this one learn that it is gone
            torch.distributed.destroy_process_group()
        raise


def probe(request: Request) -> Probe:
    # What methods and orders keep beside a run is taken away again.
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=nearest(Path(request.out))) as folder:
        return tried(request.model_copy(update={"out": folder}))


def tried(request: Request, ranks: Ranks = ALONE) -> Probe:
    begun = time.perf_counter()
    run = Run(request, ranks)
    start_seconds = time.perf_counter() - begun
    meter = Meter(run.model.device)
    weights, remembered = size(p for p in run.model.parameters()), optimizer_size(run.state)
    process = max(0, meter.current() - weights - remembered)
    flops, recipe = flops_of(run.model), request.recipe
    passes, update_seconds = training_passes(run, meter)
    shorter = []
    for parts in sorted({*run.reading.lengths.parts} - {1}):
        cut_passes, cut_update = training_passes(run, meter, parts)
        per_token = flops.training(request.row_tokens // parts)
        shorter.append(Shorter(parts=parts, flops_per_token=per_token, update_seconds=cut_update, passes=cut_passes))
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
        held_out_at_once=max(min(held_out.at_once, held_out.count) for held_out in run.held_out.values()),
        checkpoint=saved,
        checkpoint_bytes=saved_bytes,
        ranks=ranks.count,
        shorter=tuple(shorter),
    )


def size(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of what this rank has of them."""
    return sum(local(tensor).numel() * tensor.element_size() for tensor in tensors)


def optimizer_size(state: "State") -> int:
    """0 before the first step for a rule that remembers nothing until then."""
    return size(v for kept in state.optimizer.state.values() for v in kept.values() if torch.is_tensor(v))


class Stopwatch(Method):
    """Seconds from the beginning of a step until all its gradients are there."""

    name = "stopwatch"

    def __init__(self, meter: Meter) -> None:
        self.meter, self.begun, self.seconds = meter, 0.0, 0.0

    def begin(self, model: "PreTrainedModel", step: Step) -> None:
        self.begun = self.meter.now()

    def after_gradients(self, state: "State") -> None:
        self.seconds = self.meter.now() - self.begun


def training_passes(run: Run, meter: Meter, parts: int = 1) -> tuple[tuple[Reading, ...], float]:
    """Forward and backward over growing numbers of rows of this rank, and the median of what else a step takes.

    parts  in which each row is cut
    """
    recipe, state, watch, ranks = run.request.recipe, run.state, Stopwatch(meter), run.ranks
    state.methods = (*state.methods, watch)
    others: list[float] = []

    def read(rows: int) -> Reading:
        one = recipe.model_copy(update={"micro_rows": rows})
        whole = meter.read(
            rows,
            lambda: advance(
                state,
                state.step + 1,
                batch_at=lambda step: run.reading.prefixed.put(cut(run.mixture.read(step * rows, rows), parts), 0),
                lr_at=lambda step: SLOW * recipe.learning_rate,
                recipe=one,
                over_ranks=ranks.total if ranks.count > 1 else None,
            ),
        )
        others.append(whole.seconds - watch.seconds)
        return ranks.same(whole.model_copy(update={"seconds": watch.seconds}))

    own = -(-recipe.rows_per_step // ranks.count)
    try:
        passes = ascend(min(recipe.micro_rows or own, own), SECONDS, read, lambda: ranks.same(time.perf_counter()))
    finally:
        state.methods = state.methods[:-1]
    return passes, median(others[1:])


def evaluation_passes(run: Run, meter: Meter) -> tuple[Reading, ...]:
    """Over held-out rows, up to as many as an evaluation reads at once."""
    held_out, ranks = max(run.held_out.values(), key=lambda one: one.count), run.ranks

    def read(rows: int) -> Reading:
        batch = Batch(*held_out.rows.read(np.arange(rows)))
        separator = held_out.rows.separator
        return ranks.same(meter.read(rows, lambda: mean_loss(run.model, [batch], run.request.recipe, separator)))

    most = -(-min(held_out.count, held_out.at_once) // ranks.count)
    return ascend(most, SECONDS / 3, read, lambda: ranks.same(time.perf_counter()))


def nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there: what is only estimated leaves nothing behind."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def save(run: Run, meter: Meter) -> tuple[Reading, int]:
    """A checkpoint on the disk where the run's will lie, taken away again."""
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=nearest(Path(run.request.out))) as folder:
        place = Path(folder)
        reading = meter.read(0, lambda: checkpoint.save(run.state, place, tokenizer=None, identity="probe", tokens=0))
        return reading, sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
