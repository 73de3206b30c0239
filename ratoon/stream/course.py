"""How epochs of a source go through its rows where they are in order of a score.

A walk gives the rank at each place of an epoch, or None for an epoch that is left in uniform order. Whatever the walk,
every row comes once per epoch, and any place is found at once: nothing is kept but the ranked rows, and those may be
memory-mapped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.config import Curriculum
from ratoon.stream.permutation import Positions, key, permute, scramble

Walk = Callable[[int, Positions], Positions | None]  # (epoch, places in it) -> ranks
LEVELS = 64  # steps in which a paced pool grows


class Course(NamedTuple):
    """Rows of a source in order of score, and how its epochs walk through them.

    ranked  rows, first in order first: all that are in use, or of the first epoch as many as the run reads of them
    """

    ranked: NDArray[Any]
    walk: Walk

    def rows_at(self, epoch: int, within: Positions, uniform: Positions) -> Positions:
        """Rows at these places of an epoch, where those of the uniform order are given."""
        ranked = within < len(self.ranked)
        ranks = self.walk(epoch, within[ranked])
        if ranks is None:
            return uniform
        found = uniform.copy()
        found[ranked] = self.ranked[ranks]
        return found


def rank(scores: NDArray[np.float64], pool: Positions, *, descending: bool) -> Positions:
    """The rows of `pool` in order of their scores: ties as they stand in the pool, those without a score last."""
    mine = scores[pool]
    return pool[np.argsort(-mine if descending else mine, kind="stable")]


def walk_of(asked: Curriculum, used: int, finished: int, head: int, seed: int, name: str) -> Walk:
    """The walk of a source through `used` rows.

    finished  epochs that are read to the end of these rows; one that is not keeps the uniform order: its first part in
              order of score would be a choice of rows, not an order
    head      rows of the source in the run's warm-up
    """
    if asked.order == "interleaved":
        assert asked.passes is not None
        return Interleaved(used, asked.passes, finished, seed, name)
    if asked.order == "warmup":
        return Warmup(used, head, finished, seed, name)
    if asked.order == "paced":
        assert asked.start is not None
        assert asked.full is not None
        return Paced(used, asked.pace == "linear", asked.start, asked.full, seed, name)
    return Vanilla(finished)


@dataclass(frozen=True)
class Vanilla:
    """Sorted, every epoch alike."""

    finished: int

    def __call__(self, epoch: int, within: Positions) -> Positions | None:
        return within if epoch < self.finished else None


@dataclass(frozen=True)
class Interleaved:
    """Sorted in each of `passes` passes, which divide every `passes` neighbours in rank among them by lot."""

    used: int
    passes: int
    finished: int
    seed: int
    name: str

    def __call__(self, epoch: int, within: Positions) -> Positions | None:
        if epoch >= self.finished:
            return None
        group, rest = divmod(self.used, self.passes)  # the last `rest` ranks go to the first `rest` passes
        longer = rest * (group + 1)
        late = within >= longer
        number = np.where(late, rest + (within - longer) // max(group, 1), within // (group + 1))
        place = np.where(late, (within - longer) % max(group, 1), within % (group + 1))
        lot = scramble(place.astype(np.uint64) ^ key(self.seed, self.name, "passes", epoch)[0])
        turned = (number + (lot % np.uint64(self.passes)).astype(np.int64)) % self.passes
        return place * self.passes + np.where(place == group, number, turned)


@dataclass(frozen=True)
class Warmup:
    """The first `head` rows of the run sorted, from the first rank on; the rest of their epoch by lot."""

    used: int
    head: int
    finished: int
    seed: int
    name: str

    def __call__(self, epoch: int, within: Positions) -> Positions | None:
        head = min(self.head - epoch * self.used, self.used)
        if epoch >= self.finished or head < 1:
            return None
        ranks = within.copy()
        later = within >= head
        keys = key(self.seed, self.name, "after warm-up", epoch)
        ranks[later] = head + permute(within[later] - head, self.used - head, keys)
        return ranks


class Paced:
    """From a pool that grows along the ranks: in LEVELS steps, each of which reads evenly what is unread in the pool.

    The pool holds c(t) of the rows at t, the part of the epoch's first `full` that is over (arXiv:1903.09848):

        linear  c(t) = start + (1 - start) t          sqrt  c(t) = sqrt(start^2 + (1 - start^2) t)

    and never less than the level reads. After the first epoch, and with start 1 in it too, the order is uniform.
    """

    def __init__(self, used: int, linear: bool, start: float, full: float, seed: int, name: str) -> None:
        self.used, self.linear, self.start, self.full = used, linear, start, full
        self.seed, self.name = seed, name

    def share(self, t: float) -> float:
        if self.linear:
            return self.start + (1 - self.start) * t
        return math.sqrt(self.start**2 + (1 - self.start**2) * t)

    @cached_property
    def ends(self) -> Positions:
        """(LEVELS + 1,): rows read by the end of each level; the last reads what the complete pool still has."""
        until = math.ceil(self.full * self.used)
        return np.array([*(until * (n + 1) // LEVELS for n in range(LEVELS)), self.used], np.int64)

    @cached_property
    def pools(self) -> Positions:
        """(LEVELS + 1,): ranks in the pool of each level."""
        allowed = [math.ceil(self.used * self.share(n / LEVELS)) for n in range(LEVELS)]
        return np.maximum.accumulate(np.maximum(np.array([*allowed, self.used], np.int64), self.ends))

    @cached_property
    def taken(self) -> Positions:
        """(LEVELS + 1, LEVELS + 1): rows that each level (axis 0) reads of those that came with each (axis 1)."""
        left = np.diff(self.pools, prepend=0).tolist()
        found = []
        for level, count in enumerate(np.diff(self.ends, prepend=0).tolist()):
            there = left[: level + 1]
            # By largest remainder, in whole numbers: a float would lose rows of a large source.
            taken = [n * count // max(sum(there), 1) for n in there]
            rest = [n * count % max(sum(there), 1) for n in there]
            for n in np.argsort([-r for r in rest], kind="stable")[: count - sum(taken)]:
                taken[n] += 1
            left[: level + 1] = [n - took for n, took in zip(there, taken, strict=True)]
            found.append([*taken, *[0] * (LEVELS - level)])
        assert not any(left), "a level read more, or less, than the pool has"
        return np.array(found, np.int64)

    def __call__(self, epoch: int, within: Positions) -> Positions | None:
        if epoch or self.start == 1:
            return None
        ranks = np.empty_like(within)
        level = np.searchsorted(self.ends, within, side="right")
        for one in np.unique(level):
            here = level == one
            ranks[here] = self._level(int(one), within[here])
        return ranks

    def _level(self, level: int, within: Positions) -> Positions:
        begin = int(self.ends[level - 1]) if level else 0
        place = permute(within - begin, int(self.ends[level]) - begin, key(self.seed, self.name, "level", level))
        until = np.cumsum(self.taken[level])
        came = np.searchsorted(until, place, side="right")
        nth = self.taken[:level].sum(axis=0)[came] + place - (until - self.taken[level])[came]
        first, ranks = np.concatenate([[0], self.pools]), np.empty_like(within)
        for one in np.unique(came):
            here = came == one
            size = int(first[one + 1] - first[one])
            ranks[here] = first[one] + permute(nth[here], size, key(self.seed, self.name, "came", int(one)))
        return ranks
