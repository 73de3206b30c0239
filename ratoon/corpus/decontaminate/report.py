"""What was found of each benchmark in one source: `contamination.json` in its clean edition."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as parquet
from pydantic import Field

from ratoon import records
from ratoon.corpus.decontaminate import CONTAMINATED, Index
from ratoon.corpus.decontaminate.judge import NOTE
from ratoon.corpus.documents import MAX_EXAMPLES
from ratoon.corpus.edition import Edition
from ratoon.records import Record

FILE = "contamination.json"


class Example(Record):
    item: str
    document: str
    how: str
    share: float


class Contamination(Record):
    """One target in one source. Items are counted once however many documents hold them."""

    kind: str
    items: int
    sought_by_coverage: int
    sought_whole: int
    too_short: int = Field(description="fewer words than can be told from chance: not protected")
    found_by_coverage: int = Field(description="items, held by a document that was dropped")
    found_whole: int
    shared: int = Field(description="items that only share a longer n-gram with some document; nothing went")
    documents: int = Field(description="dropped for it; one dropped for several targets counts for each")
    examples: tuple[Example, ...] = ()


class Report(Record):
    """`documents`: dropped for any target."""

    index: str = Field(description="digest of the items and thresholds")
    documents: int
    targets: dict[str, Contamination]


def write(edition: Edition, index: Index, verdicts: Iterable[Path]) -> str:
    """The file's name, to be listed in the edition's ledger."""
    records.write(edition.place(FILE), contamination(index, verdicts))
    return FILE


class _Tally:
    def __init__(self) -> None:
        self.items: dict[str, set[str]] = {"covered": set(), "whole": set(), "shared": set()}
        self.documents = 0
        self.examples: list[Example] = []


def contamination(index: Index, verdicts: Iterable[Path]) -> Report:
    """`verdicts`: of the shards of one source, in their order, written with the judge's note."""
    tallies = {name: _Tally() for name in index.names}
    documents = 0
    for path in verdicts:
        table = parquet.read_table(path, columns=["id", "reason", NOTE])
        noted = table.filter(table[NOTE].is_valid())
        for row in noted.to_pylist():
            documents += row["reason"] == CONTAMINATED
            _add(tallies, row["id"], row[NOTE])
    targets = {name: _summary(index, number, tallies[name]) for number, name in enumerate(index.names)}
    return Report(index=index.digest, documents=documents, targets=targets)


def _add(tallies: dict[str, _Tally], document: str, hits: Sequence[dict]) -> None:
    for name in sorted({hit["target"] for hit in hits}):
        tally, mine = tallies[name], [hit for hit in hits if hit["target"] == name]
        for hit in mine:
            tally.items[hit["how"]].update(hit["items"])
        removing = [hit for hit in mine if hit["how"] != "shared"]
        tally.documents += bool(removing)
        for hit in removing[: MAX_EXAMPLES - len(tally.examples)]:
            example = Example(item=hit["items"][0], document=document, how=hit["how"], share=hit["share"])
            tally.examples.append(example)


def _summary(index: Index, number: int, tally: _Tally) -> Contamination:
    counts, items = index.counts[number], tally.items
    return Contamination(
        kind=index.kinds[number],
        items=counts.items,
        sought_by_coverage=counts.covered,
        sought_whole=counts.whole,
        too_short=counts.too_short,
        found_by_coverage=len(items["covered"]),
        found_whole=len(items["whole"]),
        shared=len(items["shared"] - items["covered"] - items["whole"]),
        documents=tally.documents,
        examples=tuple(tally.examples),
    )


def load(edition: Path) -> Report | None:
    """Of a clean edition; None: it was not decontaminated."""
    path = edition / FILE
    return records.read(path, Report) if path.exists() else None


HEAD = ("target", "items", "too short", "found", "of these whole", "share a run of words", "documents dropped")


def show(report: Report) -> str:
    """As a table of text."""
    lines: list[tuple[str, ...]] = [HEAD]
    for name, one in report.targets.items():
        found = one.found_by_coverage + one.found_whole
        numbers = (one.items, one.too_short, found, one.found_whole, one.shared, one.documents)
        lines.append((name, *(f"{number:,}" for number in numbers)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, f"{report.documents:,} documents dropped for one or more"])
