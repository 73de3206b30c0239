"""In which order rows are read: a function of the position, never of history.

`row(i) = f(stages, seed, turn, i)`. Positions are cut into blocks; within each block every source has its exact
number of rows, shuffled; within each epoch of a source every row comes once, shuffled anew. Any position
is found in O(1), so that resume, branches and elastic restarts are the same question asked again.

Shares may change where a block begins. What a source gave before is carried over, so that no row is replayed and
none is skipped, and a change to the same shares is no change.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError
from ratoon.stream.course import Course
from ratoon.stream.permutation import Positions, key, keys_of, permute


@dataclass(frozen=True)
class Place:
    """Where a batch of positions lies. All arrays have the shape of the positions asked for."""

    source: NDArray[np.int64]  # index into Order.names
    row: NDArray[np.int64]  # row within that source
    epoch: NDArray[np.int64]  # how many times that source was read to its end before


class Stage(NamedTuple):
    """Other shares, from the beginning of a block on."""

    block: int
    shares: Mapping[str, float]


class Order:
    """The order in which a mixture is read.

    shares      source -> share of tokens, 0 < share <= 1, summing to 1; a source without rows left out
    rows        source -> rows there are, of every source of any stage
    limits      source -> rows to use of them (a fixed, seeded subset); None: all
    block_rows  rows over which the shares hold exactly
    turn        whose reading it is: another one reads the same rows in an order of its own; None: the first
    later       further stages, by their blocks
    courses     source -> how its epochs go through its rows; without one, in uniform order
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        rows: Mapping[str, int],
        *,
        block_rows: int,
        seed: int,
        limits: Mapping[str, int] | None = None,
        turn: int | None = None,
        later: Sequence[Stage] = (),
        courses: Mapping[str, Course] | None = None,
    ) -> None:
        stages = (Stage(0, shares), *later)
        self.names = tuple(sorted({name for stage in stages for name in stage.shares}))
        self.block_rows = block_rows
        self.seed = seed
        self.turn = (seed,) if turn is None else (seed, turn)
        self.courses = dict(courses or {})
        self.on_course = [number for number, name in enumerate(self.names) if name in self.courses]
        self._lay_out(stages)
        self.rows = np.array([rows[name] for name in self.names], np.int64)
        if empty := [name for name in self.names if rows[name] < 1]:
            raise ConfigError(f"no rows to read in {', '.join(empty)}; prepare it first or leave it out of the mixture")
        self.used = np.array([min((limits or {}).get(name, rows[name]), rows[name]) for name in self.names], np.int64)
        if starved := [name for name, n in zip(self.names, self.used, strict=True) if n < 1]:
            raise ConfigError(f"a limit leaves no row of {', '.join(starved)}; allow at least 1")

    def _lay_out(self, stages: Sequence[Stage]) -> None:
        """Per stage: its first block, rows of each source in a block and before the stage, first slot of each."""
        counts = [apportion(stage.shares, self.block_rows) for stage in stages]
        self.first_block = np.array([stage.block for stage in stages], np.int64)
        lengths = np.diff(self.first_block)
        assert (lengths > 0).all(), f"stages out of order: {stages}"
        self.counts = np.array([[each.get(name, 0) for name in self.names] for each in counts], np.int64)
        self.before = np.zeros_like(self.counts)
        self.before[1:] = np.cumsum(self.counts[:-1] * lengths[:, None], axis=0)
        self.first_slot = np.zeros((len(stages), len(self.names) + 1), np.int64)
        self.first_slot[:, 1:] = np.cumsum(self.counts, axis=1)

    def locate(self, positions: Positions) -> Place:
        """Source and row at each position (any non-negative integers, in any order)."""
        source, nth = self._count(np.asarray(positions, np.int64))
        epoch, within = np.divmod(nth, self.used[source])
        row = np.empty_like(nth)
        for number in np.unique(source).tolist():
            here = source == number
            row[here] = self._rows(number, epoch[here], within[here])
        return Place(source, row, epoch)

    def read_before(self, position: int) -> Positions:
        """Rows of each source at the positions before `position`."""
        block, offset = divmod(position, self.block_rows)
        stage = int(self._stage(np.array(block)))
        whole = self.before[stage] + (block - self.first_block[stage]) * self.counts[stage]
        source, _ = self._count(np.arange(position - offset, position))
        return np.asarray(whole + np.bincount(source, minlength=len(self.names)), np.int64)

    def _stage(self, block: Positions) -> Positions:
        return np.searchsorted(self.first_block, block, side="right") - 1

    def _count(self, positions: Positions) -> tuple[Positions, Positions]:
        """(source at each position, rows of it before that position)."""
        block, offset = np.divmod(positions, self.block_rows)
        stage = self._stage(block)
        slot = permute(offset, self.block_rows, keys_of(block, *self.turn, "block"))
        source = (self.first_slot[stage, 1:] <= slot[:, None]).sum(axis=1)
        within = slot - self.first_slot[stage, source]
        for number in self.on_course:
            mine = source == number
            within[mine] = self._in_turn(number, block[mine], offset[mine])
        before = self.before[stage, source] + (block - self.first_block[stage]) * self.counts[stage, source]
        return source, before + within

    def _in_turn(self, number: int, block: Positions, offset: Positions) -> Positions:
        """Rows of a source before its places in their blocks. Slots are dealt by lot; a source that is read in order of
        a score is read in that order within a block too."""
        blocks, which = np.unique(block, return_inverse=True)
        every = np.tile(np.arange(self.block_rows), len(blocks))
        keys = keys_of(np.repeat(blocks, self.block_rows), *self.turn, "block")
        slots = permute(every, self.block_rows, keys).reshape(len(blocks), self.block_rows)
        first, end = (self.first_slot[self._stage(blocks), n][:, None] for n in (number, number + 1))
        mine = (first <= slots) & (slots < end)
        return np.asarray((np.cumsum(mine, axis=1) - mine)[which, offset], np.int64)

    def _rows(self, source: int, epoch: Positions, within: Positions) -> Positions:
        rows = self.uniform(source, epoch, within)
        if course := self.courses.get(self.names[source]):
            for number in np.unique(epoch).tolist():
                here = epoch == number
                rows[here] = course.rows_at(number, within[here], rows[here])
        return rows

    def uniform(self, source: int, epoch: Positions, within: Positions) -> Positions:
        """Rows of a source at these places of its epochs, in uniform order."""
        name = self.names[source]
        shuffled = permute(within, int(self.used[source]), keys_of(epoch, *self.turn, name, "epoch"))
        # The subset in use is the head of one fixed permutation: limits are nested, never disjoint, whoever reads.
        return permute(shuffled, int(self.rows[source]), key(self.seed, name, "pool"))


def apportion(shares: Mapping[str, float], rows: int) -> dict[str, int]:
    """Rows per source in a block of `rows`, by largest remainder; ties go to the first name.

    Raises ConfigError where the shares are no shares or a source would get no row.
    """
    if bad := {name: share for name, share in shares.items() if not 0 < share <= 1}:
        raise ConfigError(f"shares must lie in (0, 1]; found {bad}; leave a source out rather than give it 0")
    total = math.fsum(shares.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ConfigError(f"shares sum to {total:.4f}, not 1; nothing is rescaled for you (found {dict(shares)})")
    exact = {name: share * rows for name, share in shares.items()}
    # 0.29 * 100 is 28.999999999999996 in binary; a share meant to be whole rows must be whole rows.
    counts = {name: math.floor(x + 1e-9) for name, x in exact.items()}
    short = rows - sum(counts.values())
    for name in sorted(exact, key=lambda name: (counts[name] - exact[name], name))[:short]:
        counts[name] += 1
    if starved := sorted(name for name, count in counts.items() if count == 0):
        raise ConfigError(f"a block of {rows} rows gives {', '.join(starved)} no row; raise block_rows or its share")
    return counts
