"""What predicts one loss from a mixture: laws through the engine, a Gaussian process, trees, and their sum.

Every regressor answers the same three questions: `assess` fits all runs and predicts each fold without having seen
it; `redraw` refits under other weights of the runs, for the bootstrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from ratoon.config import ConfigError
from ratoon.laws.equations import additive, loglinear
from ratoon.laws.equations.additive import Additive
from ratoon.laws.fitting import varpro
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.fitting.folds import Fold
from ratoon.laws.fitting.objective import Objective
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.fitting.search import masks, problem
from ratoon.laws.form import Array, Exponent, Form, Law, Mask
from ratoon.laws.mixtures import gaussian

# Olmix fits mixture laws so (arXiv:2602.12237): proxies far out in a corner must not bend the law for all.
OBJECTIVE = Objective("raw", 0.02)
UNIT = 1e9  # stands for the one size and length of all runs
LEAST = 1e-9  # a share of zero, where a law's slope by it is infinite
NUDGE = 1e-4  # of a central difference, relative to the share
ITERATIONS = 12  # of a refit under other weights, from the optimum of all runs

# Small trees, slowly: RegMix boosts 1000 rounds at 0.01 (arXiv:2407.01492); 300 at 0.03 to 0.1 do as well.
ROUNDS, RATE, LEAVES, LEAF = 300, 0.05, 8, 5


class Surface(Protocol):
    """A fitted regressor: shares (n, d) -> nats per token (n,)."""

    def loss(self, shares: Array) -> Array: ...


class Regressor(Protocol):
    @property
    def name(self) -> str: ...

    def assess(self, shares: Array, loss: Array, folds: Sequence[Mask]) -> tuple[Surface, list[Array]]:
        """Fitted on all; and for each fold (True: kept) what a fit without the others predicts for them."""
        ...

    def redraw(self, surface: Any, shares: Array, loss: Array, weights: Array) -> list[Surface]:
        """One refit for each row of `weights` (R, n)."""
        ...


@dataclass(frozen=True)
class LawSurface:
    """A law of mixtures at the size and length of the runs."""

    law: Law
    inputs: tuple[str, ...]
    evidence: Fit | None = None  # None: a refit of the bootstrap

    @property
    def convex(self) -> bool:
        """c + k exp(t.h) always is; 1/sum C h^g is one over a positive concave function where no g is above 1."""
        if isinstance(self.law, Additive):
            return all(g <= 1 for C, g in zip(self.law.C, self.law.g, strict=True) if C > 0)
        return isinstance(self.law, loglinear.LogLinear)

    def loss(self, shares: Array) -> Array:
        place = {"h": np.maximum(np.atleast_2d(shares), LEAST), "N": UNIT, "D": UNIT}
        return np.atleast_1d(self.law.loss(*(place[name] for name in self.inputs)))

    def gradient(self, shares: Array) -> Array:
        """(d,) at one mixture."""
        if isinstance(self.law, loglinear.LogLinear):
            return self.law.gradient(shares)
        at = np.maximum(shares, LEAST)
        step = NUDGE * at
        above, below = self.loss(at + np.diag(step)), self.loss(at - np.diag(step))
        return np.asarray((above - below) / (2 * step))


@dataclass(frozen=True)
class LawRegressor:
    form: Form

    @property
    def name(self) -> str:
        return self.form.name

    def assess(self, shares: Array, loss: Array, folds: Sequence[Mask]) -> tuple[LawSurface, list[Array]]:
        named = [Fold(str(number), keep) for number, keep in enumerate(folds)]
        found = fit(self.form, self._inputs(shares), loss, folds=named, hold_out=bool(named), objective=OBJECTIVE)
        errors = {split.name: split.errors for split in found.held_out}
        if missing := [fold.name for fold in named if fold.name not in errors]:
            raise ConfigError(f"{self.name}: folds {missing} leave too few runs for its {found.num_free} parameters")
        unseen = [loss[~fold.keep] * (1 + errors[fold.name]) for fold in named]
        return LawSurface(found.law, self.form.inputs, found), unseen

    def redraw(self, surface: LawSurface, shares: Array, loss: Array, weights: Array) -> list[Surface]:
        found = surface.evidence
        assert found is not None
        posed = problem(self.form, Runs.gather(self._inputs(shares), loss), found.frame, OBJECTIVE)
        free, present = (np.tile(mask, (len(weights), 1)) for mask in masks(self.form, found.settled))
        start = np.tile(found.theta, (len(weights), 1))
        drawn = varpro.descend(posed, start, weights, free, present, iterations=ITERATIONS)
        laws = [self.form.build(*each, found.frame) for each in zip(drawn.theta, drawn.coefficients, strict=True)]
        return [LawSurface(law, self.form.inputs) for law in laws]

    def _inputs(self, shares: Array) -> dict[str, Array]:
        constant = np.full(len(shares), UNIT)
        return {name: shares if name == "h" else constant for name in self.form.inputs}


@dataclass(frozen=True)
class Gaussian:
    name: str = "gaussian"

    def assess(self, shares: Array, loss: Array, folds: Sequence[Mask]) -> tuple[gaussian.GaussianProcess, list[Array]]:
        unseen = [gaussian.fit(shares[keep], loss[keep]).loss(shares[~keep]) for keep in folds]
        return gaussian.fit(shares, loss), unseen

    def redraw(self, surface: gaussian.GaussianProcess, shares: Array, loss: Array, weights: Array) -> list[Surface]:
        """The lengths stay: what moves is the runs."""
        return [gaussian.condition(surface.hyper, shares, loss, weight) for weight in weights]


@dataclass(frozen=True)
class Forest:
    model: HistGradientBoostingRegressor

    def loss(self, shares: Array) -> Array:
        return np.asarray(self.model.predict(np.atleast_2d(shares)), dtype=float)


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted trees: no idea of what loss is like, so they need many runs and stay within them."""

    name: str = "trees"

    def assess(self, shares: Array, loss: Array, folds: Sequence[Mask]) -> tuple[Forest, list[Array]]:
        unseen = [_grow(shares[keep], loss[keep], None).loss(shares[~keep]) for keep in folds]
        return _grow(shares, loss, None), unseen

    def redraw(self, surface: Forest, shares: Array, loss: Array, weights: Array) -> list[Surface]:
        return [_grow(shares[weight > 0], loss[weight > 0], weight[weight > 0]) for weight in weights]


def _grow(shares: Array, loss: Array, weight: Array | None) -> Forest:
    model = HistGradientBoostingRegressor(
        learning_rate=RATE,
        max_iter=ROUNDS,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAF,
        early_stopping=False,
        random_state=0,
    )
    return Forest(model.fit(shares, loss, sample_weight=weight))


@dataclass(frozen=True)
class Sum:
    """Several surfaces, each with its weight."""

    parts: tuple[tuple[float, Surface], ...] = field(default_factory=tuple)

    def loss(self, shares: Array) -> Array:
        return np.asarray(sum(weight * part.loss(shares) for weight, part in self.parts))


def diminishing(domains: tuple[str, ...]) -> Form:
    """The additive law with every g at most 1: each share has diminishing returns, so that loss is convex, and a
    domain that no run had much of is not taken for a wonder (g of 2 and 3 fit runs as well and do just that)."""
    form = additive.form(domains)
    powers = {name: Exponent(at.low, 1.0) if name.startswith("g_") else at for name, at in form.exponents.items()}
    return replace(form, exponents=powers)


def regressors(domains: tuple[str, ...]) -> tuple[Regressor, ...]:
    """From the most to the least that is assumed of a loss: the order in which near ties are broken."""
    laws = (loglinear.form(domains), diminishing(domains))
    return (*(LawRegressor(form) for form in laws), Gaussian(), Trees())
