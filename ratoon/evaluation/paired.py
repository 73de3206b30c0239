"""Parent against candidate on the same items: differences with intervals, and what may be called a win.

Both metrics are ratios over documents, sum(value) / sum(weight): bits over bytes, or right answers over items.
A bootstrap sample draws documents with replacement, takes both ratios on them and subtracts. What makes a text hard
is hard for both models and cancels; passages of one document stay together, since they stand and fall together.
Most adapted models tie with their own base under such a test (arXiv:2411.04118); paired and clustered errors as in
arXiv:2411.00640.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ratoon.config import AssessConfig, ConfigError
from ratoon.evaluation.harness import Scores
from ratoon.evaluation.suite import Suite, Task, load
from ratoon.records import Comparison, Interval, read

if TYPE_CHECKING:
    import pyarrow

WEIGHTS_AT_ONCE = 4_000_000  # of documents times resamples: 32 MB


class Pairs(NamedTuple):
    """Sums over the items of each document, in the order of their hashes; arrays of shape [documents]."""

    parent: np.ndarray
    candidate: np.ndarray
    weight: np.ndarray
    items: int


class Effect(NamedTuple):
    """Values of the two arms and what lies between them, with intervals."""

    parent: Interval
    candidate: Interval
    difference: Interval
    relative: Interval | None


def compare(parent: Path, candidate: Path, suite: Path, config: AssessConfig) -> tuple[Comparison, ...]:
    """Every task of the suite, from the score folders of both models.

    Raises ConfigError when the two were not scored on the same items under the same settings.
    """
    tests = load(suite)
    check(parent, candidate, tests)
    return tuple(comparison(parent, candidate, task, config) for task in tests.tasks)


def check(parent: Path, candidate: Path, tests: Suite) -> None:
    old, new = read(parent / "scores.json", Scores), read(candidate / "scores.json", Scores)
    for folder, scores in ((parent, old), (candidate, new)):
        if scores.suite != tests.digest:
            raise ConfigError(
                f"{folder}: scored on suite {scores.suite[:12]}, not on {tests.digest[:12]}; assess both models again"
            )
    if old.settings != new.settings:
        raise ConfigError(
            f"parent and candidate were scored under different settings: {parent}: {old.settings}; "
            f"{candidate}: {new.settings}; assess both under the same"
        )


def comparison(parent: Path, candidate: Path, task: Task, config: AssessConfig) -> Comparison:
    pairs = join(table(parent, task), table(candidate, task), task)
    found = effect(pairs, config, relative=task.metric == "bits_per_byte")
    return Comparison(
        benchmark=task.benchmark,
        source=task.source,
        role=task.role,
        metric=task.metric,
        items=pairs.items,
        parent=found.parent,
        candidate=found.candidate,
        difference=found.difference,
        relative=found.relative,
        outcome=outcome(found.difference, lower_is_better=task.metric == "bits_per_byte"),
        samples=f"{candidate.name}/{task.name}.parquet",
    )


def outcome(difference: Interval, lower_is_better: bool) -> Literal["win", "tie", "loss"]:
    """A tie unless the whole interval lies on one side of zero."""
    if difference.low <= 0 <= difference.high:
        return "tie"
    return "win" if (difference.high < 0) == lower_is_better else "loss"


# ---------------------------------------------------------------- the same items


def table(folder: Path, task: Task) -> "pyarrow.Table":
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    file = folder / f"{task.name}.parquet"
    amount = "bytes" if task.metric == "bits_per_byte" else "correct"
    try:
        return parquet.read_table(file, columns=[*key_of(task), "document", "loglik_nats", amount])
    except (ArrowException, OSError, KeyError) as error:
        raise ConfigError(
            f"{file}: per-item scores are missing or damaged: {error}; delete {folder} and assess again"
        ) from error


def join(parent: "pyarrow.Table", candidate: "pyarrow.Table", task: Task) -> Pairs:
    """The two arms item by item, by the hashes of item and prompt; never by position."""
    old, new = keyed(parent, task), keyed(candidate, task)
    if old.keys() != new.keys() or len(old) != parent.num_rows or len(new) != candidate.num_rows:
        only_old, only_new = len(old.keys() - new.keys()), len(new.keys() - old.keys())
        raise ConfigError(
            f"{task.name}: parent and candidate were not scored on the same items: {parent.num_rows} and "
            f"{candidate.num_rows} items, {only_old} only of the parent, {only_new} only of the candidate; "
            f"assess both models on one suite again"
        )
    order = sorted(old)
    # Summed by document: the document is what was drawn from the world, not the item.
    documents, place = np.unique([old[key][0] for key in order], return_inverse=True)
    columns = [[old[key][1] for key in order], [new[key][1] for key in order], [old[key][2] for key in order]]
    sums = [np.bincount(place, weights=column, minlength=len(documents)) for column in columns]
    return Pairs(parent=sums[0], candidate=sums[1], weight=sums[2], items=len(order))


def keyed(found: "pyarrow.Table", task: Task) -> dict[tuple[str, str], tuple[str, float, float]]:
    """(item, prompt) -> document, value, weight."""
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows(found, task)}


def rows(found: "pyarrow.Table", task: Task) -> Iterator[tuple[str, str, str, float, float]]:
    for row in found.to_pylist():
        if task.metric == "bits_per_byte":
            value, weight = -row["loglik_nats"][0] / math.log(2), float(row["bytes"])
        else:
            value, weight = float(row["correct"]), 1.0
        first, last = key_of(task)
        yield row[first], row[last], row["document"], value, weight


def key_of(task: Task) -> tuple[str, str]:
    """What names an item in both arms: where each is asked in its own prompt the hashes differ, and the ids do not."""
    return ("id", "document") if task.prompts else ("doc_hash", "prompt_hash")


# ---------------------------------------------------------------- intervals


def effect(pairs: Pairs, config: AssessConfig, relative: bool) -> Effect:
    """Both ratios and their difference, with percentile intervals of the paired bootstrap over documents."""
    parent = pairs.parent.sum() / pairs.weight.sum()
    difference = (pairs.candidate - pairs.parent).sum() / pairs.weight.sum()
    parent_B, difference_B = resample(pairs, config)

    def interval(value: float, draws: np.ndarray) -> Interval:
        tail = (1 - config.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Interval(value=float(value), low=float(low), high=float(high), confidence=config.confidence)

    return Effect(
        parent=interval(parent, parent_B),
        candidate=interval(parent + difference, parent_B + difference_B),
        difference=interval(difference, difference_B),
        relative=interval(difference / parent, difference_B / parent_B) if relative else None,
    )


def resample(pairs: Pairs, config: AssessConfig) -> tuple[np.ndarray, np.ndarray]:
    """The parent's ratio and the difference on the same draws of documents; two arrays of shape [bootstrap]."""
    rng = np.random.default_rng(config.seed)
    count = len(pairs.weight)
    # Differences before sums: where both models agree on every item, nothing but zero can come out.
    sums_D3 = np.stack([pairs.parent, pairs.candidate - pairs.parent, pairs.weight], axis=1)
    parts = []
    at_once = max(1, WEIGHTS_AT_ONCE // count)
    for start in range(0, config.bootstrap, at_once):
        draws = min(at_once, config.bootstrap - start)
        times_BD = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        parts.append(times_BD @ sums_D3)
    sums_B3 = np.concatenate(parts)
    return sums_B3[:, 0] / sums_B3[:, 2], sums_B3[:, 1] / sums_B3[:, 2]
