"""The last digits of one optimum: all parameters at once, from where the search ended.

Reweighting nears a robust optimum by steps that shrink; where absolute values reign it would take thousands.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from scipy.sparse import diags_array, hstack, vstack

from ratoon.laws.fitting import varpro
from ratoon.laws.form import Array, Mask

WIDE = 1e-4  # delta below which an optimum is approached by ever narrower squares
NARROWING = 10.0  # by which their width shrinks from one polish to the next
CORNERED = 1e-6  # delta below which an optimum is a corner, and linear programs find it
PROGRAMS = 40

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Finish:
    """One problem from one point. What lies on a bound or at zero stays there."""

    problem: varpro.Problem
    theta: Array  # (k,)
    coefficients: Array  # (m,)
    weights: Array  # (n,)
    free: Mask  # (k,) exponents that may move

    @cached_property
    def moving(self) -> Places:
        problem, theta = self.problem, self.theta
        edge = 1e-6 * np.where(problem.logarithmic, np.abs(theta), problem.high - problem.low)
        return np.flatnonzero(self.free & (theta > problem.low + edge) & (theta < problem.high - edge))

    @cached_property
    def used(self) -> Places:
        return np.flatnonzero((self.coefficients != 0) & ~self.problem.known)

    @cached_property
    def start(self) -> Array:
        return np.concatenate([self.problem.spread(self.theta)[self.moving], self.coefficients[self.used]])

    def place(self, at: Array) -> tuple[Array, Array]:
        coordinates, linear = self.problem.spread(self.theta), self.coefficients.copy()
        coordinates[self.moving], linear[self.used] = at[: len(self.moving)], at[len(self.moving) :]
        theta = self.theta.copy()
        theta[self.moving] = self.problem.gather(coordinates)[self.moving]
        return theta, linear

    def look(self, at: Array) -> tuple[Array, Array]:
        """Predicted (n,) and its slopes (n, p) at these coordinates."""
        theta, linear = self.place(at)
        columns = self.problem.columns(theta[None])
        slope = varpro.slopes(self.problem, theta[None], linear[None], columns)[0][:, self.moving]
        return columns[0] @ linear, np.concatenate([slope, columns[0][:, self.used]], axis=1)

    def value(self, at: Array) -> float:
        """Of the objective; infinite outside the bounds."""
        theta, linear = self.place(at)
        inside = (theta >= self.problem.low) & (theta <= self.problem.high)
        if not inside.all() or (linear[self.problem.signed] < 0).any():
            return float("inf")
        predicted = self.problem.columns(theta[None])[0] @ linear
        found = float(self.problem.objective.value(predicted, self.problem.loss, self.weights))
        return found if np.isfinite(found) else float("inf")

    @cached_property
    def whiten(self) -> Array:
        """(p, p): coordinates in which the curvature is the unit matrix."""
        predicted, slope = self.look(self.start)
        root = np.sqrt(self.problem.objective.reweight(predicted, self.problem.loss, self.weights))
        _, singular, axes = np.linalg.svd(slope * root[:, None], full_matrices=False)
        return np.asarray(axes.T / np.maximum(singular, 1e-6 * singular.max(initial=0.0) + 1e-300))


def polish(
    problem: varpro.Problem, theta: Array, coefficients: Array, weights: Array, free: Mask
) -> tuple[Array, Array]:
    """theta (k,) and coefficients (m,) at the optimum of the objective; where its squares are narrow, reached through
    wider ones."""
    width = max(problem.objective.delta, WIDE)
    while True:
        nearer = replace(problem, objective=replace(problem.objective, delta=width))
        theta, coefficients = _smooth(Finish(nearer, theta, coefficients, weights, free))
        if width <= problem.objective.delta:
            break
        width = max(width / NARROWING, problem.objective.delta)
    if problem.objective.delta < CORNERED:
        return _corner(Finish(problem, theta, coefficients, weights, free))
    return theta, coefficients


def _smooth(here: Finish) -> tuple[Array, Array]:
    """Quasi-Newton in whitened coordinates."""
    unit = here.value(here.start)
    if len(here.start) == 0 or not 0 < unit < np.inf:
        return here.theta, here.coefficients

    def evaluate(step: Array) -> tuple[float, Array]:
        with np.errstate(all="ignore"):
            predicted, slope = here.look(here.start + here.whiten @ step)
            value = float(here.problem.objective.value(predicted, here.problem.loss, here.weights))
            pull = here.weights * here.problem.objective.pull(predicted, here.problem.loss)
            gradient = here.whiten.T @ (slope.T @ pull) / unit
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e300, np.zeros_like(step)
        return value / unit, gradient

    found = minimize(evaluate, np.zeros(here.whiten.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-12})
    at = here.start + here.whiten @ found.x
    return here.place(at) if here.value(at) <= unit else (here.theta, here.coefficients)


def _corner(here: Finish) -> tuple[Array, Array]:
    """Sequential linear programs for least absolute deviations: the optimum passes through as many observations as
    there are parameters, and each program lands on the next such corner."""
    at, value, trust = here.start, here.value(here.start), np.inf
    for _ in range(PROGRAMS):
        step = _program(here, at, trust)
        if step is None or (there := here.value(at + here.whiten @ step)) >= value:
            trust = (float(np.abs(step).max()) if step is not None else 1.0) / 4
            if step is None or trust < 1e-12:
                break
            continue
        gain, at, value = value - there, at + here.whiten @ step, there
        trust *= 2
        if gain < 1e-13 * value:
            break
    return here.place(at)


def _program(here: Finish, at: Array, trust: float) -> Array | None:
    """The step that makes the sum of |residuals| least were the law linear; None where the solver gives up."""
    predicted, slope = here.look(at)
    residual = here.problem.objective.residual(predicted, here.problem.loss)
    # The objective's residual moves as predicted does, or in log space as its logarithm.
    change = slope if here.problem.objective.space == "raw" else slope / predicted[:, None]
    change = change @ here.whiten
    n, p = change.shape
    room = diags_array(np.ones(n))
    bounds = [(-trust, trust) if np.isfinite(trust) else (None, None)] * p + [(0, None)] * n
    unit = max(float(np.abs(residual).max()), 1e-300)
    found = linprog(
        np.concatenate([np.zeros(p), here.weights]),
        A_ub=vstack([hstack([change / unit, -room]), hstack([-change / unit, -room])]),
        b_ub=np.concatenate([-residual, residual]) / unit,
        bounds=bounds,
        method="highs",
    )
    return np.asarray(found.x[:p]) if found.status == 0 else None
