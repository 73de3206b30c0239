"""Separable least squares, many at once: coefficients solved inside with signs, a search over the exponents.

Variable projection (Golub and Pereyra 1973, with Kaufman's Jacobian) under a robust objective, met by
reweighting. Starts, leave-out folds and bootstrap replicates are one batch: they differ in `weights` only, and
where asked in `loss`. Axes: B problems, n observations, m coefficients, k exponents.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ratoon.laws.fitting.objective import Objective
from ratoon.laws.form import Array, Mask

STEP = 1e-5  # of a forward difference, as a part of the stride
STRIDE = 0.7  # longest step of the search: a factor of two on a log scale
STRIDE_LINEAR = 0.1  # of the range, where the scale is linear
RIDGE = 1e-12  # keeps a rank-deficient subset solvable; far below any noise
STILL = 1e-7  # relative fall of the objective that no longer counts as one
WAYS = 9  # sets of coefficients small enough to try all their subsets


@dataclass(frozen=True)
class Problem:
    columns: Callable[[Array], Array]  # exponents (B, k) -> (B, n, m)
    slopes: Callable[[Array, Array], Array] | None  # exponents, coefficients (B, m) -> (B, n, k)
    loss: Array  # (n,) or (B, n), nats
    low: Array  # (k,)
    high: Array  # (k,)
    logarithmic: Mask  # (k,) whether an exponent is searched on a log scale
    signed: Mask  # (m,) whether a coefficient must not be negative
    given: Array  # (m,) coefficients known beforehand; not a number where they are solved for
    objective: Objective

    def spread(self, theta: Array) -> Array:
        """Exponents as the search sees them."""
        return np.where(self.logarithmic, np.log(np.where(self.logarithmic, theta, 1.0)), theta)

    def gather(self, coordinates: Array) -> Array:
        return np.where(self.logarithmic, np.exp(np.where(self.logarithmic, coordinates, 0.0)), coordinates)

    @property
    def known(self) -> Mask:
        return np.isfinite(self.given)

    @property
    def stride(self) -> Array:
        return np.where(self.logarithmic, STRIDE, STRIDE_LINEAR * (self.high - self.low))


@dataclass(frozen=True)
class Optimum:
    theta: Array  # (B, k)
    coefficients: Array  # (B, m)
    value: Array  # (B,): sum of weighted losses of the objective
    settled: Mask  # (B,): the last steps no longer lowered it


@dataclass
class _Point:
    """Where the search stands."""

    theta: Array
    columns: Array
    coefficients: Array
    reweighted: Array
    value: Array

    def take(self, other: "_Point", better: Mask) -> None:
        for name in ("theta", "columns", "coefficients", "reweighted", "value"):
            getattr(self, name)[better] = getattr(other, name)[better]


def solve(gram: Array, moment: Array, present: Mask, signed: Mask) -> Array:
    """argmin c'Gc/2 - h'c with c >= 0 where `signed` and c = 0 where not `present`, for each of a batch: (B, m).

    Exact for few coefficients: the solution of some subset is the answer, and all subsets are tried.
    """
    scale = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 1e-300))
    gram = gram / (scale[:, :, None] * scale[:, None, :])
    moment = moment / scale
    solved = _subset(gram, moment, present)
    if (refused := np.flatnonzero(((solved < 0) & signed).any(axis=1))).size:
        solved[refused] = _signed(gram[refused], moment[refused], present[refused], signed)
    return solved / scale


def _signed(gram: Array, moment: Array, present: Mask, signed: Mask) -> Array:
    if signed.sum() > WAYS:
        return _shrink(gram, moment, present, signed)
    switches = [[False, True] if sign else [True] for sign in signed]
    subsets = np.array(list(itertools.product(*switches)))
    tried = _subset(gram[:, None], moment[:, None], subsets[None] & present[:, None])
    value = -np.einsum("bsm,bm->bs", tried, moment)
    value = np.where(((tried >= 0) | ~signed).all(axis=2), value, np.inf)
    return np.asarray(tried[np.arange(len(gram)), value.argmin(axis=1)])


def _shrink(gram: Array, moment: Array, present: Mask, signed: Mask) -> Array:
    """Many coefficients: the negative ones are dropped until none is left, then those that pull are let back in."""
    active = present.copy()
    for _ in range(3 * active.shape[1]):
        solved = _subset(gram, moment, active)
        negative = (solved < 0) & signed
        pull = np.where(present & ~active, moment - np.einsum("bij,bj->bi", gram, solved), -np.inf)
        back = (pull > 1e-12) & (pull == pull.max(axis=1, keepdims=True)) & ~negative.any(axis=1, keepdims=True)
        if not (negative | back).any():
            break
        active = (active & ~negative) | back
    return np.asarray(np.where(signed, np.maximum(solved, 0.0), solved))


def _subset(gram: Array, moment: Array, chosen: Mask) -> Array:
    """The unconstrained solution among the chosen coefficients, the others 0."""
    systems = np.where(chosen[..., :, None] & chosen[..., None, :], gram, 0.0)
    systems = systems + np.eye(moment.shape[-1]) * np.where(chosen, RIDGE, 1.0)[..., None]
    return np.linalg.solve(systems, np.where(chosen, moment, 0.0)[..., None])[..., 0]


def descend(problem: Problem, theta: Array, weights: Array, free: Mask, present: Mask, iterations: int = 40) -> Optimum:
    """Levenberg-Marquardt from each start. `weights` (B, n), `free` (B, k) exponents that may move,
    `present` (B, m) coefficients that may differ from 0."""
    here = _settle(problem, theta, weights * problem.objective.squares(problem.loss, problem.loss), weights, present)
    damping = np.full(len(theta), 1e-2)
    still = np.zeros(len(theta), dtype=int)
    for _ in range(iterations):
        moved = _step(problem, here, damping, free)
        there = _settle(problem, moved, here.reweighted, weights, present)
        gain = here.value - there.value
        better = gain > 0
        still = np.where(gain > STILL * here.value, 0, still + 1)
        here.take(there, better)
        damping = np.clip(np.where(better, damping / 4, damping * 5), 1e-9, 1e9)
        if (still >= 4).all():
            break
    return Optimum(here.theta, here.coefficients, here.value, still >= 4)


def _settle(problem: Problem, theta: Array, reweighted: Array, weights: Array, present: Mask) -> _Point:
    """Coefficients at these exponents: two passes of reweighting, continued from the last ones."""
    columns = problem.columns(theta)
    known = np.where(problem.known, problem.given, 0.0)
    loss = np.broadcast_to(problem.loss, weights.shape) - columns @ known
    present = present & ~problem.known
    for _ in range(2):
        weighted = columns * reweighted[..., None]
        gram = np.matmul(columns.transpose(0, 2, 1), weighted)
        moment = np.matmul(weighted.transpose(0, 2, 1), loss[..., None])[..., 0]
        coefficients = solve(gram, moment, present, problem.signed) + known
        predicted = np.matmul(columns, coefficients[..., None])[..., 0]
        reweighted = problem.objective.reweight(predicted, problem.loss, weights)
    value = problem.objective.value(predicted, problem.loss, weights)
    return _Point(theta, columns, coefficients, reweighted, value)


def _step(problem: Problem, here: _Point, damping: Array, free: Mask) -> Array:
    """The next exponents to try, (B, k), inside their bounds."""
    k = here.theta.shape[1]
    if k == 0:
        return here.theta
    root = np.sqrt(here.reweighted)
    columns = here.columns * root[..., None]
    residual = np.matmul(columns, here.coefficients[..., None])[..., 0] - root * problem.loss
    jacobian = slopes(problem, here.theta, here.coefficients, here.columns) * root[..., None]
    active = ((here.coefficients != 0) | ~problem.signed) & ~problem.known
    jacobian = project(columns, active, jacobian)
    gradient = np.matmul(jacobian.transpose(0, 2, 1), residual[..., None])[..., 0]
    # A bound that the step would cross is left out of the system, so that the others move as if it were fixed.
    edge = 1e-6 * np.where(problem.logarithmic, np.abs(here.theta), problem.high - problem.low)
    stuck = ((here.theta <= problem.low + edge) & (gradient > 0)) | (
        (here.theta >= problem.high - edge) & (gradient < 0)
    )
    moving = free & ~stuck
    jacobian = jacobian * moving[:, None, :]
    curvature = np.matmul(jacobian.transpose(0, 2, 1), jacobian)
    diagonal = np.diagonal(curvature, axis1=1, axis2=2)
    floor = 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    system = curvature + np.eye(k) * np.where(moving, damping[:, None] * diagonal + floor, 1.0)[..., None]
    step = -np.linalg.solve(system, np.where(moving, gradient, 0.0)[..., None])[..., 0]
    moved = problem.gather(problem.spread(here.theta) + np.clip(step, -problem.stride, problem.stride))
    return np.where(moving, np.clip(moved, problem.low, problem.high), here.theta)


def slopes(problem: Problem, theta: Array, coefficients: Array, columns: Array) -> Array:
    """d predicted / d exponent (on the scale searched) at fixed coefficients, (B, n, k)."""
    if problem.slopes is not None:
        found = problem.slopes(theta, coefficients)
        return np.asarray(found * np.where(problem.logarithmic, theta, 1.0)[:, None, :])
    B, k = theta.shape
    nudge = STEP * np.where(problem.logarithmic, 1.0, problem.high - problem.low)
    nudged = problem.gather(problem.spread(theta)[:, None, :] + np.diag(nudge))
    moved = problem.columns(nudged.reshape(B * k, k)).reshape(B, k, *columns.shape[1:])
    return np.asarray(np.einsum("bknm,bm->bnk", moved - columns[:, None], coefficients) / nudge)


def project(columns: Array, active: Mask, slopes: Array) -> Array:
    """`slopes` less what the active columns can explain: Kaufman's Jacobian of the projected residual."""
    columns = columns * active[:, None, :]
    scale = np.sqrt(np.maximum((columns**2).sum(axis=1, keepdims=True), 1e-300))
    columns = columns / scale
    gram = np.matmul(columns.transpose(0, 2, 1), columns)
    gram = gram + np.eye(columns.shape[2]) * np.where(active, RIDGE, 1.0)[..., None]
    return slopes - np.matmul(columns, np.linalg.solve(gram, np.matmul(columns.transpose(0, 2, 1), slopes)))
