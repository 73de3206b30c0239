"""Rows with the prefix of each document before it. ratoon.corpus.prefixes writes the files, and describes them.

Which text a row holds, and in which order, stays as it is: a row grows by its prefixes. A document that the row's
beginning cuts has its prefix at the row's start. No token of a prefix has a loss; nor has the first token after the
prefix of such a document, which has none in a plain row either: no document begins in its middle.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError
from ratoon.corpus.packed import PREFIXES_FORMAT
from ratoon.stream.mixture import Batch
from ratoon.stream.rows import Rows


class Shard(NamedTuple):
    """Prefixes of the documents of a shard, memory-mapped."""

    starts: NDArray[Any]  # of documents in the shard, then its number of tokens
    prefix_starts: NDArray[Any]  # of prefixes, likewise
    tokens: NDArray[Any]  # of all prefixes


class Stretch(NamedTuple):
    """What goes into some text."""

    places: NDArray[np.int64]  # (D,) where in it each prefix goes
    lengths: NDArray[np.int64]  # (D,)
    tokens: NDArray[Any]  # of all of them, one after the other
    cut: bool  # it begins inside a document


class Prefixes:
    """The prefixes of a source's documents, found by where in the stream of its tokens a document lies."""

    def __init__(self, rows: Rows) -> None:
        packed = rows.index.prefixes
        if packed is None:
            raise ConfigError(
                f"{rows.path}: no prefixes were packed with these rows; declare prepare.prefixes and run "
                f"`ratoon prepare`, or name in train.loss.prefix.sources the sources that have them"
            )
        if packed.format != PREFIXES_FORMAT:
            raise ConfigError(
                f"{rows.path}: prefixes of format {packed.format}, this version reads {PREFIXES_FORMAT}; pack the "
                f"source anew"
            )
        self.num_tokens = rows.num_tokens
        self.separator = rows.separator
        counts = rows.index.shards[rows.part]
        self.shards = [open_shard(rows, name, packed.key) for name in rows.names if counts[name].documents]
        self.ends = np.cumsum([int(shard.starts[-1]) for shard in self.shards], dtype=np.int64)

    def between(self, begin: int, end: int) -> list[Stretch]:
        """What goes into the text between two places of the stream, a shard at a time."""
        found, at = [], begin
        number = int(self.ends.searchsorted(begin, side="right"))
        while at < end:
            starts, prefix_starts, tokens = self.shards[number]
            first = int(self.ends[number]) - int(starts[-1])
            # Numbers of the type of the file: any other would have the whole of it converted first.
            low = int(starts.searchsorted(np.uint64(at - first), side="right")) - 1
            stop = min(end, int(self.ends[number]))
            high = int(starts.searchsorted(np.uint64(stop - first), side="left"))
            places = starts[low:high].astype(np.int64) + (first - begin)
            of = prefix_starts[low : high + 1].astype(np.int64)
            cut = bool(places[0] < 0)
            if cut:
                places[0] = 0
            found.append(Stretch(places, of[1:] - of[:-1], tokens[of[0] : of[-1]], cut))
            at, number = stop, number + 1
        return found

    def put(self, tokens_T: NDArray[np.int64], begin: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The text that begins at a place of the stream with its prefixes, and which tokens have no loss."""
        if not len(tokens_T):
            return tokens_T, np.zeros(0, bool)
        found = self.between(begin, begin + len(tokens_T))
        at = joined([each.places.repeat(each.lengths) for each in found])
        silent = np.zeros(len(tokens_T) + len(at), bool)
        silent[at + np.arange(len(at))] = True
        tokens = np.empty(len(silent), np.int64)
        tokens[silent] = joined([each.tokens for each in found])
        tokens[~silent] = tokens_T
        if found[0].cut:
            silent[found[0].lengths[0]] = True
        return tokens, silent

    def tokens_in(self, row_tokens: int) -> NDArray[np.int64]:
        """(rows,) tokens of prefixes in each row of so many tokens of text."""
        change = np.zeros(-(-self.num_tokens // row_tokens) + 1, np.int64)
        for shard, end in zip(self.shards, self.ends.tolist(), strict=True):
            starts = shard.starts.astype(np.int64) + (end - int(shard.starts[-1]))
            lengths = np.diff(shard.prefix_starts.astype(np.int64))
            np.add.at(change, starts[:-1] // row_tokens, lengths)
            np.add.at(change, (starts[1:] - 1) // row_tokens + 1, -lengths)
        return np.cumsum(change)[:-1]

    def longest_row(self, row_tokens: int) -> int:
        """Tokens of the longest row with its prefixes."""
        more = self.tokens_in(row_tokens)
        text = np.minimum(row_tokens, self.num_tokens - np.arange(len(more)) * row_tokens)
        return int((text + more).max(initial=0))

    def longest_document(self, row_tokens: int) -> int:
        """At most so many tokens has a document, or a part of one that fills a row, with its prefix."""
        found = [
            np.minimum(row_tokens, np.diff(shard.starts.astype(np.int64)))
            + np.diff(shard.prefix_starts.astype(np.int64))
            for shard in self.shards
        ]
        return max((int(each.max(initial=0)) for each in found), default=0)


def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)  # of one shard, nearly always


def open_shard(rows: Rows, name: str, key: str) -> Shard:
    starts = rows.starts(name)
    prefix_starts = rows.map(name, f"prefix_starts-{key}", "<u8", len(starts))
    tokens = rows.map(name, f"prefixes-{key}", rows.index.dtype, int(prefix_starts[-1]))
    # Seen as plain arrays: to take a part of a memory map costs more than the part.
    return Shard(np.asarray(starts), np.asarray(prefix_starts), np.asarray(tokens))


def prefixed(batch: Batch, sources: Sequence[Prefixes | None]) -> Batch:
    """`batch` with the prefixes of its documents; its rows are as long as the longest of them.

    sources  the prefixes of each source, as `batch.place` numbers them; None: its rows are left plain
    """
    assert batch.place is not None  # a row of no source has no documents to be found
    count, row_tokens = batch.tokens.shape
    rows = []
    for i in range(count):
        text, found = batch.tokens[i, : batch.valid[i]], sources[int(batch.place.source[i])]
        plain = text, np.zeros(len(text), bool)
        rows.append(plain if found is None else found.put(text, int(batch.place.row[i]) * row_tokens))
    longest = max(row_tokens, *(len(text) for text, _ in rows))
    filling = next((found.separator for found in sources if found is not None), 0)
    tokens, silent = np.full((count, longest), filling, np.int64), np.zeros((count, longest), bool)
    for i, (text, quiet) in enumerate(rows):
        tokens[i, : len(text)], silent[i, : len(text)] = text, quiet
    return batch._replace(tokens=tokens, valid=np.array([len(text) for text, _ in rows], np.int64), silent=silent)
