"""Parent against candidate on the same items: differences with intervals, and what may be called a win.

Both metrics are ratios over documents, sum(value) / sum(weight): bits over bytes, or right answers over items.
What makes a text hard is hard for both models and cancels in the difference; passages of one document stay together,
since they stand and fall together. Most adapted models tie with their own base under such a test (arXiv:2411.04118).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ratoon.config import AssessConfig, ConfigError
from ratoon.evaluation import statistics
from ratoon.evaluation.harness import Scores
from ratoon.evaluation.items import aligned, check, documents, table
from ratoon.evaluation.suite import Task, load
from ratoon.records import Comparison, Estimate, Interval, Outcome, read

if TYPE_CHECKING:
    import polars


LONE = 1 - 1e-9  # share of one document past which the others add nothing but rounding


class Pairs(NamedTuple):
    """Sums over the items of each document, in the order of their names; arrays of shape [documents]."""

    parent: np.ndarray
    candidate: np.ndarray
    weight: np.ndarray
    items: int


class Effect(NamedTuple):
    """Values of the two arms and what lies between them, with intervals; and what a test of it needs."""

    parent: Interval
    candidate: Interval
    difference: Interval
    relative: Interval | None
    tested: Estimate
    p: float


def compare(parent: Path, candidate: Path, suite: Path, config: AssessConfig) -> tuple[Comparison, ...]:
    """Every task of the suite, from the score folders of both models.

    Raises ConfigError when the two were not scored on the same items under the same settings.
    """
    tests = load(suite)
    check(parent, candidate, tests)
    cut = truncated(parent, candidate)
    made = [
        comparison(parent, candidate, task, config).model_copy(update={"truncated": cut.get(task.name)})
        for task in tests.tasks
    ]
    return together(made, config.level)


def truncated(*arms: Path) -> dict[str, int]:
    """Task -> requests that lost the beginning of their context, of the arm with more: each may have its own prompt."""
    found: dict[str, int] = {}
    for score in (score for arm in arms for score in read(arm / "scores.json", Scores).tasks):
        found[score.task] = max(found.get(score.task, 0), score.truncated)
    return found


def comparison(parent: Path, candidate: Path, task: Task, config: AssessConfig) -> Comparison:
    pairs = join(table(parent, task), table(candidate, task), task)
    comparable(pairs, task)
    found = effect(pairs, config, relative=task.metric == "bits_per_byte")
    return Comparison(
        benchmark=task.benchmark,
        source=task.source,
        role=task.role,
        metric=task.metric,
        items=pairs.items,
        documents=len(pairs.weight),
        requests=task.requests,
        parent=found.parent,
        candidate=found.candidate,
        difference=found.difference,
        relative=found.relative,
        outcome=outcome(found.difference, found.p, lower_is_better=task.metric == "bits_per_byte"),
        samples=f"{candidate.name}/{task.name}.parquet",
        tested=found.tested,
        p=found.p,
    )


def together(comparisons: Sequence[Comparison], level: float) -> tuple[Comparison, ...]:
    """With what depends on how many are compared: adjusted p, and the change that would be seen among so many."""
    adjusted = statistics.holm([item.p if item.p is not None else 1.0 for item in comparisons])
    made = []
    for item, p in zip(comparisons, adjusted, strict=True):
        lower = item.metric == "bits_per_byte"
        seen = statistics.detectable(item.tested, level / len(comparisons), lower) if item.tested else None
        made.append(item.model_copy(update={"p_holm": p, "detectable": seen}))
    return tuple(made)


def outcome(difference: Interval, p: float, lower_is_better: bool) -> Outcome:
    """A tie unless the whole interval lies on one side of zero, and the exact test of accuracy agrees."""
    if difference.low <= 0 <= difference.high or p > 1 - difference.confidence:
        return "tie"
    return "win" if (difference.high < 0) == lower_is_better else "loss"


def join(parent: "polars.DataFrame", candidate: "polars.DataFrame", task: Task) -> Pairs:
    """The two arms, summed by document: the document is what was drawn from the world, not the item."""
    old, new = aligned(parent, candidate, task)
    names, place = documents(old)
    columns = [old["value"], new["value"], old["weight"]]
    sums = [np.bincount(place, weights=column.to_numpy(), minlength=len(names)) for column in columns]
    return Pairs(parent=sums[0], candidate=sums[1], weight=sums[2], items=old.height)


def comparable(pairs: Pairs, task: Task) -> None:
    """Refuse what has no spread: a difference is held against how it varies from document to document."""
    bits = task.metric == "bits_per_byte"
    base = pairs.parent if bits else pairs.weight
    total = float(base.sum())
    if len(base) < 2 or total <= 0 or float(base.max()) > LONE * total:
        carried = "bits of the parent" if bits else "answers"
        raise ConfigError(
            f"{task.name}: nothing can be said of other documents: of the {len(base)} its items come from, one at most "
            f"carries {carried} ({total:g} in all); give the benchmark items of more documents"
        )


def effect(pairs: Pairs, config: AssessConfig, relative: bool) -> Effect:
    """Both ratios and what lies between them, clustered by document. `relative` of bits, else of right answers."""
    change, weight = pairs.candidate - pairs.parent, pairs.weight
    arms = [statistics.ratio(arm, weight) for arm in (pairs.parent, pairs.candidate)]
    raw = float(change.sum() / weight.sum())
    difference = statistics.ratio(change, weight) if relative else statistics.share(change, weight)
    tested = statistics.ratio(change, pairs.parent) if relative else difference
    between = statistics.interval(difference, config.confidence, value=raw)
    most = math.inf if relative else 1.0
    parent, candidate = (statistics.within(statistics.interval(arm, config.confidence), 0.0, most) for arm in arms)
    return Effect(
        parent=parent,
        candidate=candidate,
        difference=statistics.within(between, -most, most),
        relative=statistics.within(statistics.interval(tested, config.confidence), -1.0, most) if relative else None,
        tested=tested,
        # Of the difference, not the relative change: swapped arms must give the same p.
        p=statistics.unchanged(difference) if relative else statistics.swapped(change),
    )
