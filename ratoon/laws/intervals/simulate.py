"""The same runs again with other luck: losses drawn from a fitted law and its noise, and the law fitted to each.

All draws are one batch. Axes: R draws, n observations, k exponents, m coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.fitting import varpro
from ratoon.laws.fitting.fit import Fit
from ratoon.laws.fitting.identify import jacobian
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.fitting.search import masks, problem
from ratoon.laws.form import Array, Form, Inputs, Settled
from ratoon.laws.intervals.bend import Bend
from ratoon.laws.intervals.known import Scale, repeated
from ratoon.laws.intervals.lanes import Lanes, Places
from ratoon.laws.intervals.noise import Noise, learn, systematic, tame

CHUNK = 100  # draws at once: bounds the memory on large tables
ITERATIONS = 12  # from the best exponents of all runs, a draw's own are near
LIFT, DROP = 4.0, 8.0  # in log, how far a draw's weight may lie above and below the median one's


@dataclass(frozen=True)
class Replicates:
    """One law per draw: R of them."""

    form: Form
    frame: Any
    theta: Array  # (R, k)
    coefficients: Array  # (R, m)

    def at(self, inputs: Inputs) -> Array:
        """(R, n) nats per token."""
        columns = self.form.columns(self.theta, inputs, self.frame)
        return np.asarray(np.matmul(columns, self.coefficients[..., None])[..., 0])

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        """(R, n) nats per token."""
        N, D, r = (np.atleast_1d(np.asarray(x, dtype=float)) for x in np.broadcast_arrays(N, D, r))
        return self.at({"N": N, "D": D, "r": r})

    def take(self, index: Places) -> "Replicates":
        return replace(self, theta=self.theta[index], coefficients=self.coefficients[index])


def spoken(fitted: Fit, runs: Runs, groups: Sequence[str]) -> tuple[Runs, list[str]]:
    """The rows the law was fitted on: all, but for those of share 0 where it is silent about them."""
    if fitted.form.speaks_at_zero or "r" not in runs.inputs:
        return runs, list(groups)
    kept = runs.own > 0
    return runs.where(kept), [name for name, keep in zip(groups, kept, strict=True) if keep]


def noise_of(
    fitted: Fit, runs: Runs, lanes: Lanes, *, draws: int, random: np.random.Generator, known: Scale | None = None
) -> Noise:
    """Noise of these runs: luck and measurement from repeated runs where there are enough, else from what the law
    leaves; bends always from what it leaves."""
    used = runs.weights > 0
    runs, lanes = runs.where(used), lanes.where(used)
    residual = off(fitted, runs.loss, fitted.predict(runs.inputs))
    posed = problem(fitted.form, runs, fitted.frame, fitted.loss_kind, fitted.settled)
    design = jacobian(posed, fitted.theta, fitted.coefficients)[:, fitted.identification.used]
    unit = float(runs.loss.mean()) if fitted.loss_kind.space == "raw" else 1.0  # nats
    design = design if fitted.loss_kind.space == "raw" else design / runs.loss[:, None]
    bends = Bend.of(runs.inputs).columns(runs.inputs)
    known = known and known._replace(value=known.value * unit)
    found = learn(residual, design, bends, lanes, draws=draws, random=random, known=known)
    if (same := repeated(runs.inputs, lanes)) is None:
        return found
    pure = learn(residual, same, bends[:, :0], lanes, draws=draws, random=random, known=known)
    return replace(pure, bend=found.bend, said="repeated runs")


def off(fitted: Fit, measured: Array, predicted: Array) -> Array:
    """measured over predicted in log, or less it in nats: the space of the fit."""
    return np.asarray(measured - predicted if fitted.loss_kind.space == "raw" else np.log(measured / predicted))


def cleaned(fitted: Fit, runs: Runs) -> Array:
    """(n,) losses with outliers moved in."""
    predicted = fitted.predict(runs.inputs)
    residual = tame(off(fitted, runs.loss, predicted), int(fitted.identification.used.sum()))
    return np.asarray(predicted + residual if fitted.loss_kind.space == "raw" else predicted * np.exp(residual))


class Staged(NamedTuple):
    """Simulated studies."""

    losses: Array  # (R, n)
    bends: Array  # (R, q) coefficients of what the law gets wrong in each


def restage(fitted: Fit, runs: Runs, lanes: Lanes, noise: Noise, random: np.random.Generator) -> Staged:
    """What these runs could have measured."""
    bend = Bend.of(runs.inputs)
    bends = noise.bend[:, None] * random.normal(size=(len(noise.bend), bend.number))
    drawn = noise.draw(lanes, random) + bends @ bend.columns(runs.inputs).T
    predicted = fitted.predict(runs.inputs)
    raw = fitted.loss_kind.space == "raw"
    return Staged(np.asarray(predicted + drawn if raw else predicted * np.exp(drawn)), bends)


def refit(
    fitted: Fit,
    runs: Runs,
    losses: Array,
    weights: Array,
    *,
    settled: Settled | None = None,
    theta: Array | None = None,
    iterations: int = ITERATIONS,
) -> Replicates:
    """The law fitted to each of losses (R, n) under weights (R, n), from theta (R, k) or the fit's own exponents.

    settled  what is fixed; the fit's own when not given
    """
    settled = fitted.settled if settled is None else settled
    posed = problem(fitted.form, runs, fitted.frame, fitted.loss_kind, settled)
    free, present = masks(fitted.form, settled)
    start = np.broadcast_to(fitted.theta, (len(losses), len(fitted.theta))) if theta is None else theta
    start = np.where(free, start, [settled.exponents.get(name, np.nan) for name in fitted.form.exponents])
    parts = [
        varpro.descend(
            replace(posed, loss=losses[at : at + CHUNK]),
            start[at : at + CHUNK].copy(),
            weights[at : at + CHUNK],
            np.broadcast_to(free, start[at : at + CHUNK].shape).copy(),
            np.broadcast_to(present, (len(start[at : at + CHUNK]), len(present))).copy(),
            iterations=iterations,
        )
        for at in range(0, len(losses), CHUNK)
    ]
    return Replicates(
        fitted.form,
        fitted.frame,
        np.concatenate([part.theta for part in parts]),
        np.concatenate([part.coefficients for part in parts]),
    )


def likely(
    fitted: Fit, runs: Runs, lanes: Lanes, noise: Noise, drawn: Replicates, random: np.random.Generator
) -> Places:
    """(R,) indices of draws, each as often as the runs make it likely.

    Refits to simulated losses are spread as estimates are spread about a law, not as laws about an estimate. Where the
    law is curved, its parameters are at the end of their range or the fit is not the most efficient, these differ; by
    the ratio of the likelihood of the runs to the density of the refits, which is the exponential of the residual times
    the draw's distance from the fit, both in units of the noise (Efron 2012, with the prior of Jeffreys).
    """
    if noise.none:
        return np.arange(len(drawn.theta))
    predicted = fitted.predict(runs.inputs)
    residual = tame(off(fitted, runs.loss, predicted), int(fitted.identification.used.sum())) * (runs.weights > 0)
    away = off(fitted, drawn.at(runs.inputs), predicted)
    gain = noise.agreement(lanes, Bend.of(runs.inputs).columns(runs.inputs), residual[None], away)
    gain = np.clip(gain - np.median(gain), -DROP, LIFT)
    return systematic(np.exp(gain) / np.exp(gain).sum(), len(gain), random)
