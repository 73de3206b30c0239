"""The second pass of clean: all documents of a source together. What becomes of each, and why.

In this order: a judge's reason; of equal texts the first in shard order stays; near-duplicates, texts of other sources
and repeated paragraphs (dedup/survivors.py); held out or trained on, by the key; of what would be trained on, what
the scores do not choose (scores/select.py); and of a source that is split, what is in no portion (portions.py). Every
document has one fate, and fates/*.parquet says which, and its portion, row for row with the shard of documents.

Memory: about 60 bytes per document.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ratoon.config import PrepareConfig, Source
from ratoon.corpus.dedup.survivors import REASONS, Fate
from ratoon.corpus.documents import MAX_EXAMPLES, Tally
from ratoon.corpus.edition import Edition, digest
from ratoon.corpus.portions import NO_PORTION, Divided, divide, told
from ratoon.corpus.scores.select import NOT_SELECTED, left_out
from ratoon.records import Amount, Portion

DROP, TRAIN, HELD_OUT = range(3)
PARTS = {TRAIN: "train", HELD_OUT: "held_out"}
DUPLICATE = "duplicate"
# What judges note that the ledger counts by.
COUNTED = ("kind", "language")
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


class Kept(NamedTuple):
    """What stays of one shard: for each document DROP or the number of a file it is written to, as bytes.

    The files are TRAIN and HELD_OUT of the first portion, then of the second, and so on; a source that is not split
    has one. `copies`: how often each is written to the training part; empty: once.
    """

    shard: Path
    flags: bytes
    copies: bytes
    portions: tuple[str, ...] = ()

    @property
    def files(self) -> list[int]:
        return sorted({*self.flags} - {DROP})

    def file(self, number: int, version: int) -> str:
        part = int(part_of(number))
        # Of a portion its own documents alone, so that what happens to others leaves its files as they are.
        mine = self.flags if not self.portions else (np.frombuffer(self.flags, np.uint8) == number).tobytes()
        key = digest(version, self.shard.name, mine, self.copies if part == TRAIN else b"")
        folder = f"{self.portions[(number - 1) // 2]}/" if self.portions else ""
        return f"{folder}{PARTS[part]}-{self.shard.stem}-{key}.parquet"


def part_of(number: Any) -> Any:
    """TRAIN or HELD_OUT of a file's number, or of many."""
    return (number - 1) % 2 + 1


class Settled(NamedTuple):
    kept: list[Kept]
    files: list[str]  # fates/*.parquet, for the ledger
    total: Tally
    kept_by: dict[str, dict[str, Amount]]  # what judges noted -> its value -> documents and bytes kept
    portions: dict[str, Portion]


class Column(NamedTuple):
    """A fate for every document of the source, as a number, and what the numbers mean."""

    codes: NDArray[np.int16]
    names: list[str]

    def code(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def set(self, where: NDArray[np.bool_], name: str) -> None:
        if where.any():
            self.codes[where] = self.code(name)

    @property
    def open(self) -> NDArray[np.bool_]:
        return self.codes < 0


def settle(
    source: Source,
    config: PrepareConfig,
    inputs: Sequence[Path],
    verdicts: Sequence[Path],
    near: Sequence[Fate],
    scores: Path | None,
    edition: Edition,
) -> Settled:
    """The fate of every document of `inputs`. `near`: what deduplication says of them; `scores`: the source's edition
    of scores, where some are asked for.
    """
    counts = [parquet.read_metadata(path).num_rows for path in verdicts]
    ends = np.cumsum([0, *counts])
    fates, sizes = _judged(verdicts, ends)
    keys = _fixed(verdicts, "key", 16, ends)
    same = keys if config.dedup.exact == "normalised" else _fixed(verdicts, "id", 32, ends)
    fates.set(_again(same, fates.open), DUPLICATE)
    said = _joined([_plain(fate.reasons, 0, n) for fate, n in zip(near, counts, strict=True)])
    for number, name in enumerate(REASONS):
        if name:
            fates.set(fates.open & (said == number), name)
    fates.set(fates.open & _held_out(keys, config.held_out.share), PARTS[HELD_OUT])
    del keys, same
    if asked := config.selects(source.name):
        assert scores is not None
        copies = _joined([_plain(fate.copies, 1, n) for fate, n in zip(near, counts, strict=True)])
        copies[~fates.open] = 0
        parts = [copies[a:b].tobytes() for a, b in pairwise(ends)]
        gone = left_out(source.name, asked, scores, list(inputs), list(verdicts), parts)
        fates.set(np.frombuffer(b"".join(gone), np.uint8) > 0, NOT_SELECTED)
    fates.set(fates.open, PARTS[TRAIN])
    flags = _flags(fates)
    divided = Divided((), np.zeros_like(flags), np.zeros(len(flags), np.bool_))
    if source.split:
        divided = divide(source, source.split, config, inputs, verdicts, flags, sizes)
        fates.set(divided.outside, NO_PORTION)
        flags = _flags(fates)
    numbers = np.where(flags == DROP, DROP, flags + 2 * divided.of).astype(np.uint8)
    spans = [slice(a, b) for a, b in pairwise(ends)]
    each = zip(inputs, near, spans, strict=True)
    kept = [Kept(shard, numbers[rows].tobytes(), fate.copies, divided.names) for shard, fate, rows in each]
    files = [_write(edition, shard, fates, divided, rows) for shard, rows in zip(inputs, spans, strict=True)]
    return Settled(
        kept,
        files,
        _tally(fates, flags, sizes, ends, verdicts),
        _kept_by(flags, sizes, ends, verdicts),
        told(divided.names, divided.of, flags, sizes),
    )


def _joined(parts: Sequence[U8]) -> U8:
    return np.concatenate([np.empty(0, np.uint8), *parts])


def _plain(values: bytes, default: int, count: int) -> U8:
    return np.frombuffer(values, np.uint8) if values else np.full(count, default, np.uint8)


def _judged(verdicts: Sequence[Path], ends: I64) -> tuple[Column, I64]:
    """Fates as the judges have it, and bytes of text. One file is in memory at a time."""
    found, sizes = Column(np.full(ends[-1], -1, np.int16), []), np.empty(ends[-1], np.int64)
    for path, (begin, end) in zip(verdicts, pairwise(ends), strict=True):
        table = parquet.read_table(path, columns=["reason", "bytes"])
        reasons = table["reason"].combine_chunks().dictionary_encode()
        names = [found.code(name) for name in reasons.dictionary.to_pylist()]
        codes = reasons.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        found.codes[begin:end] = np.array([*names, -1], np.int16)[codes]
        sizes[begin:end] = table["bytes"].to_numpy()
    return found, sizes


def _fixed(verdicts: Sequence[Path], name: str, width: int, ends: I64) -> U64:
    """A column of values of `width` bytes, one row each; what is null is nought."""
    found = np.zeros((ends[-1], width // 8), np.uint64)
    for path, (begin, end) in zip(verdicts, pairwise(ends), strict=True):
        column = parquet.read_table(path, columns=[name])[name].combine_chunks()
        values = column.drop_null().cast(pa.binary()).cast(pa.binary(width))
        plain = np.frombuffer(values.buffers()[1] or b"", ">u8").reshape(-1, width // 8)
        found[begin:end][column.is_valid().to_numpy(zero_copy_only=False)] = plain[: len(values)]
    return found


def _again(values: U64, passed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the documents that passed have a value that one before them has."""
    rows = np.flatnonzero(passed)
    # The sort is stable: of equal values the first stays first.
    rows = rows[np.lexsort(values[rows].T)]
    found = np.zeros(len(passed), np.bool_)
    found[rows[1:]] = (values[rows[1:]] == values[rows[:-1]]).all(axis=1)
    return found


def _held_out(keys: U64, share: float) -> NDArray[np.bool_]:
    """As clean.held_out says it of one key."""
    return keys[:, 0] < np.uint64(math.ceil(share * 2**64))


def _flags(fates: Column) -> U8:
    by_name = {name: part for part, name in PARTS.items()}
    return np.array([by_name.get(name, DROP) for name in fates.names], np.uint8)[fates.codes]


def _write(edition: Edition, shard: Path, fates: Column, divided: Divided, where: slice) -> str:
    codes = fates.codes[where]
    used, plain = np.unique(codes, return_inverse=True)
    names = [fates.names[code] for code in used]
    key: tuple[object, ...] = (tuple(names), plain.astype(np.int16).tobytes())
    portions: list[str | None] = []
    if divided.names:
        inside = np.isin(codes, [fates.code(name) for name in PARTS.values()])
        portions = [divided.names[n] if there else None for n, there in zip(divided.of[where], inside, strict=True)]
        key = (*key, tuple(portions))
    name = f"fates/{shard.stem}-{digest(*key)}.parquet"
    if not edition.reusable(name):
        column = pa.DictionaryArray.from_arrays(pa.array(plain.astype(np.int16)), pa.array(names, pa.string()))
        more = {"portion": pa.array(portions, pa.string())} if divided.names else {}
        parquet.write_table(pa.table({"fate": column, **more}), edition.place(name), compression="zstd")
    return name


def _tally(fates: Column, flags: U8, sizes: I64, ends: I64, verdicts: Sequence[Path]) -> Tally:
    total = Tally()
    total.keep(int(sizes[flags != DROP].sum()), int((flags != DROP).sum()))
    for code, name in enumerate(fates.names):
        if name in PARTS.values():
            continue
        rows = np.flatnonzero(fates.codes == code)
        total.dropped[name] = len(rows)
        total.dropped_bytes[name] = int(sizes[rows].sum())
        total.examples[name] = _places(rows[:MAX_EXAMPLES], ends, verdicts)
    return total


def _places(rows: I64, ends: I64, verdicts: Sequence[Path]) -> list[str]:
    found: list[str] = []
    for number in np.unique(np.searchsorted(ends, rows, side="right") - 1):
        inside = rows[(rows >= ends[number]) & (rows < ends[number + 1])] - ends[number]
        found += parquet.read_table(verdicts[number], columns=["place"])["place"].take(pa.array(inside)).to_pylist()
    return found


def _kept_by(flags: U8, sizes: I64, ends: I64, verdicts: Sequence[Path]) -> dict[str, dict[str, Amount]]:
    parts = []
    for path, (a, b) in zip(verdicts, pairwise(ends), strict=True):
        for name in COUNTED:
            if name in parquet.read_schema(path).names:
                values = pl.Series("value", parquet.read_table(path, columns=[name])[name])
                parts.append(
                    pl.DataFrame({"value": values, "bytes": sizes[a:b]})
                    .filter(pl.Series(flags[a:b] != DROP) & values.is_not_null())
                    .select(pl.lit(name).alias("name"), pl.col("value").cast(pl.String), "bytes")
                )
    if not parts:
        return {}
    found: dict[str, dict[str, Amount]] = {}
    grouped = pl.concat(parts).group_by("name", "value").agg(pl.len().alias("documents"), pl.col("bytes").sum())
    for row in grouped.sort("name", "value").iter_rows(named=True):
        found.setdefault(row["name"], {})[row["value"]] = Amount(documents=row["documents"], bytes=row["bytes"])
    return found
