"""The best mixture by given surfaces: by proof where all are laws, by search elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratoon.laws.form import Array
from ratoon.laws.mixtures.limits import Goal, Limits
from ratoon.laws.mixtures.regressors import LawSurface, Surface
from ratoon.laws.mixtures.runs import MixtureRuns
from ratoon.laws.mixtures.search import search
from ratoon.laws.mixtures.simplex import Optimum, solve

FEWER = 4000  # mixtures simulated per draw, which also begins at the mixture chosen


@dataclass(frozen=True)
class Question:
    """What mixtures are asked to do, and the runs they are judged by."""

    runs: MixtureRuns
    goal: Goal
    limits: Limits
    seed: int

    def best(self, surfaces: Sequence[Surface], *, near: Array | None = None) -> Optimum:
        """By proof where losses are laws, by search elsewhere. `near`: begin there, and look less far."""
        laws = [one for one in surfaces if isinstance(one, LawSurface)]
        if len(laws) == len(surfaces):
            losses = np.stack([one.loss(self.runs.shares) for one in laws], axis=1)
            tried = self.runs.shares[[self.goal.value(losses, self.runs.shares).argmin()]]
            return solve(laws, self.goal, self.limits, tried if near is None else near[None])
        predict = Predict(surfaces, self.goal.matters)
        if near is None:
            return search(predict, self.goal, self.limits, self.runs.shares, seed=self.seed)
        return search(
            predict, self.goal, self.limits, self.runs.shares, seed=self.seed, simulated=FEWER, starts=near[None]
        )

    def value(self, surfaces: Sequence[Surface], shares: Array) -> float:
        losses = Predict(surfaces, self.goal.matters)(shares[None])
        return float(self.goal.value(losses, shares[None])[0])


@dataclass(frozen=True)
class Predict:
    """Losses (n, p) of mixtures (n, d); 0 for those that do not matter."""

    surfaces: Sequence[Surface]
    matters: Array

    def __call__(self, shares: Array) -> Array:
        found = np.zeros((len(shares), len(self.surfaces)))
        for column in np.flatnonzero(self.matters).tolist():
            found[:, column] = self.surfaces[column].loss(shares)
        return found
