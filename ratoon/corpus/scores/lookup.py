"""A table from 64-bit keys to numbers, asked for millions of keys at once."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ratoon.corpus.dedup.words import I64, U64, mix

FANOUT = 2  # slots of the index per key


class Lookup:
    """`keys` come as they are kept: mixed and in order, so that their first bits say about where each is."""

    def __init__(self, keys: U64, values: NDArray[np.float32]) -> None:
        self.keys, self.values = keys, values
        # One more than any key, so that a search always ends.
        self.ended = np.append(keys, np.uint64(2**64 - 1))

    @cached_property
    def shift(self) -> np.uint64:
        return np.uint64(64 - max(1, int(len(self.keys) * FANOUT).bit_length()))

    @cached_property
    def first(self) -> NDArray[np.uint32]:
        """Of the keys with these first bits, or above."""
        slots = 1 << (64 - int(self.shift))
        counts = np.bincount((self.keys >> self.shift).astype(np.int64), minlength=slots)
        return (np.cumsum(counts) - counts).astype(np.uint32)

    @staticmethod
    def build(codes: U64, values: NDArray[np.float64]) -> "Lookup":
        keys = mix(codes)
        order = np.argsort(keys)
        return Lookup(keys[order], values[order].astype(np.float32))

    def find(self, codes: U64) -> tuple[NDArray[np.bool_], I64]:
        """(whether each is there, where)."""
        wanted = mix(codes)
        at = self.first[wanted >> self.shift].astype(np.int64)
        short = np.flatnonzero(self.ended[at] < wanted)
        while len(short):
            at[short] += 1
            short = short[self.ended[at[short]] < wanted[short]]
        # The last place is nobody's, though a key may be equal to what stands there.
        return (self.ended[at] == wanted) & (at < len(self.keys)), at
