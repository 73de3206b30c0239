"""How far chance moves a parameter, where the noise that moves it is itself only known in draws.

To first order a parameter's estimate is a weighted sum of the measurements. Luck of the runs enters through the sums of
these weights over each run, noise of the measurements through the weights one by one: a power of tokens is told from
within runs and hardly feels luck, a level feels little else. So each parameter has its own quantile.
"""

from collections.abc import Sequence

import numpy as np

from ratoon.laws.fitting.fit import flat
from ratoon.laws.fitting.identify import SINGULAR, jacobian
from ratoon.laws.fitting.search import masks, problem
from ratoon.laws.form import Array
from ratoon.laws.intervals.lanes import Lanes
from ratoon.laws.intervals.noise import Noise, normal_quantiles
from ratoon.laws.intervals.valley import SQUARED, Held, Valley

STEP = 1e-5  # of a central difference
AT_END = 1e-3  # of an exponent, or of its range, within which it is at the end of it and no longer moves


def criticals(valley: Valley, held: Sequence[Held], noise: Noise, lanes: Lanes, confidence: float) -> Array:
    """How many standard deviations, under `valley.noise`, chance moves each as often as `confidence`."""
    shifts, found = normal_quantiles(), []
    for row in _weights(valley, held):
        # At the end of its range a parameter does not move to first order: it is counted as a level is.
        row = row if row.any() else np.ones(len(lanes))
        scale = np.sqrt(variance(noise, lanes, row) / variance(valley.noise, lanes, row))
        found.append(float(np.quantile(np.outer(scale, shifts), confidence)))
    return np.array(found)


def variance(noise: Noise, lanes: Lanes, weights: Array) -> Array:
    """(R,) of a sum of the measurements under weights (n,), in each draw of the noise."""
    shared = float(((weights @ lanes.indicator) ** 2).sum())
    n, each = len(lanes), np.empty(len(noise.memory))
    for memory in np.unique(noise.memory):
        of_news = lanes.remember(np.full(n, memory), np.eye(n)) @ weights
        each[noise.memory == memory] = float(of_news @ of_news)
    return np.asarray(noise.luck**2 * shared + noise.measurement**2 * each)


def _weights(valley: Valley, held: Sequence[Held]) -> Array:
    """(held, n): by how much each measurement moves each parameter, in the units of the noise."""
    fitted = valley.fitted
    form, theta, coefficients = fitted.form, valley.optimum.theta[0], valley.optimum.coefficients[0]
    slack = AT_END * np.where(form.logarithmic, np.abs(theta), form.high - form.low)
    inside = (theta > form.low + slack) & (theta < form.high - slack)
    free, present = masks(form, fitted.settled)
    posed = problem(form, valley.runs, fitted.frame, SQUARED, fitted.settled)
    used = np.concatenate([inside & free, present & ~posed.known & ((coefficients != 0) | ~form.signed)])
    root = valley.root.toarray()
    design = root @ jacobian(posed, theta, coefficients)
    length = np.sqrt((design**2).sum(axis=0))
    used &= length > 0
    moved = np.linalg.pinv(design[:, used] / length[used], rcond=SINGULAR) / length[used, None] @ root
    return np.array([_gradient(valley, one)[used] @ moved for one in held]) * valley.unit


def _gradient(valley: Valley, one: Held) -> Array:
    """(k + m,) of a parameter by exponents and coefficients, on the scales of `jacobian`."""
    fitted, optimum = valley.fitted, valley.optimum
    form, theta, coefficients = fitted.form, optimum.theta[0], optimum.coefficients[0]
    k, m = len(theta), len(coefficients)
    if one.exponent is not None:
        return np.eye(k + m)[one.exponent]
    found = np.empty(k + m)
    for place in range(k + m):
        told = []
        for side in (-STEP, STEP):
            there, those = theta.copy(), coefficients.copy()
            if place < k:
                step = side if form.logarithmic[place] else side * (form.high - form.low)[place]
                there[place] = there[place] * np.exp(side) if form.logarithmic[place] else there[place] + step
            else:
                those[place - k] += side * (coefficients[place - k] if form.signed[place - k] else 1.0)
            told.append(flat(form.build(there, those, fitted.frame))[one.name])
        unit = 1.0 if place >= k or form.logarithmic[place] else float((form.high - form.low)[place])
        found[place] = (told[1] - told[0]) / (2 * STEP * unit)
    return found
