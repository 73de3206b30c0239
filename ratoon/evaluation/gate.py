"""Promote, refuse or ask, and why. A pure function of what was measured: the same comparisons give the same verdict.

Three demands: domain text is predicted better, general text not worse than the tolerance allows, no benchmark falls
further than it may. Each is a one-sided test at its margin: the first of superiority, the others of non-inferiority
("no significant loss" would let every noisy benchmark pass; here noise counts against the candidate). Each has one of
three answers: shown, contradicted (the contrary is shown), or neither. All tests of a verdict are adjusted together
(Holm), those that show and those that contradict: of candidates that should not pass, a share of at most `level` does.

Refused: a demand is contradicted, or what must be there is missing or invalid. Promoted: all is shown. In between
promote.unshown says whether to refuse or to ask a person.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ratoon.config import GateConfig
from ratoon.evaluation import statistics
from ratoon.evaluation.flips import Against, Golden
from ratoon.evaluation.sentences import SHORT, asked_of, missed
from ratoon.records import Comparison, Decision, Demand, Estimate, Flips, Interval, Verdict
from ratoon.records.verdict import State

WEIGHT: dict[Decision, int] = {"refuse": 0, "ask": 1, "promote": 2}
NORMAL = 1e6  # degrees of freedom where a record does not say


class Beside(NamedTuple):
    """What is known of the candidate beside the comparisons."""

    faults: tuple[str, ...] = ()  # why it is not what was asked for
    flips: tuple[Flips, ...] = ()
    golden: tuple[tuple[Against, Golden], ...] = ()
    champion: str | None = None  # where it is another model than the parent


def judge(
    comparisons: tuple[Comparison, ...],
    config: GateConfig,
    parent: str,
    candidate: str,
    beside: Beside = Beside(),  # noqa: B008  # frozen
) -> Verdict:
    """The verdict, the worst demand first.

    parent, candidate   what the two are called, for the record.
    """
    demands = [*invalid(beside.faults), *goldens(beside.golden)]
    if comparisons or not beside.faults:  # what could not be scored is not missing as well
        demands += [*missing(comparisons, config), *tested(comparisons, config)]
    if config.approve == "person":
        demands.append(waiting())
    demands.sort(key=lambda demand: WEIGHT[demand.answer])
    decision = demands[0].answer
    return Verdict(
        decision=decision,
        promoted=decision == "promote",
        reasons=tuple(demand.reason for demand in demands),
        comparisons=comparisons,
        parent=parent,
        candidate=candidate,
        champion=beside.champion,
        demands=tuple(demands),
        level=level_of(comparisons) if comparisons else None,
        flips=beside.flips,
    )


# ---------------------------------------------------------------- what is tested


class AtLimit(NamedTuple):
    """One comparison against its margin."""

    item: Comparison
    limit: float
    shown: float  # p that the demand is not met
    broken: float  # p that it is met


def tested(comparisons: Sequence[Comparison], config: GateConfig) -> Iterator[Demand]:
    """What is no number is tested against nothing: it refuses, and takes no part in adjusting the others."""
    for item in comparisons:
        if not finite(item):
            yield Demand(
                kind="measured",
                benchmark=item.benchmark,
                source=item.source,
                state="not shown",
                answer="refuse",
                reason=f"{item.benchmark} on {item.source}: its difference is not a number, so nothing was measured",
            )
    tests = [at_limit(item, config) for item in comparisons if finite(item)]
    shown, broken = (statistics.holm([getattr(one, side) for one in tests]) for side in ("shown", "broken"))
    for one, p_shown, p_broken in zip(tests, shown, broken, strict=True):
        yield demand(one, p_shown, p_broken, len(tests), config)


def finite(item: Comparison) -> bool:
    change = item.relative or item.difference
    numbers = [item.parent.value, item.candidate.value, change.value, change.low, change.high]
    if item.tested:
        numbers += [item.tested.value, item.tested.error, item.tested.freedom, item.tested.lean, item.tested.shift]
    return all(map(math.isfinite, numbers))


def at_limit(item: Comparison, config: GateConfig) -> AtLimit:
    estimate = estimate_of(item)
    below, above = statistics.below, statistics.above
    gain = item.metric == "bits_per_byte" and item.role == "domain"
    if item.metric == "accuracy":
        limit = -config.max_benchmark_loss
        shown, broken = above(estimate, limit), below(estimate, limit)
    else:
        limit = -config.min_domain_gain if gain else config.max_general_loss
        shown, broken = below(estimate, limit), above(estimate, limit)
    # Two models alike to the last digit lose nothing; where no loss is allowed, that is enough. It is no gain.
    alike = estimate.error == 0 and estimate.value == limit and not gain
    return AtLimit(item, limit, 0.0 if alike else shown, broken)


def demand(one: AtLimit, p_shown: float, p_broken: float, tests: int, config: GateConfig) -> Demand:
    item, level = one.item, level_of([one.item])
    kind, unshown = asked_of(item, config)
    state: State = "shown" if p_shown <= level else "contradicted" if p_broken <= level else "not shown"
    answer: Decision = "promote" if state == "shown" else "refuse" if state == "contradicted" else unshown
    crowd = f" among {tests} tests at once" if state == "not shown" and one.shown <= level else ""
    return Demand(
        kind=kind,
        benchmark=item.benchmark,
        source=item.source,
        state=state,
        answer=answer,
        reason=SHORT[kind](item, config) + missed(kind, state, item, config) + crowd,
        limit=one.limit + 0.0,  # a margin of zero has no sign
        p_shown=one.shown,
        p_shown_holm=p_shown,
        p_broken=one.broken,
        p_broken_holm=p_broken,
    )


def estimate_of(item: Comparison) -> Estimate:
    """What the comparison kept for tests; of an older record, read off its interval."""
    change: Interval = item.relative or item.difference
    if item.tested:
        return item.tested
    from scipy.special import ndtri

    width = (change.high - change.low) / 2
    return Estimate(value=change.value, error=width / float(ndtri((1 + change.confidence) / 2)), freedom=NORMAL)


def level_of(comparisons: Sequence[Comparison]) -> float:
    return (1 - comparisons[0].difference.confidence) / 2


# ---------------------------------------------------------------- what must be there


def invalid(faults: Iterable[str]) -> Iterator[Demand]:
    for fault in faults:
        yield Demand(kind="valid", state="contradicted", answer="refuse", reason=fault)


def missing(comparisons: Sequence[Comparison], config: GateConfig) -> Iterator[Demand]:
    """What nobody measured was not passed."""

    def absent(reason: str) -> Demand:
        return Demand(kind="measured", state="not shown", answer="refuse", reason=reason)

    for role in ("domain", "general"):
        if not any(item.role == role and item.metric == "bits_per_byte" for item in comparisons):
            yield absent(f"{role} text: bits per byte were not measured on any {role} source")
    # A loss of 1 is any loss: then no benchmark is asked for.
    if config.max_benchmark_loss < 1 and not any(item.metric == "accuracy" for item in comparisons):
        yield absent("benchmarks: no accuracy was measured, so a fall of it is not excluded")
    # A benchmark with items of its own is its own source, and is not looked for on others.
    made = [item for item in comparisons if item.source != item.benchmark]
    measured = {(item.benchmark, item.source) for item in made}
    for name in sorted({item.benchmark for item in made}):
        for source in sorted({item.source for item in made}):
            if (name, source) not in measured:
                yield absent(f"{name} on {source}: not measured, though other sources have it")


def goldens(found: Iterable[tuple[Against, Golden]]) -> Iterator[Demand]:
    for against, golden in found:
        name, several = golden.benchmark, f"golden items of {golden.benchmark}"
        if golden.absent:
            reason = f"{several}: {len(golden.absent)} are not among the items scored: {some(golden.absent)}"
            yield Demand(kind="measured", benchmark=name, state="not shown", answer="refuse", reason=reason)
        elif golden.flipped:
            lost = f"{len(golden.flipped)} of {golden.right} that the {against} had right are wrong now"
            yield Demand(
                kind="golden",
                benchmark=name,
                state="contradicted",
                answer="refuse",
                reason=f"{several}: {lost}: {some(golden.flipped)}",
                flipped=golden.flipped,
            )
        else:
            kept = f"all {golden.right} that the {against} had right are right still, of {golden.items}"
            yield Demand(kind="golden", benchmark=name, state="shown", answer="promote", reason=f"{several}: {kept}")


def some(ids: Sequence[str], most: int = 3) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def waiting() -> Demand:
    reason = "approval: a person promotes in this line (promote.approve): `ratoon promote`"
    return Demand(kind="approval", state="not shown", answer="ask", reason=reason)
