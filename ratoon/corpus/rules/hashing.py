"""Hashes of spans of one long array: a polynomial over code points modulo 2**64, from running sums.

hash(start, end) = sum of code[j] * R**(j - start) for start <= j < end, mixed. Any number of overlapping spans cost
one pass over the array and two lookups each.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
MIX = np.uint64(0xD6E8FEB86659FD93)
BLOCK_BITS = 16
BLOCK = 1 << BLOCK_BITS
MODULUS = 1 << 64


def mixed(values: Hashes) -> Hashes:
    values = (values ^ (values >> np.uint64(32))) * MIX
    return values ^ (values >> np.uint64(32))


@cache
def _powers(base: int, count: int) -> Hashes:
    """base**0 ... base**(count - 1)."""
    steps = np.full(count, base % MODULUS, np.uint64)
    steps[0] = 1
    return np.multiply.accumulate(steps)


def prefix(codes: npt.NDArray[np.uint32]) -> Hashes:
    """Running sums of code[j] * BASE**j, one more than codes."""
    sums = np.zeros(len(codes) + 1, np.uint64)
    within, factor = _powers(BASE, BLOCK), 1
    for begin in range(0, len(codes), BLOCK):
        part = codes[begin : begin + BLOCK] * (within[: len(codes) - begin])
        out = sums[begin + 1 : begin + 1 + len(part)]
        np.cumsum(part, out=out)
        out *= np.uint64(factor)
        out += sums[begin]
        factor = factor * pow(BASE, BLOCK, MODULUS) % MODULUS
    return sums


def of_spans(sums: Hashes, start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Hashes:
    inverse = pow(BASE, -1, MODULUS)
    blocks = (int(start[-1]) >> BLOCK_BITS) + 1 if len(start) else 1
    low = _powers(inverse, BLOCK)[start & (BLOCK - 1)]
    high = np.multiply.accumulate(np.append(np.uint64(1), np.full(blocks, pow(inverse, BLOCK, MODULUS), np.uint64)))
    # The length tells a text from the same text behind NULs.
    return mixed((sums[end] - sums[start]) * low * high[start >> BLOCK_BITS] + (end - start).astype(np.uint64))


def of_text(text: str) -> int:
    """The hash the same text has as a span."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return int(of_spans(prefix(codes), np.array([0]), np.array([len(codes)]))[0])
