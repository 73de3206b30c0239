"""Texts to words and runs of words, as hashes to look up and as letters to be sure.

Words are those of dedup/words.py (runs of letters and digits without regard to case; Chinese, Japanese, Thai and
their like one per character) of text in compatibility form (NFKC) without invisible characters: line breaks, quotes,
dashes, full-width letters, ligatures and zero-width spaces make no difference.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ratoon.corpus.dedup.signatures import batches
from ratoon.corpus.dedup.words import APART, GOLDEN, I64, U8, U64, words

# Raise it whenever the same text would give other words.
WORDS = "nfkc-words-1"
# Soft hyphens, zero-width spaces and joiners, word joiners, byte order marks.
INVISIBLE = "[\u00ad\u200b-\u200d\u2060\ufeff]"
# What parts words, as words.py has it: ASCII and Latin-1 signs, and blocks of signs.
_PARTING = re.compile("[\\x00-/:-@\\[-`{-\u00bf" + "".join(f"{chr(first)}-{chr(last)}" for first, last in APART) + "]+")

Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray  # as Arrow has it: without lone surrogates


class Split:
    """The words of several texts, one text after the other."""

    def __init__(self, data: U8, offsets: I64) -> None:
        self.data, self.offsets = data, offsets
        found = words(data, offsets)
        self.starts, self.hashes = found.starts, found.hashes
        self.bounds = np.searchsorted(found.starts, offsets)  # words of text d: bounds[d] to bounds[d + 1]
        self._known: dict[int, str] = {}  # runs overlap, and each word is spelled once

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text_of(self, word: I64) -> I64:
        return np.searchsorted(self.bounds, word, side="right") - 1

    def spelled(self, first: int, count: int) -> tuple[str, ...]:
        """The words from `first` on, at most `count`, none of the next text."""
        text = bisect_right(self._bounds, first) - 1
        last = min(first + count, self._bounds[text + 1]) if text < len(self) else first
        return tuple([self._known.get(word) or self._spell(word, text) for word in range(first, last)])

    def _spell(self, word: int, text: int) -> str:
        end = self.offsets[text + 1] if word + 1 == self._bounds[text + 1] else self.starts[word + 1]
        found = _plain(self.data[self.starts[word] : end].tobytes())
        self._known[word] = found
        return found

    @cached_property
    def _bounds(self) -> list[int]:
        return self.bounds.tolist()


def _plain(piece: bytes) -> str:
    """A word without what stands behind it. Words with the same hash have the same letters here, collisions apart."""
    return _PARTING.sub("", piece.decode()).casefold()


def splits(texts: Texts) -> Iterator[tuple[I64, Split]]:
    """(numbers of the texts, their words), some texts at a time."""
    column = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.large_string())
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.large_string())
    plain = pc.equal(pc.binary_length(column), pc.utf8_length(column)).to_numpy(zero_copy_only=False)
    if plain.all():
        yield from _splits(np.arange(len(column)), column)
        return
    yield from _splits(np.flatnonzero(plain), column.filter(pa.array(plain)))
    others = pc.utf8_normalize(column.filter(pa.array(~plain)), form="NFKC")
    yield from _splits(np.flatnonzero(~plain), pc.replace_substring_regex(others, INVISIBLE, ""))


def _splits(numbers: I64, column: pa.Array) -> Iterator[tuple[I64, Split]]:
    first = 0
    for data, offsets in batches(column):
        found = Split(data, offsets)
        yield numbers[first : first + len(found)], found
        first += len(found)


# ---------------------------------------------------------------- runs of words


def factor(k: int) -> np.uint64:
    """Of the hash of a run's k-th word in the run's own: odd, and another for every place, so that order counts."""
    return np.uint64(GOLDEN * (2 * k + 1) & (2**64 - 1))


def runs(hashes: U64, starts: I64, length: int) -> U64:
    """The hashes of the runs of `length` words that begin at `starts`; past the end of `hashes` there is nothing."""
    total = np.zeros(len(starts), np.uint64)
    for k in range(length):
        at = starts + k
        inside = at < len(hashes)
        total += np.where(inside, hashes[np.where(inside, at, 0)], 0) * factor(k) if len(hashes) else np.uint64(0)
    return total
