"""What few runs say of a law, with a weak prior where they are silent: draws of laws of several forms.

    y = X(theta) c + departure + luck of the trunk + noise,    c, noise, theta and the departure's level unknown

Where runs are too few to pin a law, resampling them says nothing of what they do not pin; here exponents keep the
whole of their declared range until runs narrow it. Exponents and the noise are moved by sequential Monte Carlo
(tempered from the prior to the posterior; Del Moral et al. 2006); coefficients, linear and of fixed sign, are
integrated out, and so is what the truth has that the form has not (departure.py). The evidence that falls out weighs
the forms against each other.

Noise is Gaussian and relative. It does not know of outliers: for choosing runs, not for reporting a fit.
Axes: J draws, n observations, m coefficients, k exponents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import qmc, truncnorm

from ratoon.laws.decision.believe import portions
from ratoon.laws.design.departure import Departure
from ratoon.laws.design.posed import REACH, STILLEST, Posed, draw_away, pose
from ratoon.laws.design.rows import Rows, correlation
from ratoon.laws.form import Array, Form, Inputs

DRAWS = 384  # per form: the spread of a decision to 4%
MOVES = 8  # of each draw at each temperature; with half as many a departure stands in for exponents not yet found
LAST_MOVES = 24
KEPT = 0.5  # of the draws that must still count after a step in temperature
FAINT = 0.005  # of belief, below which a form gets no draws


@dataclass(frozen=True)
class Part:
    """The draws of one form."""

    form: Form
    frame: Any
    theta: Array  # (J, k)
    coefficients: Array  # (J, m)
    noise: Array  # (J,), relative
    departure: Departure
    away: Array  # (J, k), nats: weights of its basis
    params: float | None  # the one size it speaks for; None: any

    def loss(self, inputs: Inputs) -> Array:
        """(J, n) nats per token."""
        columns = self.form.columns(self.theta, inputs, self.frame)
        formed = np.matmul(columns, self.coefficients[..., None])[..., 0]
        return np.asarray(formed + self.away @ self.departure.columns(inputs).T)


@dataclass(frozen=True)
class Posterior:
    """J laws, each as likely as the others; J is DRAWS, shared out by evidence."""

    parts: tuple[Part, ...]
    weights: dict[str, float]  # form -> share of belief

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        """(J, n) nats per token; r is the evaluated corpus's own share."""
        N, D, r = (np.atleast_1d(np.asarray(x, dtype=float)) for x in np.broadcast_arrays(N, D, r))
        return np.concatenate([part.loss({"N": N, "D": D, "r": r}) for part in self.parts])

    @property
    def noises(self) -> Array:
        """(J,) relative, of one observation."""
        return np.concatenate([part.noise for part in self.parts])

    @property
    def noise(self) -> float:
        return float(np.exp(np.mean(np.log(self.noises))))

    @property
    def departing(self) -> float:
        """Share of belief in a truth that has something beside its form."""
        return float(np.mean(np.concatenate([part.away.any(axis=1) for part in self.parts])))

    @property
    def draws(self) -> int:
        return sum(len(part.theta) for part in self.parts)

    def noise_of(self, losses: Array) -> Array:
        """(q, q) covariance of the noise of one trunk's losses, nats squared."""
        level = losses * self.noise
        return np.asarray(np.outer(level, level) * correlation(np.zeros(len(losses))))

    def speaks(self, params: float, within: float = 1.02) -> Array:
        """(J,) bool: whether a draw says anything of models of that size."""
        each = [
            np.full(len(part.theta), part.params is None or abs(np.log(part.params / params)) < np.log(within))
            for part in self.parts
        ]
        return np.concatenate(each)


def posterior(
    forms: Sequence[Form],
    rows: Rows,
    *,
    params: float,
    tokens: float,
    draws: int = DRAWS,
    seed: int = 0,
    trusting: bool = False,
    departs: bool = False,
) -> Posterior:
    """Laws of these forms that agree with the observations of own share > 0, for a target of `params` and `tokens`.

    A form of one size reads the runs of the size nearest to `params`. Forms are weighed by their evidence on the rows
    of that size, which all of them read; unless `trusting`, by that of as many rows as there are trunks, since runs
    of one trunk share what a form cannot express. `departs`: the truth may have something beside the form.
    """
    rows = rows.where((rows.runs.own > 0) & (rows.runs.weights > 0))
    sizes = np.unique(rows.runs.params)
    nearest = float(sizes[np.abs(np.log(sizes / params)).argmin()])
    near = rows.where(rows.runs.params == nearest)
    reach = {"N": np.array([params]), "D": np.array([tokens])}
    evidence, posed, drawn = [], [], []
    random = np.random.default_rng(seed)
    for form in forms:
        whole = len(sizes) > 1 and form.spans_sizes
        posed.append(pose(form, rows if whole else near, reach, departs))
        at, log_evidence = _temper(posed[-1], draws, random)
        drawn.append(at)
        evidence.append(_temper(pose(form, near, reach, departs), draws // 2, random)[1] if whole else log_evidence)
    tempered = np.array(evidence) * (1.0 if trusting else len(np.unique(near.group)) / len(near.group))
    belief = np.exp(tempered - logsumexp(tempered))
    belief = np.where(belief < FAINT, 0.0, belief)
    belief = belief / belief.sum()
    parts = [
        _part(one, at[:count], random, nearest)
        for one, at, count in zip(posed, drawn, portions(belief.tolist(), draws), strict=True)
        if count > 0
    ]
    return Posterior(tuple(parts), {form.name: float(x) for form, x in zip(forms, belief, strict=True)})


def _temper(posed: Posed, draws: int, random: np.random.Generator) -> tuple[Array, float]:
    """(J, k + 1) draws in random order, and the log evidence."""
    unit = qmc.LatinHypercube(len(posed.middle), rng=random).random(draws)
    ends = np.append(np.full(len(posed.middle) - 1, REACH), 8.0)
    at = posed.middle + posed.spread * truncnorm.ppf(unit, -ends, ends)
    at[:, -1] = np.maximum(at[:, -1], np.log(STILLEST))
    likelihood, heat, evidence, size = posed.likelihood(at), 0.0, 0.0, 1.0
    while heat < 1:
        step = heat_keeping(likelihood, 1 - heat, KEPT * draws)
        weights = step * likelihood
        evidence += float(logsumexp(weights) - np.log(len(at)))
        share = np.exp(weights - logsumexp(weights))
        heat = min(heat + step, 1.0) if step < 1 - heat else 1.0
        kept = np.searchsorted(np.cumsum(share), (random.random() + np.arange(draws)) / draws).clip(0, draws - 1)
        at, likelihood = at[kept], likelihood[kept]
        for _ in range(MOVES if heat < 1 else LAST_MOVES):
            at, likelihood, taken = _move(posed, at, likelihood, heat, size, random)
            size = float(np.clip(size * np.exp(taken - 0.25), 0.05, 2.0))
    return at[random.permutation(draws)], evidence


def heat_keeping(likelihood: Array, most: float, kept: float) -> float:
    """The largest step in inverse temperature, up to `most`, after which `kept` draws still count."""

    def count(step: float) -> float:
        share = np.exp(step * (likelihood - likelihood.max()))
        return float(share.sum() ** 2 / (share**2).sum())

    if count(most) >= kept:
        return most
    low, high = 0.0, most
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) >= kept else (low, middle)
    return high


def _move(
    posed: Posed, at: Array, likelihood: Array, heat: float, size: float, random: np.random.Generator
) -> tuple[Array, Array, float]:
    """One Metropolis step of each draw, as wide as the draws lie; and the share that was taken."""
    width = 2.38 / np.sqrt(at.shape[1]) * size
    root = np.linalg.cholesky(np.cov(at.T) + 1e-12 * np.diag(posed.spread**2))
    there = at + width * random.standard_normal(at.shape) @ root.T
    prior = posed.prior(there)
    inside = np.isfinite(prior)
    found = np.full(len(at), -np.inf)
    if inside.any():
        found[inside] = posed.likelihood(there[inside])
    gain = heat * (found - likelihood) + prior - posed.prior(at)
    better = np.log(random.random(len(at))) < gain
    return np.where(better[:, None], there, at), np.where(better, found, likelihood), float(better.mean())


def _part(posed: Posed, at: Array, random: np.random.Generator, nearest: float) -> Part:
    """Coefficients drawn for each: the best of a problem perturbed by its own noise, signs kept."""
    gram, moment = posed.normal(at)
    root = np.linalg.cholesky(gram)
    shaken = moment + np.matmul(root, random.standard_normal((*moment.shape, 1)))[..., 0]
    coefficients = posed.solve(gram, shaken)
    params = None if posed.form.spans_sizes else nearest
    theta, noise = posed.theta(at), np.exp(at[:, -1])
    away = draw_away(posed, at, coefficients, random)
    return Part(posed.form, posed.frame, theta, coefficients, noise, posed.departure, away, params)
