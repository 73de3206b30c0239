"""Which observation belongs to which run, and in what order: what luck is shared by, and what noise remembers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratoon.laws.form import Array, Inputs, Mask

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Lanes:
    """A lane is a group of observations that share a trunk."""

    member: Places  # (n,) 0..G-1
    before: Places  # (n,) index of the checkpoint before, -1 for the first
    rank: Places  # (n,) place in the lane

    @classmethod
    def of(cls, groups: Sequence[str], inputs: Inputs) -> "Lanes":
        """Checkpoints of a group are ordered by tokens where there are any, else as they come."""
        _, member = np.unique(np.asarray(groups), return_inverse=True)
        member = member.ravel()
        progress = inputs["D"] if "D" in inputs else np.arange(len(member))
        order = np.lexsort((progress, member))
        first = np.diff(member[order], prepend=-1) > 0
        before, rank = np.full(len(member), -1), np.empty(len(member), dtype=np.intp)
        before[order[1:]] = np.where(first[1:], -1, order[:-1])
        rank[order] = np.arange(len(member)) - np.maximum.accumulate(np.where(first, np.arange(len(member)), 0))
        return cls(member, before, rank)

    def __len__(self) -> int:
        return len(self.member)

    @property
    def number(self) -> int:
        return int(self.member.max(initial=-1)) + 1

    @property
    def checkpoints(self) -> float:
        """Per lane, on average."""
        return len(self) / max(self.number, 1)

    @property
    def indicator(self) -> Array:
        """(n, G)."""
        return np.asarray(np.eye(self.number)[self.member])

    def where(self, mask: Mask) -> "Lanes":
        kept = [str(lane) for lane in self.member[mask]]
        return Lanes.of(kept, {"D": self.rank[mask].astype(float)})

    def forget(self, memory: Array, values: Array) -> Array:
        """(R, n): what is new in each checkpoint, where neighbours correlate by `memory` (R,)."""
        first = self.before < 0
        past = np.where(first, 0.0, values[:, self.before])
        memory = np.where(first, 0.0, memory[:, None])
        return np.asarray((values - memory * past) / np.sqrt(1 - memory**2))

    def remember(self, memory: Array, values: Array) -> Array:
        """(R, n): noise of variance one whose neighbours correlate, from noise whose do not."""
        found, memory = values.copy(), memory[:, None]
        for place in range(1, int(self.rank.max(initial=0)) + 1):
            at = np.flatnonzero(self.rank == place)
            found[:, at] = memory * found[:, self.before[at]] + np.sqrt(1 - memory**2) * values[:, at]
        return found
