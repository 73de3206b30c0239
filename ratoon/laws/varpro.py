"""Separable least squares, many at once: coefficients solved inside with signs, a search over the exponents.

Variable projection (Golub and Pereyra 1973, with Kaufman's Jacobian) under a Huber loss on log loss, met by
reweighting. Starts, leave-out folds and bootstrap replicates are one batch: they differ in `weights` only.
Axes: B problems, n observations, m coefficients, k exponents.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ratoon.laws.form import Array, Mask

STEP = 1e-5  # of a forward difference in log exponent
STRIDE = 0.7  # longest step of the search, in log exponent
RIDGE = 1e-12  # keeps a rank-deficient subset solvable; far below any noise


@dataclass(frozen=True)
class Problem:
    columns: Callable[[Array], Array]  # exponents (B, k) -> (B, n, m)
    loss: Array  # (n,), nats
    low: Array  # (k,)
    high: Array  # (k,)
    delta: float  # of the Huber loss, in log loss


@dataclass(frozen=True)
class Optimum:
    theta: Array  # (B, k)
    coefficients: Array  # (B, m)
    objective: Array  # (B,): sum of weighted Huber losses on log loss


@dataclass
class _Point:
    """Where the search stands."""

    theta: Array
    columns: Array
    coefficients: Array
    reweighted: Array
    objective: Array

    def take(self, other: "_Point", better: Mask) -> None:
        for name in ("theta", "columns", "coefficients", "reweighted", "objective"):
            getattr(self, name)[better] = getattr(other, name)[better]


def nonnegative(gram: Array, moment: Array, present: Mask) -> Array:
    """argmin c'Gc/2 - h'c with c >= 0 and c = 0 where not `present`, for each of a batch: (B, m).

    Exact: the solution of some subset is the answer, and for few coefficients all subsets are tried.
    """
    scale = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 1e-300))
    gram = gram / (scale[:, :, None] * scale[:, None, :])
    moment = moment / scale
    solved = _subset(gram, moment, present)
    if (refused := np.flatnonzero((solved < 0).any(axis=1))).size:
        subsets = np.array(list(itertools.product([False, True], repeat=moment.shape[1])))
        chosen = subsets[None] & present[refused, None]
        tried = _subset(gram[refused, None], moment[refused, None], chosen)
        value = -np.einsum("bsm,bm->bs", tried, moment[refused])
        value = np.where((tried >= 0).all(axis=2), value, np.inf)
        solved[refused] = tried[np.arange(len(refused)), value.argmin(axis=1)]
    return solved / scale


def _subset(gram: Array, moment: Array, chosen: Mask) -> Array:
    """The unconstrained solution among the chosen coefficients, the others 0."""
    systems = np.where(chosen[..., :, None] & chosen[..., None, :], gram, 0.0)
    systems = systems + np.eye(moment.shape[-1]) * np.where(chosen, RIDGE, 1.0)[..., None]
    return np.linalg.solve(systems, np.where(chosen, moment, 0.0)[..., None])[..., 0]


def huber(predicted: Array, loss: Array, weights: Array, delta: float) -> Array:
    """Sum over observations of the weighted Huber loss of log(predicted / measured): (B,)."""
    distance = np.abs(np.log(np.maximum(predicted, 0.05 * loss) / loss))
    each = np.where(distance <= delta, distance**2 / 2, delta * (distance - delta / 2))
    return np.asarray((weights * each).sum(axis=1))


def reweight(predicted: Array, loss: Array, weights: Array, delta: float) -> Array:
    """Weights with which least squares on the loss has the Huber optimum on log loss as its fixed point."""
    predicted = np.maximum(predicted, 0.05 * loss)
    distance = np.log(predicted / loss)
    near = np.abs(distance) < 1e-7
    gap = np.where(near, 1.0, predicted * (predicted - loss))
    base = np.where(near, loss**-2.0, distance / gap)
    return np.asarray(weights * base * np.minimum(1.0, delta / np.maximum(np.abs(distance), 1e-300)))


def descend(problem: Problem, theta: Array, weights: Array, free: Mask, present: Mask, iterations: int = 40) -> Optimum:
    """Levenberg-Marquardt from each start. `weights` (B, n), `free` (B, k) exponents that may move,
    `present` (B, m) coefficients that may differ from 0."""
    here = _settle(problem, theta, weights / problem.loss**2, weights, present)
    damping = np.full(len(theta), 1e-2)
    still = np.zeros(len(theta), dtype=int)
    for _ in range(iterations):
        moved = _step(problem, here, damping, free)
        there = _settle(problem, moved, here.reweighted, weights, present)
        gain = here.objective - there.objective
        better = gain > 0
        still = np.where(gain > 1e-7 * here.objective, 0, still + 1)
        here.take(there, better)
        damping = np.clip(np.where(better, damping / 4, damping * 5), 1e-9, 1e9)
        if (still >= 4).all():
            break
    return Optimum(here.theta, here.coefficients, here.objective)


def _settle(problem: Problem, theta: Array, reweighted: Array, weights: Array, present: Mask) -> _Point:
    """Coefficients at these exponents: two passes of reweighting, continued from the last ones."""
    columns = problem.columns(theta)
    for _ in range(2):
        weighted = columns * reweighted[..., None]
        gram = np.matmul(columns.transpose(0, 2, 1), weighted)
        coefficients = nonnegative(gram, np.matmul(weighted.transpose(0, 2, 1), problem.loss), present)
        predicted = np.matmul(columns, coefficients[..., None])[..., 0]
        reweighted = reweight(predicted, problem.loss, weights, problem.delta)
    return _Point(theta, columns, coefficients, reweighted, huber(predicted, problem.loss, weights, problem.delta))


def _step(problem: Problem, here: _Point, damping: Array, free: Mask) -> Array:
    """The next exponents to try, (B, k), inside their bounds."""
    k = here.theta.shape[1]
    root = np.sqrt(here.reweighted)
    columns = here.columns * root[..., None]
    residual = np.matmul(columns, here.coefficients[..., None])[..., 0] - root * problem.loss
    jacobian = _project(columns, here.coefficients > 0, _slopes(problem, here) * root[..., None])
    gradient = np.matmul(jacobian.transpose(0, 2, 1), residual[..., None])[..., 0]
    # A bound that the step would cross is left out of the system, so that the others move as if it were fixed.
    stuck = ((here.theta <= problem.low * 1.000001) & (gradient > 0)) | (
        (here.theta >= problem.high * 0.999999) & (gradient < 0)
    )
    moving = free & ~stuck
    jacobian = jacobian * moving[:, None, :]
    curvature = np.matmul(jacobian.transpose(0, 2, 1), jacobian)
    diagonal = np.diagonal(curvature, axis1=1, axis2=2)
    floor = 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    system = curvature + np.eye(k) * np.where(moving, damping[:, None] * diagonal + floor, 1.0)[..., None]
    step = -np.linalg.solve(system, np.where(moving, gradient, 0.0)[..., None])[..., 0]
    moved = here.theta * np.exp(np.clip(step, -STRIDE, STRIDE))
    return np.where(moving, np.clip(moved, problem.low, problem.high), here.theta)


def _slopes(problem: Problem, here: _Point) -> Array:
    """d predicted / d log exponent at fixed coefficients, (B, n, k)."""
    B, k = here.theta.shape
    nudged = here.theta[:, None, :] * np.exp(STEP * np.eye(k))
    columns = problem.columns(nudged.reshape(B * k, k)).reshape(B, k, *here.columns.shape[1:])
    change = columns - here.columns[:, None]
    return np.einsum("bknm,bm->bnk", change, here.coefficients) / STEP


def _project(columns: Array, active: Mask, slopes: Array) -> Array:
    """`slopes` less what the active columns can explain: Kaufman's Jacobian of the projected residual."""
    columns = columns * active[:, None, :]
    scale = np.sqrt(np.maximum((columns**2).sum(axis=1, keepdims=True), 1e-300))
    columns = columns / scale
    gram = np.matmul(columns.transpose(0, 2, 1), columns)
    gram = gram + np.eye(columns.shape[2]) * np.where(active, RIDGE, 1.0)[..., None]
    return slopes - np.matmul(columns, np.linalg.solve(gram, np.matmul(columns.transpose(0, 2, 1), slopes)))
