"""Runs of words of all items, to be looked up for every position of a corpus."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.corpus.decontaminate.split import Split, factor
from ratoon.corpus.dedup.words import I64, U64

# Positions looked at in one go: what they take stays in a core's cache.
PIECE = 1 << 15
# The first look is at a table of booleans by leading bits: it holds for a core's cache, and nearly all that is in no
# item ends there.
LEAST_BITS, MOST_BITS, SPARSE = 14, 24, 5


class Found(NamedTuple):
    """Positions in a Split, in order, and which key of a table stands there."""

    places: I64
    keys: I64


class Table(NamedTuple):
    """Hash of a run -> (entry, where in the entry). Key k has the postings begin[k] to begin[k + 1]."""

    keys: U64  # in order, each once
    present: NDArray[np.bool_]
    begin: I64
    entries: I64
    at: I64

    def find(self, hashes: U64) -> Found:
        shift = np.uint64(64 - (len(self.present) - 1).bit_length())
        places = np.flatnonzero(self.present[(hashes >> shift).view(np.int64)])
        if not len(places) or not len(self.keys):
            return Found(places[:0], places[:0])
        wanted = hashes[places]
        number = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        same = self.keys[number] == wanted
        return Found(places[same], number[same])

    def postings(self, keys: I64) -> tuple[I64, I64]:
        """(which of `keys`, posting), for every posting of every one of them."""
        counts = self.begin[keys + 1] - self.begin[keys]
        of = np.repeat(np.arange(len(keys)), counts)
        within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        return of, self.begin[keys][of] + within


def table(hashes: U64, entries: I64, at: I64) -> Table:
    order = np.lexsort((at, entries, hashes))
    hashes, entries, at = hashes[order], entries[order], at[order]
    keys, begin = np.unique(hashes, return_index=True)
    bits = min(max((len(keys) << SPARSE).bit_length(), LEAST_BITS), MOST_BITS)
    present = np.zeros(1 << bits, np.bool_)
    present[(keys >> np.uint64(64 - bits)).view(np.int64)] = True
    return Table(keys, present, np.append(begin, len(hashes)).astype(np.int64), entries, at)


def scan(split: Split, tables: Sequence[tuple[int, Table]]) -> list[Found]:
    """For each (length, table) the runs of that many words, of one text, that are in the table."""
    longest = max((length for length, _ in tables), default=0)
    hashes = np.append(split.hashes, np.zeros(longest, np.uint64))
    total = len(split.hashes)
    parts: list[list[Found]] = [[] for _ in tables]
    for begin in range(0, total, PIECE):
        count = min(PIECE, total - begin)
        runs = np.zeros(count, np.uint64)
        for k in range(longest):
            runs += hashes[begin + k : begin + k + count] * factor(k)
            for part, (length, wanted) in zip(parts, tables, strict=True):
                if length == k + 1:
                    found = wanted.find(runs)
                    part.append(Found(found.places + begin, found.keys))
    return [_inside(split, _joined(part), length) for part, (length, _) in zip(parts, tables, strict=True)]


def _joined(parts: list[Found]) -> Found:
    empty = np.empty(0, np.int64)
    return Found(
        *(np.concatenate([empty, *column]) for column in zip(*parts, strict=True)) if parts else (empty, empty)
    )


def _inside(split: Split, found: Found, length: int) -> Found:
    """Without runs that reach into the next text."""
    inside = found.places + length <= split.bounds[split.text_of(found.places) + 1]
    return Found(found.places[inside], found.keys[inside])
