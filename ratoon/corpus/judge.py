"""Who is asked about a document in the first pass of clean, and how.

A judge is picklable configuration. In the worker process `open()` makes of it a function that looks at many documents
at once and answers with Findings: for each document the reason to drop it or None, and columns to be noted in
verdicts/*.parquet, one value per document. The order of judges is the one in judges.py; the first reason wins. A
document that one judge drops no later judge sees, and what those would have noted of it is null there. A judge is
never asked about no documents.

    class Short(NamedTuple):                        # or any other picklable class
        least: int
        fields: tuple[pa.Field, ...] = (pa.field("characters", pa.int64()),)

        def content(self) -> tuple[object, ...]:    # all that decides; judges of the same content answer the same
            return ("short", 1, self.least)         # 1: raise it when the code comes to answer otherwise

        def open(self) -> Ask:                      # once per shard: load what is large here, not in __init__
            def ask(documents: Documents) -> Findings:
                sizes = documents.texts.str.len_chars()
                reasons = ["short" if n < self.least else None for n in sizes]
                return Findings(reasons, {"characters": sizes.to_arrow()})

            return ask

What a judge says of one document depends on that document alone (its texts, its metadata, what was noted of it), never
on its neighbours: how documents are cut into batches is no part of the digest. Files that a judge reads are in
content() by their digest, not by their name. Reasons are snake_case, a few per judge, each of one judge alone: people
read them in the ledger.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import polars as pl
import pyarrow as pa

COLUMNS = ("id", "text", "url", "date", "language", "license", "metadata")


class Findings(NamedTuple):
    """Of the documents asked about, in their order."""

    reasons: Sequence[str | None]
    notes: Mapping[str, pa.Array] = {}  # by name, one array for each of the judge's `fields`


class Documents:
    """Some documents of one shard: COLUMNS of SCHEMA, and what earlier judges noted of them."""

    def __init__(self, columns: pa.RecordBatch, notes: Mapping[str, pa.Array] | None = None) -> None:
        self.columns = columns
        self.notes = dict(notes or {})

    def __len__(self) -> int:
        return self.columns.num_rows

    @cached_property
    def texts(self) -> pl.Series:
        return pl.Series(self.columns.column("text"), dtype=pl.String)

    def column(self, name: str) -> list[Any]:
        """A declared column as Python values; `note` for what an earlier judge found."""
        return self.columns.column(name).to_pylist()

    def note(self, name: str) -> list[Any] | None:
        """None: no earlier judge notes it."""
        return self.notes[name].to_pylist() if name in self.notes else None

    def keep(self, wanted: pa.BooleanArray) -> "Documents":
        return Documents(self.columns.filter(wanted), {name: each.filter(wanted) for name, each in self.notes.items()})


Ask = Callable[[Documents], Findings]


class Judge(Protocol):
    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Columns it adds to the verdicts; all nullable."""

    def content(self) -> tuple[object, ...]:
        """All that decides what it answers (str, int, float, bool, None, bytes, tuples of these), for a digest."""

    def open(self) -> Ask: ...


class Court:
    """Judges in their order."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self.asked = [(judge.fields, judge.open()) for judge in judges]

    def __call__(self, documents: Documents) -> Findings:
        """The first reason per document, and everything noted."""
        total = len(documents)
        reasons: list[str | None] = [None] * total
        noted: dict[str, pa.Array] = {}
        places = list(range(total))  # of those still in `documents`
        for fields, ask in self.asked:
            if not places:
                noted.update({field.name: pa.nulls(total, field.type) for field in fields})
                continue
            found = ask(documents)
            assert len(found.reasons) == len(documents)
            assert set(found.notes) == {field.name for field in fields}
            for field in fields:
                documents.notes[field.name] = found.notes[field.name].cast(field.type)
                noted[field.name] = _spread(documents.notes[field.name], places, total)
            stays = [reason is None for reason in found.reasons]
            if not all(stays):
                for place, reason in zip(places, found.reasons, strict=True):
                    reasons[place] = reason
                documents = documents.keep(pa.array(stays))
                places = [place for place, stay in zip(places, stays, strict=True) if stay]
        return Findings(reasons, noted)


def _spread(values: pa.Array, places: list[int], total: int) -> pa.Array:
    """Values at their places among `total`, null elsewhere."""
    if len(places) == total:
        return values
    at: list[int | None] = [None] * total
    for i, place in enumerate(places):
        at[place] = i
    return values.take(pa.array(at, pa.int64()))
