"""In which order rows are read: a function of the position, never of history.

`row(i) = f(shares, seed, i)`. Positions are cut into blocks; within each block every source has its exact
number of rows, shuffled; within each epoch of a source every row comes once, shuffled anew. Any position
is found in O(1), so that resume, branches and elastic restarts are the same question asked again.
"""

import math
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError

Positions = NDArray[np.int64]
ROUNDS = 6  # a Feistel network needs four to look random; two more cost nothing here


@dataclass(frozen=True)
class Place:
    """Where a batch of positions lies. All arrays have the shape of the positions asked for."""

    source: NDArray[np.int64]  # index into Order.names
    row: NDArray[np.int64]  # row within that source
    epoch: NDArray[np.int64]  # how many times that source was read to its end before


class Order:
    """The order in which a mixture is read.

    shares      source -> share of tokens, 0 < share <= 1, summing to 1; a source without rows left out
    rows        source -> rows there are
    limits      source -> rows to use of them (a fixed, seeded subset); None: all
    block_rows  rows over which the shares hold exactly
    """

    def __init__(
        self,
        shares: dict[str, float],
        rows: dict[str, int],
        *,
        block_rows: int,
        seed: int,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.names = tuple(sorted(shares))
        counts = apportion(shares, block_rows)
        self.counts = np.array([counts[name] for name in self.names], np.int64)
        self.first_slot = np.concatenate([[0], np.cumsum(self.counts)])
        self.block_rows = block_rows
        self.seed = seed
        self.rows = np.array([rows[name] for name in self.names], np.int64)
        if empty := [name for name in self.names if rows[name] < 1]:
            raise ConfigError(f"no rows to read in {', '.join(empty)}; prepare it first or leave it out of the mixture")
        self.used = np.array([min((limits or {}).get(name, rows[name]), rows[name]) for name in self.names], np.int64)
        if starved := [name for name, n in zip(self.names, self.used, strict=True) if n < 1]:
            raise ConfigError(f"a limit leaves no row of {', '.join(starved)}; allow at least 1")

    def locate(self, positions: Positions) -> Place:
        """Source and row at each position (any non-negative integers, in any order)."""
        positions = np.asarray(positions, np.int64)
        block, offset = np.divmod(positions, self.block_rows)
        slot = np.empty_like(positions)
        for b in np.unique(block):
            here = block == b
            slot[here] = permute(offset[here], self.block_rows, key(self.seed, "block", int(b)))
        source = np.searchsorted(self.first_slot, slot, side="right") - 1
        nth = block * self.counts[source] + slot - self.first_slot[source]
        epoch, within = np.divmod(nth, self.used[source])
        row = np.empty_like(positions)
        for s, e in {(int(s), int(e)) for s, e in zip(source, epoch, strict=True)}:
            here = (source == s) & (epoch == e)
            shuffled = permute(within[here], int(self.used[s]), key(self.seed, self.names[s], "epoch", e))
            # The subset in use is the head of one fixed permutation: limits are nested, never disjoint.
            row[here] = permute(shuffled, int(self.rows[s]), key(self.seed, self.names[s], "pool"))
        return Place(source, row, epoch)


def apportion(shares: dict[str, float], rows: int) -> dict[str, int]:
    """Rows per source in a block of `rows`, by largest remainder; ties go to the first name.

    Raises ConfigError where the shares are no shares or a source would get no row.
    """
    if bad := {name: share for name, share in shares.items() if not 0 < share <= 1}:
        raise ConfigError(f"shares must lie in (0, 1]; found {bad}; leave a source out rather than give it 0")
    total = math.fsum(shares.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ConfigError(f"shares sum to {total:.4f}, not 1; nothing is rescaled for you (found {shares})")
    exact = {name: share * rows for name, share in shares.items()}
    # 0.29 * 100 is 28.999999999999996 in binary; a share meant to be whole rows must be whole rows.
    counts = {name: math.floor(x + 1e-9) for name, x in exact.items()}
    short = rows - sum(counts.values())
    for name in sorted(exact, key=lambda name: (counts[name] - exact[name], name))[:short]:
        counts[name] += 1
    if starved := sorted(name for name, count in counts.items() if count == 0):
        raise ConfigError(f"a block of {rows} rows gives {', '.join(starved)} no row; raise block_rows or its share")
    return counts


def key(*parts: int | str) -> NDArray[np.uint64]:
    """Round keys, shape (ROUNDS,), the same on every machine and for good."""
    digest = blake2b(repr(parts).encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, "<u8")


def permute(x: Positions, n: int, keys: NDArray[np.uint64]) -> Positions:
    """Each x in [0, n) to its place in a keyed permutation of [0, n).

    A balanced Feistel network over the next even power of two; results outside [0, n) walk on along their
    cycle until they are inside. Not numpy.random: its streams may change between releases, and a checkpoint
    must find the same rows next year.
    """
    half = max(1, math.ceil(math.log2(max(n, 2)) / 2))
    mask = np.uint64((1 << half) - 1)
    bits = np.uint64(half)

    def once(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = value >> bits, value & mask
        for k in keys:
            left, right = right, left ^ (scramble(right ^ k) & mask)
        return (left << bits) | right

    out = once(np.asarray(x, np.int64).astype(np.uint64))
    while (outside := out >= n).any():
        out[outside] = once(out[outside])
    return out.astype(np.int64)


def scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every input bit moves about half of the output bits."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
