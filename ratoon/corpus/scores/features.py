"""Words and pairs of words of many texts at once, hashed into buckets.

A word is a run of letters and digits without regard to case (dedup/words.py); signs and punctuation do not count.
What a text gives does not depend on the texts around it, in order as well as in content, so that sums over it are
the same to the last bit however texts are grouped.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratoon.corpus.dedup.signatures import batches
from ratoon.corpus.dedup.words import GOLDEN, I64, U64, mix, words

F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]
# Words looked at in one go; only a single text can be longer than that.
SLICE = 1 << 20


class Grams(NamedTuple):
    buckets: U32
    owner: I64  # which text; ascending


def words_of(texts: pa.Array) -> Iterator[tuple[slice, U64, I64]]:
    """(texts, hashes of their words, how many words each has), about a megabyte at a time."""
    first = 0
    for data, offsets in batches(texts):
        found = words(data, offsets)
        counts = np.diff(np.searchsorted(found.starts, offsets))
        yield slice(first, first + len(counts)), found.hashes, counts
        first += len(counts)


def grams(hashes: U64, counts: I64, buckets: int, pairs: bool = True) -> Iterator[Grams]:
    """Each word and, behind it, its pair with the next word of the same text."""
    owner = np.repeat(np.arange(len(counts)), counts)
    for begin in range(0, len(hashes), SLICE):
        here, end = slice(begin, begin + SLICE), min(begin + SLICE, len(hashes))
        single = bucket(mix(hashes[here]), buckets)
        if not pairs:
            yield Grams(single, owner[here])
            continue
        both = np.empty((len(single), 2), np.uint32)
        both[:, 0] = single
        behind = hashes[begin + 1 : end + 1]
        both[: len(behind), 1] = bucket(pair(hashes[begin : begin + len(behind)], behind), buckets)
        real = np.ones(both.shape, bool)
        real[:, 1] = np.append(owner[begin + 1 : end + 1], -1)[: len(single)] == owner[here]
        yield Grams(both[real], np.repeat(owner[here], 2)[real.reshape(-1)])


def bucket(hashes: U64, buckets: int) -> U32:
    return ((hashes >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)).astype(np.uint32)


def pair(left: U64, right: U64) -> U64:
    return mix(left * np.uint64(GOLDEN) + right)


def sums(table: NDArray[np.float32], texts: pa.Array) -> tuple[F64, I64, I64]:
    """Per text: the sum of table[bucket] over its words and pairs, how many these are, and its words."""
    total, number, length = np.zeros(len(texts)), np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    for here, hashes, counts in words_of(texts):
        for part in grams(hashes, counts, len(table)):
            total[here] += np.bincount(part.owner, table[part.buckets], len(counts))
            number[here] += np.bincount(part.owner, minlength=len(counts))
        length[here] = counts
    return total, number, length
