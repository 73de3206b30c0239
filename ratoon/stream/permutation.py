"""Keyed permutations that can be asked for one place at a time, the same on every machine and for good."""

import math
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
ROUNDS = 6  # a Feistel network needs four to look random; two more cost nothing here


def key(*parts: int | str) -> NDArray[np.uint64]:
    """Round keys, shape (ROUNDS,), the same on every machine and for good."""
    digest = blake2b(repr(parts).encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, "<u8")


def keys_of(numbers: Positions, *parts: int | str) -> NDArray[np.uint64]:
    """(ROUNDS, n): the key of `parts` and each number; (ROUNDS,) where all are the same."""
    different, which = np.unique(numbers, return_inverse=True)
    if len(different) == 1:
        return key(*parts, int(different[0]))
    keys = np.empty((ROUNDS, len(different)), np.uint64)
    for n, number in enumerate(different):
        keys[:, n] = key(*parts, int(number))
    return keys[:, which]


def permute(x: Positions, n: int, keys: NDArray[np.uint64]) -> Positions:
    """Each x in [0, n) to its place in a keyed permutation of [0, n); keys of all, or (ROUNDS, len(x)) of each.

    A balanced Feistel network over the next even power of two; results outside [0, n) walk on along their
    cycle until they are inside. Not numpy.random: its streams may change between releases, and a checkpoint
    must find the same rows next year.
    """
    half = max(1, math.ceil(math.log2(max(n, 2)) / 2))
    mask = np.uint64((1 << half) - 1)
    bits = np.uint64(half)

    def once(value: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = value >> bits, value & mask
        for k in keys:
            left, right = right, left ^ (scramble(right ^ k) & mask)
        return (left << bits) | right

    out = once(np.asarray(x, np.int64).astype(np.uint64), keys)
    walking = np.flatnonzero(out >= n)
    while len(walking):
        out[walking] = once(out[walking], keys if keys.ndim == 1 else keys[:, walking])
        walking = walking[out[walking] >= n]
    return out.astype(np.int64)


def scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every input bit moves about half of the output bits."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
