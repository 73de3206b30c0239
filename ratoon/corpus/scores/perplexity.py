"""Bits per byte under an interpolated Kneser-Ney model of bytes (Kneser and Ney 1995; Chen and Goodman 1999).

    p(b | h) = (c(h b) - d) / c(h) + d t(h) / c(h) p(b | h'),     p() = 1/256

h the bytes before b, at most order - 1; h' without the first of them    c count; below the highest order: of different
bytes before    t(h) different bytes after h    d = n1 / (n1 + 2 n2), n1 and n2 n-grams of the order with count 1 and 2

Of bytes, because then a probability is one of the text itself, in any script, and no word is unknown. Counts are
exact: seven bytes and a length fit in one number. Before a text stand bytes that no text has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratoon.config import Perplexity
from ratoon.corpus.dedup.signatures import batches
from ratoon.corpus.dedup.words import I64, U8, U64
from ratoon.corpus.scores.features import F64
from ratoon.corpus.scores.lookup import Lookup
from ratoon.corpus.scores.reference import Reference

BEFORE = 0xFF
LEAST_DISCOUNT = 0.1  # where no n-gram was seen once: something must be left for what was never seen
# Bytes looked at in one go; only a single text can be longer than that.
PIECE = 1 << 20


@dataclass(frozen=True)
class Model:
    """Bits by n-gram, and bits to go on with a shorter context by context."""

    grams: U64
    gram_bits: NDArray[np.float32]
    contexts: U64
    context_bits: NDArray[np.float32]
    order: NDArray[np.int64]  # one

    @cached_property
    def tables(self) -> tuple[Lookup, Lookup]:
        return Lookup(self.grams, self.gram_bits), Lookup(self.contexts, self.context_bits)

    def scores(self, texts: pa.Array) -> dict[str, F64]:
        order = int(self.order[0])
        found = np.full(len(texts), np.nan)
        first = 0
        for data, offsets in batches(texts):
            sizes = np.diff(offsets)
            total = np.zeros(len(sizes))
            for codes, owner in windows(data, offsets, order):
                total += np.bincount(owner, bits_of(codes, order, *self.tables), len(sizes))
            some = sizes > 0
            found[first : first + len(sizes)][some] = total[some] / sizes[some]
            first += len(sizes)
        return {"": found}


def tag(length: int) -> np.uint64:
    """Keeps n-grams of different lengths apart in one table."""
    return np.uint64(length << 56)


def mask(length: int) -> np.uint64:
    return np.uint64((1 << 8 * length) - 1)


def windows(data: U8, offsets: I64, order: int) -> Iterator[tuple[U64, I64]]:
    """For every byte: it and those before it in its text as one number, the last in the lowest place; its text."""
    sizes, back = np.diff(offsets), order - 1
    text, ends = data[offsets[0] : offsets[-1]], offsets[1:] - offsets[0]
    padded = np.full(len(text) + back * len(sizes), BEFORE, np.uint8)
    for begin in range(0, len(text), PIECE):
        here = np.arange(begin, min(begin + PIECE, len(text)))
        owner = np.searchsorted(ends, here, "right")
        at = here + back * (owner + 1)
        padded[at] = text[here]
        codes = np.zeros(len(here), np.uint64)
        for k in range(back, -1, -1):
            codes = codes << np.uint64(8) | padded[at - k]
        yield codes, owner


def bits_of(codes: U64, order: int, grams: Lookup, contexts: Lookup) -> F64:
    """Of the last byte of every window."""
    bits = np.zeros(len(codes))
    left = np.arange(len(codes))
    for length in range(order, 0, -1):
        there, at = grams.find(codes[left] & mask(length) | tag(length))
        bits[left[there]] += grams.values[at[there]]
        left = left[~there]
        known, at = contexts.find(codes[left] >> np.uint64(8) & mask(length - 1) | tag(length - 1))
        bits[left[known]] += contexts.values[at[known]]
    bits[left] += 8
    return bits


def train(config: Perplexity, reference: Reference) -> tuple[Model, dict[str, float]]:
    found = [np.empty(0, np.uint64)]
    for data, offsets in batches(reference.texts):
        found += [codes for codes, _ in windows(data, offsets, config.order)]
    levels = _counts(np.concatenate(found), config.order)
    keys, bits, contexts, backoff = [], [], [], []
    shorter, below = np.zeros(1, np.uint64), np.full(1, 1 / 256)
    for length, (codes, counts) in enumerate(levels, 1):
        heads, group = np.unique(codes >> np.uint64(8), return_inverse=True)
        total, types = np.bincount(group, counts), np.bincount(group)
        discount = _discount(counts)
        rest = discount * types / total
        lower = below[np.searchsorted(shorter, codes & mask(length - 1))] if length > 1 else below
        chance = (counts - discount) / total[group] + rest[group] * lower
        keys.append(codes | tag(length))
        bits.append(-np.log2(chance))
        contexts.append(heads | tag(length - 1))
        backoff.append(-np.log2(rest))
        shorter, below = codes, chance
    grams = Lookup.build(np.concatenate(keys), np.concatenate(bits))
    heads_ = Lookup.build(np.concatenate(contexts), np.concatenate(backoff))
    return Model(grams.keys, grams.values, heads_.keys, heads_.values, np.array([config.order])), {}


def _counts(codes: U64, order: int) -> list[tuple[U64, I64]]:
    """(n-grams in order, counts) for lengths from 1 to `order`."""
    levels = [np.unique(codes, return_counts=True)]
    for length in range(order - 1, 0, -1):
        levels.insert(0, np.unique(levels[0][0] & mask(length), return_counts=True))
    return levels


def _discount(counts: I64) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return max(once / (once + 2 * twice), LEAST_DISCOUNT) if once else LEAST_DISCOUNT
