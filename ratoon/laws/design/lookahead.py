"""What several runs together would tell of the decision, to first order: its covariance with all that can be measured.

Each of these runs taken in thought conditions it, so that what the next one adds is seen: less where it says the same,
more where two help only together.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ratoon.laws.form import Array, Mask

Counts = NDArray[np.int64]

LOOKED_AT = 6  # of the best to first order: drawn and decided again
STILL = 1e-12  # variance that is rounding
DULL = 0.1  # log variance, 5% of the width: runs that together take less off it are not worth their slots
TELLS = 1e-3  # log variance that is no rounding of the draws
PLANNED = 12  # of the best to first order: followed in thought by what would best follow
AHEAD = 4  # runs judged together
BULK = 2.0  # deviations from the middle beyond which a draw counts no more than one that far
DEVIATION = 1.4826  # of a normal, in median absolute deviations


@dataclass(frozen=True)
class Joint:
    """Covariance of what decides r*, of r* itself and of everything that could be measured, as it stands in thought.

    drawn   (J, Q) what each law expects of all measurements
    turns   number of values that decide: they come first, r* after them
    spans   of each option, in the covariance
    places  (size, share) of each: two options of one place are not both made
    alike   options of as many measurements, and where these are: their gains are taken at once
    """

    drawn: Array
    turns: int
    covariance: Array
    spans: tuple[slice, ...]
    noises: tuple[Array, ...]
    places: Sequence[tuple[float, float]]
    flops: Sequence[float]
    alike: tuple[tuple[Counts, Counts, Array], ...]
    left: Mask

    @classmethod
    def of(
        cls,
        turns: Array,
        best: Array,
        measured: Sequence[tuple[Array, Array]],
        places: Sequence[tuple[float, float]],
        flops: Sequence[float],
    ) -> "Joint":
        values, noises = zip(*measured, strict=True)
        ends = turns.shape[1] + 1 + np.cumsum([0] + [one.shape[1] for one in values])
        spans = tuple(slice(start, end) for start, end in itertools.pairwise(ends))
        drawn = np.concatenate(values, axis=1)
        covariance = np.cov(np.concatenate([turns, best[:, None], drawn], axis=1).T, aweights=_counts(turns))
        number, alike = np.diff(ends), list[tuple[Counts, Counts, Array]]()
        for q in np.unique(number):
            which = np.flatnonzero(number == q)
            at = ends[which][:, None] + np.arange(q)
            alike.append((which, at, np.stack([noises[k] for k in which])))
        return cls(
            drawn,
            turns.shape[1],
            covariance,
            spans,
            noises,
            places,
            flops,
            tuple(alike),
            np.ones(len(flops), dtype=bool),
        )

    @property
    def variance(self) -> float:
        """V, of what decides r*, summed over where r* may be."""
        return float(np.trace(self.covariance[: self.turns, : self.turns]))

    def said(self, made: Sequence[int]) -> tuple[Array, float]:
        """(J,) what each law expects these options together to say of r*, and the noise of that."""
        at = np.concatenate([np.arange(self.spans[k].start, self.spans[k].stop) for k in made])
        luck = block_diag(*(self.noises[k] for k in made))
        pull = np.linalg.solve(self.covariance[np.ix_(at, at)] + luck, self.covariance[at, self.turns])
        return self.drawn[:, at - self.turns - 1] @ pull, float(np.sqrt(pull @ luck @ pull))

    def gains(self) -> Array:
        """(options,) log(V / V after)."""
        taken = np.zeros(len(self.spans))
        for which, at, noise in self.alike:
            pulled = self.covariance[at, : self.turns]
            system = self.covariance[at[:, :, None], at[:, None, :]] + noise
            taken[which] = (pulled * np.linalg.solve(system, pulled)).sum(axis=(1, 2))
        return np.where(self.left, -np.log(np.maximum(1 - taken / max(self.variance, 1e-300), 1e-9)), 0.0)

    def ranked(self, budget: float | None) -> list[tuple[float, int]]:
        """Gain and number of the options that tell something and can be paid, the best per FLOP first."""
        if min(self.variance, self.covariance[self.turns, self.turns]) < STILL:
            return []
        found = [
            (float(gain), k)
            for k, gain in enumerate(self.gains())
            if gain > TELLS and (budget is None or self.flops[k] <= budget)
        ]
        return sorted(found, key=lambda pair: (-pair[0] / self.flops[pair[1]], pair[1]))

    def candidates(self) -> list[int]:
        """Without a budget, runs that tell enough alone to be the next, the best first."""
        return _foremost([pair for pair in self.ranked(None) if pair[0] > DULL], LOOKED_AT)

    def plans(self, budget: float | None) -> list[list[int]]:
        """Runs that would best be made together, the best plan first."""
        ranked = self.ranked(budget)
        plans = [self.plan(k, budget, costly) for k in _foremost(ranked, PLANNED) for costly in (False, True)]
        alone = {k: gain for gain, k in ranked}
        # What tells most comes first, while it can be paid: what is learnt may change the rest of the plan.
        best_first = [plan for _, plan in sorted(plans, key=lambda one: -one[0]) if plan]
        found = [tuple(sorted(plan, key=lambda k: (-alone.get(k, 0.0), k))) for plan in best_first]
        return [list(plan) for plan in dict.fromkeys(found)]

    def after(self, k: int) -> "Joint":
        """Once option k has been measured; it and its like are gone."""
        at = self.spans[k]
        taken = self.covariance[:, at]
        rest = self.covariance - taken @ np.linalg.solve(self.covariance[at, at] + self.noises[k], taken.T)
        gone = [place == self.places[k] for place in self.places]
        return replace(self, covariance=rest, left=self.left & ~np.array(gone))

    def plan(self, k: int, budget: float | None, costly: bool) -> tuple[float, list[int]]:
        """Option k and those that would best follow it, the cheap or the costly ones first (the better of both is near
        the best of all, Leskovec et al. 2007): what they are worth, and which they are. With a budget all that it pays,
        by log(V / V after); without one as many up to AHEAD as are best per FLOP, none where even AHEAD are dull."""
        chain = self.chain(k, budget, costly)
        gains = np.array([np.log(self.variance / max(left, 1e-300)) for _, left in chain])
        made = [option for option, _ in chain]
        if budget is not None:
            return float(gains[-1]), made
        each = gains / np.cumsum([self.flops[option] for option in made])
        return (float(each.max()), made[: int(each.argmax()) + 1]) if gains[-1] > DULL else (0.0, [])

    def chain(self, k: int, budget: float | None, costly: bool = False) -> list[tuple[int, float]]:
        """Option k and what would best follow it, until the budget is spent or AHEAD are made; beside each what is
        then left of V."""
        here, found = self, list[tuple[int, float]]()
        while True:
            here, budget = here.after(k), None if budget is None else budget - self.flops[k]
            found.append((k, here.variance))
            ranked = [] if budget is None and len(found) == AHEAD else here.ranked(budget)
            if not ranked:
                return found
            k = max(ranked)[1] if costly else ranked[0][1]


def _foremost(ranked: Sequence[tuple[float, int]], number: int) -> list[int]:
    """Of options ranked per FLOP the first, and beside what is cheap what tells most: a run so small that it changes no
    decision may be best per FLOP."""
    most = sorted(ranked, key=lambda pair: (-pair[0], pair[1]))
    return list(dict.fromkeys(k for _, k in [*ranked[:number], *most[:number]]))


def _counts(turns: Array) -> Array:
    """(J,) what each draw counts in the covariance (Huber's weights). Where runs are silent laws part far: a handful of
    draws would otherwise be all that is designed for."""
    away = np.abs(turns - np.median(turns, axis=0))
    unit = DEVIATION * np.median(away, axis=0)
    far = np.sqrt(np.mean((away / np.maximum(unit, STILL)) ** 2, axis=1))
    return np.asarray(np.minimum(1.0, (BULK / np.maximum(far, STILL)) ** 2))
