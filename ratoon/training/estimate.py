"""What a run, or a sweep of them, will cost: operations, memory, time, money and disk, from a probe of each model.

    seconds of a step   n (forward and backward of micro_rows) + the rest of a step; n = rows of a rank / micro_rows
    seconds of a run    start + steps x step + evaluations x evaluation + checkpoints x checkpoint
    seconds of a sweep  of the worker that ends last, the longest groups begun first, as the sweep begins them; groups
                        that are stacked take their steps together

Steps of shorter rows, at the beginning of a run, are counted at their own price. A trunk is trained once: one that is
continued cost what it did when it was made, and of a sweep's only the branches come again.
Silent about a machine that will be busier than it was while the probe ran, and about methods whose work changes along
the run: the first steps speak for all. Of ranks on several machines it knows nothing: those of one are measured.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from ratoon.config.budget import Budget
from ratoon.records import Record
from ratoon.stream.lengths import Lengths
from ratoon.training.checkpoint import KEEP
from ratoon.training.meter import at_rows
from ratoon.training.probe import Probe
from ratoon.training.proxies import Group, branches, group_tokens
from ratoon.training.request import Request
from ratoon.training.run import evaluated_steps, evaluation_steps
from ratoon.training.schedules import decay_start
from ratoon.training.stack_probe import StackProbe
from ratoon.training.trunk import keep_at

HOUR = 3600.0


class Memory(Record):
    """Bytes at the three heights of a run. What a step needs beside weights, gradients and states is `activations`."""

    process: int
    weights: int
    gradients: int
    optimizer: int
    methods: int
    activations: int = Field(description="of a training step, the logits of all its rows included")
    training: int
    evaluation: int
    checkpoint: int

    @property
    def peak(self) -> int:
        return max(self.training, self.evaluation, self.checkpoint)

    @property
    def highest(self) -> str:
        return max(("training", "evaluation", "checkpoint"), key=lambda name: getattr(self, name))


class Seconds(Record):
    start: float
    train: float
    evaluate: float
    save: float

    @property
    def total(self) -> float:
        return self.start + self.train + self.evaluate + self.save


class Estimate(Record):
    """Of one run."""

    name: str
    request: str = Field(description="identity of the request")
    device: str
    threads: int
    params_non_embedding: int
    tokens: int
    steps: int
    step_tokens: int
    micro_rows: int
    flops: float = Field(description="of training")
    evaluation_flops: float
    memory: Memory
    seconds: Seconds
    money: float | None = Field(description="None: no price was given")
    checkpoint_bytes: int
    device_bytes: int = Field(description="of memory there are")
    disk_free_bytes: int
    disk_bytes: int = Field(description="at most at once: those that are kept, the trunk, and one being written")
    extrapolated: bool = Field(description="micro_rows were more than there was time to try")
    processes: int = Field(1, description="that share the run; memory is of each")
    rows_per_step: int | None = Field(None, description="None: it was not recorded")

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds.train


class SweepEstimate(Record):
    """Of all proxies of a sweep. One that grows has two: of the runs it begins with, and of all it may make."""

    groups: int
    runs: int = Field(description="run lengths over all groups")
    branched: int = Field(description="groups that branch their lengths off one trunk")
    tokens: int
    flops: float
    seconds: float
    workers: int
    memory_bytes: int = Field(description="of all workers at once")
    money: float | None
    stacked: int = Field(0, description="groups that are trained as parts of a stack")


def estimate(request: Request, probe: Probe) -> Estimate:
    recipe = request.recipe
    micro, counts = micro_rows(request, probe), lengths_of(request).between(0, request.steps)
    trunks = int(keep_at(request) is not None)  # a checkpoint more, which stays
    seconds = Seconds(
        start=probe.start_seconds,
        train=train_seconds(request, probe, counts),
        evaluate=evaluations(request) * evaluation_seconds(probe),
        save=(len(evaluation_steps(request.steps, recipe.checkpoints)) + trunks) * probe.checkpoint.seconds,
    )
    tokens = request.steps * request.step_tokens
    return Estimate(
        name=request.name,
        request=request.identity(),
        device=probe.device,
        threads=probe.threads,
        params_non_embedding=probe.params,
        tokens=tokens,
        steps=request.steps,
        step_tokens=request.step_tokens,
        micro_rows=micro,
        flops=flops(request, probe, counts),
        evaluation_flops=float(probe.forward_flops_per_token)
        * probe.held_out_rows
        * request.row_tokens
        * evaluations(request),
        memory=memory(request, probe),
        seconds=seconds,
        money=money(recipe.budget, seconds.total),
        checkpoint_bytes=probe.checkpoint_bytes,
        device_bytes=probe.device_bytes,
        disk_free_bytes=probe.disk_free_bytes,
        # An adapter's checkpoints are small, and what it releases is a whole model.
        disk_bytes=probe.checkpoint_bytes * (min(KEEP, recipe.checkpoints) + trunks)
        + max(probe.checkpoint_bytes, probe.weights_bytes),
        extrapolated=any(micro > probe.of(parts).passes[-1].rows for parts in counts),
        processes=probe.ranks,
        rows_per_step=recipe.rows_per_step,
    )


def evaluations(request: Request) -> int:
    """How often a run is evaluated, before the first step too."""
    return 1 + len(evaluated_steps(request))


def lengths_of(request: Request) -> Lengths:
    return Lengths(request.recipe.mixture.lengths, request.row_tokens, request.steps, request.step_tokens)


def rank_rows(request: Request, probe: Probe) -> int:
    """Of a step, at most, on one rank."""
    return -(-request.recipe.rows_per_step // probe.ranks)


def micro_rows(request: Request, probe: Probe) -> int:
    """In one forward pass."""
    rows = rank_rows(request, probe)
    return min(request.recipe.micro_rows or rows, rows)


def step_seconds(request: Request, probe: Probe) -> float:
    micro = micro_rows(request, probe)
    passes = -(-rank_rows(request, probe) // micro)
    return passes * at_rows(probe.passes, micro).seconds + probe.update_seconds


def train_seconds(request: Request, probe: Probe, counts: Mapping[int, float]) -> float:
    """counts  parts a row is cut in -> steps of these"""
    return sum(count * step_seconds(request, probe.of(parts)) for parts, count in counts.items())


def flops(request: Request, probe: Probe, counts: Mapping[int, float]) -> float:
    """The same."""
    return sum(float(probe.of(parts).flops_per_token) * count for parts, count in counts.items()) * request.step_tokens


def evaluation_seconds(probe: Probe) -> float:
    at_once = -(-probe.held_out_at_once // probe.ranks)
    return at_rows(probe.evaluations, at_once).seconds * probe.held_out_rows / probe.held_out_at_once


def memory(request: Request, probe: Probe) -> Memory:
    parts = lengths_of(request).between(0, request.steps)
    training = max(at_rows(probe.of(n).passes, micro_rows(request, probe)).peak_bytes for n in parts)
    held = (probe.weights_bytes, probe.gradients_bytes, probe.optimizer_bytes, probe.methods_bytes)
    return Memory(
        process=probe.process_bytes,
        weights=probe.weights_bytes,
        gradients=probe.gradients_bytes,
        optimizer=probe.optimizer_bytes,
        methods=probe.methods_bytes,
        activations=max(0, training - probe.process_bytes - sum(held)),
        training=training,
        evaluation=at_rows(probe.evaluations, -(-probe.held_out_at_once // probe.ranks)).peak_bytes,
        checkpoint=probe.checkpoint.peak_bytes,
    )


def money(budget: Budget, seconds: float) -> float | None:
    return None if budget.price is None else seconds / HOUR * budget.price * budget.devices


@dataclass(frozen=True)
class GroupCost:
    seconds: float
    flops: float
    memory_bytes: int


def group_cost(group: Group, probe: Probe) -> GroupCost:
    request, counts = group.request, group_steps(group)
    begun = 1 if branches(group) else len(group.horizons)
    seconds = (
        begun * probe.start_seconds
        + train_seconds(request, probe, counts)
        + (1 + len(group.horizons)) * evaluation_seconds(probe)
    )
    peak = memory(request, probe)
    # A trunk keeps itself in memory while one of its branches runs.
    kept = probe.weights_bytes + probe.optimizer_bytes + probe.methods_bytes if branches(group) else 0
    return GroupCost(seconds, flops(request, probe, counts), max(peak.training, peak.evaluation) + kept)


def group_steps(group: Group) -> dict[int, int]:
    """Parts a row is cut in -> steps of these over the whole group: its trunk once and every branch, or every run."""
    request, step = group.request, group.request.step_tokens
    legs: list[dict[int, int]] = []
    if branches(group):
        lengths, ends = lengths_of(request), [horizon // step for horizon in group.horizons]
        starts = [decay_start(request.recipe.schedule, end) for end in ends]
        legs = [lengths.between(0, max(starts)), *map(lengths.between, starts, ends)]
    else:
        for horizon in group.horizons:
            recipe = request.recipe.model_copy(update={"tokens": horizon})
            legs.append(lengths_of(request.model_copy(update={"recipe": recipe})).between(0, horizon // step))
    return {parts: sum(leg.get(parts, 0) for leg in legs) for parts in sorted({n for leg in legs for n in leg})}


def bundle_cost(bundle: Sequence[Group], probe: Probe, stacks: Mapping[tuple[str, int], StackProbe]) -> GroupCost:
    """Of groups that are trained as one stack; of a group alone, its own."""
    first, members = bundle[0], len(bundle)
    if members == 1:
        return group_cost(first, probe)
    stack, counts = stacks[first.request.label, members], group_steps(first)
    # Steps of shorter rows, of which a stack's are not measured, cost as much less as those of a proxy alone.
    steps = train_seconds(first.request, probe, counts) / step_seconds(first.request, probe)
    evaluating = members * (1 + len(first.horizons)) * evaluation_seconds(probe)
    seconds = stack.start_seconds + steps * stack.step_seconds + evaluating
    # The trunks keep themselves in memory while their branches run.
    return GroupCost(seconds, members * flops(first.request, probe, counts), stack.peak_bytes + stack.state_bytes)


def estimate_sweep(
    groups: Sequence[Group],
    probes: Mapping[str, Probe],
    workers: int,
    together: Sequence[Sequence[Group]] | None = None,
    stacks: Mapping[tuple[str, int], StackProbe] | None = None,
) -> SweepEstimate:
    """probes    label of a size -> its probe, measured with as many at once as the sweep has workers
    together  the groups as the sweep bundles them; None: each alone
    stacks    label and members of a stack -> its probe
    """
    bundled = together or [[group] for group in groups]
    costs = [bundle_cost(bundle, probes[bundle[0].request.label], stacks or {}) for bundle in bundled]
    seconds = makespan([cost.seconds for cost in costs], workers)
    at_once = min(workers, len(bundled))
    return SweepEstimate(
        groups=len(groups),
        runs=sum(len(group.horizons) for group in groups),
        branched=sum(branches(group) for group in groups),
        tokens=sum(group_tokens(group) for group in groups),
        flops=sum(cost.flops for cost in costs),
        seconds=seconds,
        workers=at_once,
        memory_bytes=sum(sorted((cost.memory_bytes for cost in costs), reverse=True)[:at_once]),
        money=money(groups[0].request.recipe.budget, seconds),
        stacked=sum(len(bundle) for bundle in bundled if len(bundle) > 1),
    )


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of `workers` ends, each taking the next piece when it is free."""
    free = [0.0] * workers
    for length in seconds:
        heapq.heapreplace(free, free[0] + length)
    return max(free)
