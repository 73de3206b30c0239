"""Packed rows, read by position in any order, memory-mapped. Needs numpy and nothing else.

The files, and what a row is, are described in ratoon.corpus.packed, which writes them.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ratoon.config import ConfigError
from ratoon.corpus.packed import FORMAT, INDEX, Index, Part, ShardCounts, ShardPacker, dtype_for, read_index

__all__ = [
    "FORMAT",
    "INDEX",
    "Index",
    "Part",
    "Rows",
    "ShardCounts",
    "ShardPacker",
    "dtype_for",
    "positions_in_documents",
    "read_index",
]


def positions_in_documents(tokens: np.ndarray, separator: int) -> np.ndarray:
    """(n, row_tokens) int64: the place of each token of packed rows in its document, from 0.

    A document ends with its separator, and packing puts none inside one: text that spells it out is packed as text.
    A document cut by the end of a row begins anew at 0 in the next, where nothing before it can be seen. Each
    separator that fills a short row counts as a document of its own.
    """
    place = np.arange(tokens.shape[1])
    begins = np.zeros(tokens.shape, np.int64)
    begins[:, 1:] = np.where(tokens[:, :-1] == separator, place[1:], 0)
    return place - np.maximum.accumulate(begins, axis=1)


class Rows:
    """One part of a packed edition, read by row number in any order."""

    def __init__(self, path: Path, part: Part, index: Index, row_tokens: int) -> None:
        self.path = path
        self.part = part
        self.index = index
        self.row_tokens = row_tokens
        self.names = sorted(index.shards[part])
        counts = [index.shards[part][name].tokens for name in self.names]
        self._ends = np.cumsum(np.array(counts, np.int64))
        self._shards = [self.map(name, "tokens", index.dtype, n) for name, n in zip(self.names, counts, strict=True)]

    @classmethod
    def open(cls, path: Path, part: Part = "train", row_tokens: int | None = None) -> "Rows":
        """The rows under `path`; without `row_tokens`, as long as the base declares them.

        Raises ConfigError when files are missing, cut short or do not fit the index.
        """
        index = read_index(path)
        if row_tokens is not None and row_tokens < 1:
            raise ConfigError(f"{path}: row_tokens {row_tokens}; a row has at least one token")
        return cls(path, part, index, row_tokens or index.row_tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        # A memory map pickles as its whole content; another process opens the files itself.
        return Rows.open, (self.path, self.part, self.row_tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens of the part, separators included."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def num_rows(self) -> int:
        """The last one may be short; it is still a row."""
        return -(-self.num_tokens // self.row_tokens)

    @property
    def num_documents(self) -> int:
        return self.index.totals[self.part].documents

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text, without separators: bits per byte = nats * num_tokens / num_bytes / ln 2."""
        return self.index.totals[self.part].bytes

    @property
    def separator(self) -> int:
        return self.index.separator

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens (n, row_tokens) int64, valid (n,) int64) of the rows asked for.

        Only the last row of the part may be short: its first `valid` tokens are real, separators fill the rest.
        Raises IndexError outside 0..num_rows.
        """
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.num_rows):
            raise IndexError(f"{self.path}: rows {wanted.min()} to {wanted.max()} asked of {self.num_rows}")
        tokens = np.full((len(wanted), self.row_tokens), self.separator, np.int64)
        starts = wanted * self.row_tokens
        valid = np.minimum(self.row_tokens, self.num_tokens - starts)
        for row, start, length in zip(tokens, starts, valid, strict=True):
            self._fill(row[:length], int(start))
        return tokens, valid

    def documents(self) -> Iterator[np.ndarray]:
        """The tokens (n,) int64 of each document in order, its separator last."""
        for name, shard in zip(self.names, self._shards, strict=True):
            for begin, end in pairwise(self.starts(name)):
                yield shard[int(begin) : int(end)].astype(np.int64)

    def starts(self, shard: str) -> np.ndarray:
        """Where each document of a shard starts in it, then its number of tokens."""
        counts = self.index.shards[self.part][shard]
        starts = self.map(shard, "starts", "<u8", counts.documents + 1)
        if int(starts[-1]) != counts.tokens:
            raise ConfigError(f"{self.path}: {shard}.starts does not end where its tokens do; pack the source anew")
        return starts

    def _fill(self, target: np.ndarray, position: int) -> None:
        """Tokens of the stream from `position` on, over as many shards as it takes."""
        shard = int(np.searchsorted(self._ends, position, side="right"))
        done = 0
        while done < len(target):
            offset = position + done - (int(self._ends[shard - 1]) if shard else 0)
            piece = self._shards[shard][offset : offset + len(target) - done]
            target[done : done + len(piece)] = piece
            done += len(piece)
            shard += 1

    def map(self, name: str, suffix: str, dtype: str, length: int) -> np.ndarray:
        """A file of a shard, memory-mapped; refused where it is not of the length it must have."""
        path = self.path / self.part / f"{name}.{suffix}"
        expected = length * np.dtype(dtype).itemsize
        if not path.exists():
            raise ConfigError(f"{path}: listed in {INDEX} but not there; fetch the rows again or pack the source anew")
        if (found := path.stat().st_size) != expected:
            raise ConfigError(
                f"{path}: {found} bytes, {expected} expected; fetch the rows again or pack the source anew"
            )
        return np.memmap(path, dtype, "r", shape=(length,)) if length else np.empty(0, dtype)
