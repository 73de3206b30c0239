"""Paragraphs that other documents hold too: boilerplate, quotations, pages stitched from others.

A paragraph is a line; shorter ones than asked are left out, for everybody says "See also". No text is cut: a
document of whose words too many stand in paragraphs found before goes as a whole, so what stays is what was
written, under its own key. Found before: in any document that precedes it in the order of survivors.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ratoon.corpus.dedup.bands import Spill, partition
from ratoon.corpus.dedup.signatures import batches
from ratoon.corpus.dedup.words import GOLDEN, I64, U8, U64, mix, words

# Raise it whenever the same text would give other hashes.
ALGORITHM = "lines-1"
NEWLINE = 10
# Bits of an entry of the spill that hold a paragraph's words; the rest is its document's number.
WORD_BITS = 20


class Paragraphs(NamedTuple):
    hashes: U64
    words: I64
    counts: I64  # paragraphs of every document
    totals: I64  # words of every document, short lines included


def paragraphs(texts: pa.Array | pa.ChunkedArray, least: int) -> Paragraphs:
    """Of at least so many words each."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    parts = [_batch(data, offsets, least) for chunk in chunks for data, offsets in batches(chunk)]
    empty = np.empty(0, np.int64)
    columns = zip(Paragraphs(empty.view(np.uint64), empty, empty, empty), *parts, strict=True)
    return Paragraphs(*(np.concatenate(column) for column in columns))


def _batch(data: U8, offsets: I64, least: int) -> Paragraphs:
    found = words(data, offsets)
    first, documents = int(offsets[0]), len(offsets) - 1
    lines = np.flatnonzero(data[first : int(offsets[-1])] == NEWLINE) + first
    text = np.searchsorted(offsets, found.starts, "right") - 1
    # Texts and lines that have begun before a word: the same for all words of a paragraph, and no others.
    line = np.searchsorted(lines, found.starts) + text
    begin = np.flatnonzero(np.diff(line, prepend=-1))
    counts = np.diff(begin, append=len(line))
    place = np.arange(len(line)) - np.repeat(begin, counts)
    spread = mix(found.hashes + place.astype(np.uint64) * np.uint64(GOLDEN))
    hashes = mix(np.add.reduceat(spread, begin)) if len(begin) else np.empty(0, np.uint64)
    enough = counts >= least
    each = np.bincount(text[begin[enough]], minlength=documents)
    return Paragraphs(hashes[enough], counts[enough], each, np.bincount(text, minlength=documents))


def write(shard: Path, least: int, path: Path) -> None:
    """Paragraphs of a shard's texts, a row per document. Runs in a process of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("hashes", pa.list_(pa.uint64())), ("words", pa.list_(pa.int64())), ("total", pa.int64())])
    with (
        parquet.ParquetFile(shard) as texts,
        parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as file,
    ):
        for group in range(texts.num_row_groups):
            found = paragraphs(texts.read_row_group(group, columns=["text"])["text"], least)
            ends = pa.array(np.append(0, np.cumsum(found.counts)), pa.int32())
            lists = [pa.ListArray.from_arrays(ends, pa.array(values)) for values in (found.hashes, found.words)]
            file.write_table(pa.Table.from_arrays([*lists, pa.array(found.totals)], schema=schema))


def read(path: Path) -> Paragraphs:
    table = parquet.read_table(path)
    lists = table["hashes"].combine_chunks(), table["words"].combine_chunks()
    hashes, counted = (column.flatten().to_numpy() for column in lists)
    return Paragraphs(hashes, counted, np.diff(lists[0].offsets.to_numpy()), table["total"].to_numpy())


def repeated(shards: Sequence[tuple[Path, I64]], documents: int, folder: Path) -> NDArray[np.float64]:
    """Share of every document's words that stand in paragraphs found before it, by number of the document.

    `shards`: a file of paragraphs and the numbers of its documents, -1 for one that does not count.
    """
    spill = Spill(folder, sum(parquet.read_metadata(path).num_rows for path, _ in shards) * 16)
    totals, shared = np.ones(documents), np.zeros(documents)
    for path, numbers in shards:
        found = read(path)
        owners = np.repeat(numbers, found.counts)
        counts = owners >= 0
        held = np.minimum(found.words, (1 << WORD_BITS) - 1)
        spill.add(found.hashes[counts], (owners << WORD_BITS | held)[counts])
        totals[numbers[numbers >= 0]] = np.maximum(found.totals, 1)[numbers >= 0]
    for part in spill.close():
        hashes, entries = partition(part)
        if len(hashes):
            owners, held = entries >> WORD_BITS, entries & ((1 << WORD_BITS) - 1)
            first = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
            holder = np.repeat(owners[first], np.diff(first, append=len(hashes)))
            np.add.at(shared, owners[holder != owners], held[holder != owners])
    return shared / totals
