"""How sure a fit is: whole groups of runs reweighted, and what it gets wrong on runs it never saw.

Runs that share a trunk share its luck, so groups are resampled, never checkpoints. With about a dozen groups a
plain resample often loses a whole ratio and with it the law; the Bayesian bootstrap (Rubin 1981) gives every
group a Dirichlet(1, ..., 1) weight instead, which has the same variance and loses none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws import varpro
from ratoon.laws.fit import Fit, Runs, longest_two, masks, problem
from ratoon.laws.form import Array, Form

CHUNK = 100  # replicates at once: bounds the memory on large tables
ITERATIONS = 12  # from the best exponents of all runs, a replicate's own are near


@dataclass(frozen=True)
class Replicates:
    """One law per resample: R of them."""

    form: Form
    frame: Any
    theta: Array  # (R, k)
    coefficients: Array  # (R, m)

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        """(R, n) nats per token."""
        N, D, r = (np.atleast_1d(np.asarray(x, dtype=float)) for x in np.broadcast_arrays(N, D, r))
        columns = self.form.columns(self.theta, {"N": N, "D": D, "r": r}, self.frame)
        return np.asarray(np.matmul(columns, self.coefficients[..., None])[..., 0])


def bootstrap(fitted: Fit, runs: Runs, groups: Sequence[str], *, replicates: int = 400, seed: int = 0) -> Replicates:
    """Refits under Dirichlet weights per group, warm-started at the best exponents.

    `runs` and `groups` are the n observations that were fitted; observations of one group share a weight.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(len(names)), size=replicates) * len(names)
    posed = problem(fitted.form, runs, fitted.frame, fitted.loss_kind)
    free, present = masks(fitted.form, fitted.settled)
    parts = []
    for start in range(0, replicates, CHUNK):
        part = weights[start : start + CHUNK][:, member] * runs.weights
        theta = np.broadcast_to(fitted.theta, (len(part), len(fitted.theta))).copy()
        parts.append(
            varpro.descend(
                posed,
                theta,
                part,
                np.broadcast_to(free, theta.shape).copy(),
                np.broadcast_to(present, (len(part), len(present))).copy(),
                iterations=ITERATIONS,
            )
        )
    return Replicates(
        fitted.form,
        fitted.frame,
        np.concatenate([part.theta for part in parts]),
        np.concatenate([part.coefficients for part in parts]),
    )


@dataclass(frozen=True)
class Forecast:
    """Draws of a predicted loss: sampling error from the bootstrap, misfit from what was held out."""

    fit: Fit
    replicates: Replicates
    misfit: float  # relative standard deviation, common to all ratios of one draw
    shocks: Array  # (R,) standard normal quantiles in shuffled order
    inflation: float  # of the bootstrap's spread, for parameters spent and groups few

    def draws(self, N: float, D: float, r: ArrayLike) -> Array:
        """(R, n) nats per token."""
        centre = self.fit.loss(N, D, np.atleast_1d(r))
        sampled = centre + self.inflation * (self.replicates.loss(N, D, r) - centre)
        return np.asarray(sampled * (1 + self.misfit * self.shocks[:, None]))


def forecast(
    fitted: Fit,
    runs: Runs,
    groups: Sequence[str],
    *,
    tokens: float,
    spread: float = 0.0,
    replicates: int = 400,
    seed: int = 0,
) -> Forecast:
    """What the law says of runs of `tokens`, with everything that is known to be uncertain about it.

    A bootstrap moves only what the law can express. What it cannot shows in runs it was not fitted on, so the
    held-out error, scaled to how far `tokens` lies beyond the longest run, is added as one relative shift per draw,
    and with it `spread`, the relative distance to other laws that fit about as well.
    """
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((k + 0.5) / replicates) for k in range(replicates)])
    shocks = np.random.default_rng(seed + 1).permutation(quantiles)
    drawn = bootstrap(fitted, runs, groups, replicates=replicates, seed=seed)
    misfit = float(np.hypot(fitted.misfit(tokens, *longest_two(runs)), spread))
    return Forecast(fitted, drawn, misfit, shocks, _inflation(fitted, len(set(groups))))


def _inflation(fitted: Fit, num_groups: int) -> float:
    """Residuals are smaller than the noise by what the parameters took up, and G groups show (G - 1)/G of their
    variance: the usual corrections, held to a factor of two."""
    rows = fitted.observations / max(fitted.observations - fitted.num_free, 1)
    return float(min(np.sqrt(rows * num_groups / max(num_groups - 1, 1)), 2.0))
