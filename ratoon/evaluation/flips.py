"""Answers that flipped: right before and wrong now, or the other way (arXiv:2407.09435).

    accuracy now - accuracy before = positive rate - negative rate
    relative negative rate = negative rate / (accuracy before * error now)      1: as two unrelated models would

An accuracy that stays the same may hide many flips; each is a question that used to work. Rates have exact intervals
(Clopper-Pearson) as if items were independent: where several share a document they are too narrow.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ratoon.evaluation.items import aligned, check, table
from ratoon.evaluation.statistics import clopper_pearson
from ratoon.evaluation.suite import Task, load
from ratoon.records import Flips

if TYPE_CHECKING:
    import polars

Against = Literal["parent", "champion"]
Key = tuple[str, str]  # source and id: ids are of a source, and two sources may have the same
Pinned = Mapping[str, Literal["all"] | tuple[str, ...]]  # benchmark -> ids, or all of them


class Flip(NamedTuple):
    """One item: the line of flips.jsonl."""

    against: Against
    benchmark: str
    source: str
    id: str
    document: str
    flip: Literal["negative", "positive"]
    golden: bool


class Golden(NamedTuple):
    """What became of the items that are pinned on one benchmark."""

    benchmark: str
    items: int
    right: int  # before
    flipped: tuple[str, ...]  # right before and wrong now
    absent: tuple[str, ...]  # pinned, and not among the items


class Found(NamedTuple):
    counts: tuple[Flips, ...]
    listed: tuple[Flip, ...]
    golden: tuple[Golden, ...]


def find(before: Path, now: Path, suite: Path, *, against: Against, pinned: Pinned, confidence: float) -> Found:
    """All flips between two score folders, on every benchmark that has right and wrong answers."""
    tests = load(suite)
    check(before, now, tests)
    counts, listed = [], list[Flip]()
    seen: dict[str, dict[Key, bool]] = {name: {} for name in pinned}  # benchmark -> item -> right before
    for task in tests.tasks:
        if task.metric != "accuracy":
            continue
        old, new = aligned(table(before, task, ["id"]), table(now, task, ["id"]), task)
        counts.append(count(old, new, task, against, confidence))
        ids = pinned.get(task.benchmark, ())
        listed.extend(flipped(old, new, task, against, ids))
        if ids:
            items = ((task.source, key) for key in old["id"].to_list())
            seen[task.benchmark] |= dict(zip(items, (old["value"] == 1).to_list(), strict=True))
    golden = tuple(follow(name, ids, seen[name], listed) for name, ids in sorted(pinned.items()))
    return Found(tuple(counts), tuple(sorted(listed)), golden)


def count(old: "polars.DataFrame", new: "polars.DataFrame", task: Task, against: Against, confidence: float) -> Flips:
    right, still, items = old["value"] == 1, new["value"] == 1, old.height
    negative, positive = int((right & ~still).sum()), int((~right & still).sum())
    expected = int(right.sum()) / items * (1 - int(still.sum()) / items)
    return Flips(
        benchmark=task.benchmark,
        source=task.source,
        against=against,
        items=items,
        right_before=int(right.sum()),
        right_after=int(still.sum()),
        negative=negative,
        positive=positive,
        negative_rate=clopper_pearson(negative, items, confidence),
        positive_rate=clopper_pearson(positive, items, confidence),
        relative_negative_rate=negative / items / expected if expected else None,
    )


def flipped(
    old: "polars.DataFrame",
    new: "polars.DataFrame",
    task: Task,
    against: Against,
    ids: Literal["all"] | tuple[str, ...],
) -> Iterator[Flip]:
    changed = old.filter(old["value"] != new["value"])
    pinned = frozenset(ids)
    for item, document, right in changed.select("id", "document", "value").iter_rows():
        golden = ids == "all" or item in pinned
        kind: Literal["negative", "positive"] = "negative" if right == 1 else "positive"
        yield Flip(against, task.benchmark, task.source, item, document, kind, golden)


def follow(
    benchmark: str, ids: Literal["all"] | tuple[str, ...], right: Mapping[Key, bool], listed: list[Flip]
) -> Golden:
    """An id that several sources have pins the item of each."""
    there = Counter(key for _, key in right)
    wanted = set(there) if ids == "all" else set(ids)
    pinned = [key for key in right if key[1] in wanted]
    absent = tuple(sorted(wanted - there.keys()))
    gone = {(f.source, f.id) for f in listed if f.benchmark == benchmark and f.golden and f.flip == "negative"}
    return Golden(
        benchmark=benchmark,
        items=len(pinned) + len(absent),
        right=sum(right[key] for key in pinned),
        flipped=tuple(sorted(f"{source}:{key}" if there[key] > 1 else key for source, key in gone)),
        absent=absent or (("any",) if not wanted else ()),
    )


def lines(listed: tuple[Flip, ...]) -> str:
    """flips.jsonl: what went wrong first, pinned items before the others."""
    order = sorted(listed, key=lambda f: (f.flip, not f.golden, f))
    return "".join(json.dumps(flip._asdict(), ensure_ascii=False) + "\n" for flip in order)
