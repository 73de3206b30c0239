"""What lies beside a refresh's record: closer looks, flips, and the earlier refreshes of its line.

A file that is not there is a section that is not shown. Files are addressed relative to the page.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from ratoon import records
from ratoon.config import ConfigError
from ratoon.evaluation.arms import Arms
from ratoon.evaluation.forgetting import Matrix
from ratoon.evaluation.health import Health
from ratoon.records import Comparison, Flips, Refresh
from ratoon.report import history
from ratoon.training.request import Result

KINDS: dict[str, type[records.Record]] = {"matrix": Matrix, "health": Health, "arms": Arms, **history.KINDS}
EMPTY: Mapping[Any, Any] = MappingProxyType({})
SHOWN = 3  # flips of each benchmark


class Flipped(NamedTuple):
    """An answer that went wrong, with what was asked."""

    id: str
    golden: bool
    context: str
    choices: tuple[str, ...]
    gold: int | None


class Beside(NamedTuple):
    """All of it. Of a record that stands alone: nothing."""

    # matrix, health, arms, shift, probes, noise, trajectory, periods -> record
    found: Mapping[str, Any] = EMPTY
    earlier: tuple[Refresh, ...] = ()  # of the same line, oldest first, this one left out
    unread: tuple[str, ...] = ()  # folders of earlier refreshes whose record does not load
    flipped: Mapping[tuple[str, str, str], tuple[Flipped, ...]] = EMPTY  # against, benchmark, source -> the first
    files: frozenset[str] = frozenset()  # that may be linked to, relative to the page
    train_seconds: float | None = None

    def address(self, *names: str | None) -> str | None:
        """Of the first of these files that is there, ready for a link."""
        return next((quote(name) for name in names if name in self.files), None)

    def items_of(self, item: Comparison) -> str | None:
        """The file of its scores, item by item."""
        return self.address(item.samples, f"assess/{item.samples}")


def gather(refresh: Refresh, folder: Path) -> Beside:
    """Read from the refresh's folder. Raises ConfigError, with the file, where one of this refresh does not load."""
    found = {
        name: records.read(folder / f"{name}.json", kind)
        for name, kind in KINDS.items()
        if (folder / f"{name}.json").exists()
    }
    earlier, unread = before(refresh, folder)
    result = folder / "train" / "result.json"
    return Beside(
        found=found,
        earlier=earlier,
        unread=unread,
        flipped={(f.against, f.benchmark, f.source): tuple(first(f, folder)) for f in refresh.verdict.flips},
        files=frozenset(listed(folder)),
        train_seconds=records.read(result, Result).seconds if result.exists() else None,
    )


def before(refresh: Refresh, folder: Path) -> tuple[tuple[Refresh, ...], tuple[str, ...]]:
    """Earlier refreshes of the line; one that does not load is named, for it is not this page's to mend."""
    kept, unread = [], []
    for path in sorted(folder.resolve().parent.glob("*/refresh.json")):
        if path.parent == folder.resolve():
            continue
        try:
            other = records.read(path, Refresh)
        except ConfigError:
            unread.append(path.parent.name)
            continue
        if other.line == refresh.line and other.started < refresh.started:
            kept.append(other)
    return tuple(sorted(kept, key=lambda it: it.started)), tuple(unread)


def listed(folder: Path) -> Iterator[str]:
    """What a number may be traced to: records, and under assess/ the items and their scores."""
    places = itertools.chain(folder.glob("*.json"), folder.glob("*.jsonl"), (folder / "assess").rglob("*.*"))
    yield from (path.relative_to(folder).as_posix() for path in places if path.is_file())
    yield from (name for name in ("sweep/observations.csv", "train/result.json") if (folder / name).exists())


def first(flips: Flips, folder: Path) -> Iterator[Flipped]:
    """The first that went wrong, pinned ones before others as the list has them, with the words of their items."""
    path = folder / (flips.file or "")
    suite = folder / "assess" / "suite" / f"{flips.benchmark}--{flips.source}.jsonl"
    if not (flips.file and path.is_file() and suite.is_file()):
        return
    wanted = {}
    with path.open(encoding="utf-8") as lines:
        for flip in map(json.loads, lines):
            same = (flip["against"], flip["benchmark"], flip["source"])
            if same == (flips.against, flips.benchmark, flips.source) and flip["flip"] == "negative":
                wanted[flip["id"]] = bool(flip["golden"])
            if len(wanted) == SHOWN:
                break
    with suite.open(encoding="utf-8") as lines:
        items = {item["id"]: item for item in map(json.loads, lines) if item.get("id") in wanted}
    for name, golden in wanted.items():
        yield flipped(name, golden, items.get(name, {}))


def flipped(name: str, golden: bool, item: dict[str, Any]) -> Flipped:
    choices = item.get("choices") or item.get("answers") or ()
    gold = item.get("gold")
    return Flipped(
        name,
        golden,
        str(item.get("context") or item.get("question") or ""),
        tuple(map(str, choices)),
        gold if isinstance(gold, int) else None,
    )
