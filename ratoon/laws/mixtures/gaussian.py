"""Gaussian process over mixtures: a smooth function of all shares, as far from the runs as it is near to them.

    log L(h) ~ GP(mean, s^2 M52(r) + noise),  r^2 = sum_j (h_j^p - h'_j^p)^2 / l_j^2

h  shares of the training tokens     M52  Matern 5/2, (1 + a + a^2/3) exp(-a) with a = sqrt(5) r
l  one length per domain (relevance), s and noise: by marginal likelihood, lengths under a wide prior

Far from all runs it returns to their mean: it does not extrapolate. Rasmussen and Williams 2006, chapters 2 and 5.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize

from ratoon.laws.form import Array

# Loss bends like a logarithm in small shares, and a logarithm is undone by a share of zero. Held-out errors differ by
# a hundredth between the root, the fourth root and log(h + 0.005).
POWER = 0.25
PRIOR = 1.5  # standard deviation of log length about sqrt(d) times the spread of that share: a factor of 20 is usual
CONSTANT = 10.0  # variance of the mean, beside the losses' of one: as good as free
JITTER = 1e-9
NOISE = 0.01  # where the search starts, as a part of the variance
TOLERANCE = 1e-4  # relative fall of the likelihood that ends the search; finer moves no prediction
CHUNK = 4096  # rows predicted at once: bounds the memory


@dataclass(frozen=True)
class Hyper:
    """On log scales, as the search sees them."""

    lengths: Array  # (d,)
    signal: float
    noise: float


@dataclass(frozen=True)
class GaussianProcess:
    """A conditioned process."""

    hyper: Hyper
    scaled: Array  # (n, d): powers of the shares it is conditioned on, over the lengths
    weights: Array  # (n,)
    mean: float
    spread: float

    def loss(self, shares: Array) -> Array:
        shares = np.atleast_2d(shares)
        parts = [self._chunk(shares[start : start + CHUNK]) for start in range(0, len(shares), CHUNK)]
        return np.concatenate(parts)

    def _chunk(self, shares: Array) -> Array:
        near = _matern(_distances(_scale(shares, self.hyper), self.scaled))[0]
        signal = float(np.exp(self.hyper.signal))
        return np.asarray(np.exp(self.mean + self.spread * ((signal * near + CONSTANT) @ self.weights)))


def fit(shares: Array, loss: Array) -> GaussianProcess:
    """Lengths, signal and noise by marginal likelihood; conditioned on these runs."""
    target, _, _ = _standard(loss)
    centre = np.log(np.sqrt(shares.shape[1]) * np.maximum(np.power(shares, POWER).std(axis=0), 1e-2))
    start = np.concatenate([centre, [0.0, np.log(NOISE)]])
    bounds = [(x - 4, x + 6) for x in centre] + [(-6, 6), (-14, 0)]
    found = minimize(
        _evidence, start, (shares, target, centre), "L-BFGS-B", jac=True, bounds=bounds, options={"ftol": TOLERANCE}
    )
    hyper = Hyper(found.x[:-2], float(found.x[-2]), float(found.x[-1]))
    return condition(hyper, shares, loss, np.ones(len(loss)))


def condition(hyper: Hyper, shares: Array, loss: Array, weights: Array) -> GaussianProcess:
    """The process given runs that count `weights` times each; those of weight 0 are left out."""
    kept = weights > 0
    target, mean, spread = _standard(loss[kept])
    scaled = _scale(shares[kept], hyper)
    covariance = np.exp(hyper.signal) * _matern(_distances(scaled, scaled))[0] + CONSTANT
    covariance[np.diag_indices(len(scaled))] += np.exp(hyper.noise) / weights[kept] + JITTER
    solved = cho_solve((cholesky(covariance, lower=True), True), target)
    return GaussianProcess(hyper, scaled, np.asarray(solved), mean, spread)


def _standard(loss: Array) -> tuple[Array, float, float]:
    logs = np.log(loss)
    mean, spread = float(logs.mean()), max(float(logs.std()), 1e-12)
    return (logs - mean) / spread, mean, spread


def _scale(shares: Array, hyper: Hyper) -> Array:
    return np.asarray(np.power(np.maximum(shares, 0.0), POWER) / np.exp(hyper.lengths))


def _distances(a: Array, b: Array) -> Array:
    return np.asarray(np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0))


def _matern(squared: Array) -> tuple[Array, Array]:
    """Correlations, and their slope by the squared distance."""
    a = np.sqrt(5 * squared)
    fall = np.exp(-a)
    return (1 + a + a**2 / 3) * fall, -5 / 6 * (1 + a) * fall


def _evidence(at: Array, shares: Array, target: Array, centre: Array) -> tuple[float, Array]:
    """Minus log posterior of the hyperparameters, and its gradient."""
    hyper = Hyper(at[:-2], at[-2], at[-1])
    scaled = _scale(shares, hyper)
    near, slope = _matern(_distances(scaled, scaled))
    signal, noise, diagonal = np.exp(hyper.signal), np.exp(hyper.noise), np.diag_indices(len(shares))
    covariance = signal * near + CONSTANT
    covariance[diagonal] += noise + JITTER
    factor, failed = dpotrf(covariance, lower=1)
    if failed:
        return 1e300, np.zeros_like(at)
    solved, _ = dpotrs(factor, target, lower=1)
    away = (hyper.lengths - centre) / PRIOR
    value = target @ solved / 2 + np.log(np.diag(factor)).sum() + away @ away / 2
    inverse, _ = dpotri(factor, lower=1)
    pull = np.outer(solved, solved) - inverse - inverse.T  # above the diagonal LAPACK left zeros
    pull[diagonal] += np.diag(inverse)
    bent = signal * pull * slope
    by_length = 2 * (bent.sum(axis=1) @ scaled**2 - (scaled * (bent @ scaled)).sum(axis=0))
    gradient = np.concatenate(
        [by_length + away / PRIOR, [-(pull * near).sum() * signal / 2, -noise * np.trace(pull) / 2]]
    )
    return float(value), gradient
