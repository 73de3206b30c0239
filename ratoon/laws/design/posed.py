"""One form beside few runs: how likely it is at each point of its exponents, coefficients and departure integrated out.

Axes: J draws, n observations, m coefficients, k weights of the departure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from ratoon.laws.design.departure import NO_DEPARTURE, Departure
from ratoon.laws.design.rows import NOISE, Rows
from ratoon.laws.fitting import varpro
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, Form

STILLEST = 1e-5  # relative: of less noise runs and prior could not be added up in floating point
NOISE_SPREAD = 1.5  # of its logarithm: known to a factor of four and a half
LEVEL = 0.002  # relative, of what the truth may have beside a form: as much as noise
LEVEL_SPREAD = 1.5  # of its logarithm
CERTAIN = 1 - 1e-9  # probability below which a level has a number
TRUE = 0.5  # probability beforehand that the form is the truth, and the level 0: as likely as not
REACH = 2.0  # standard deviations of the prior from the middle of an exponent's range to its ends


@dataclass(frozen=True)
class Posed:
    """One form on its rows, whitened at relative noise 1 and turned so that the departure's directions are apart.

    reach  (n,) how far a departure of level 1 moves each direction, in noises of level 1
    axes   (k, k) the departure's weights that do so, in columns

    A point holds the exponents, where the truth may depart what its level is drawn by, and the log noise.
    """

    form: Form
    frame: Any
    runs: Runs
    whiten: Array  # (n, n)
    scale: float  # of a coefficient, nats
    departure: Departure
    reach: Array
    axes: Array

    @property
    def departs(self) -> bool:
        return len(self.axes) > 0

    @cached_property
    def middle(self) -> Array:
        low, high = self._ends()
        return np.append((low + high) / 2, [0.0, np.log(NOISE)] if self.departs else [np.log(NOISE)])

    @cached_property
    def spread(self) -> Array:
        low, high = self._ends()
        return np.append((high - low) / 2 / REACH, [1.0, NOISE_SPREAD] if self.departs else [NOISE_SPREAD])

    @cached_property
    def whitened(self) -> Array:
        """(n,) losses."""
        return np.asarray(self.whiten @ self.runs.loss)

    def _ends(self) -> tuple[Array, Array]:
        low, high = self.form.low, self.form.high
        logarithmic = self.form.logarithmic
        return tuple(np.where(logarithmic, np.log(np.where(logarithmic, x, 1.0)), x) for x in (low, high))  # type: ignore[return-value]

    def theta(self, at: Array) -> Array:
        inner = at[:, : len(self.form.exponents)]
        return np.where(self.form.logarithmic, np.exp(np.where(self.form.logarithmic, inner, 0.0)), inner)

    def prior(self, at: Array) -> Array:
        away = (at - self.middle) / self.spread
        inside = (np.abs(away[:, : len(self.form.exponents)]) <= REACH).all(axis=1) & (at[:, -1] >= np.log(STILLEST))
        return np.where(inside, -0.5 * (away**2).sum(axis=1), -np.inf)

    def level(self, at: Array) -> Array:
        """(J,) relative, of the departure: 0 below the TRUE quantile of a normal, and log-normal from there on."""
        above = np.clip((ndtr(at[:, -2]) - TRUE) / (1 - TRUE), 0.0, CERTAIN)
        return np.asarray(LEVEL * np.exp(LEVEL_SPREAD * ndtri(above)))

    def shrink(self, at: Array) -> Array:
        """(J, n) by which each direction counts less than its noise alone would have it."""
        if not self.departs:
            return np.ones((len(at), len(self.runs)))
        return np.asarray(1 / np.sqrt(1 + ((self.level(at) * np.exp(-at[:, -1]))[:, None] * self.reach) ** 2))

    def normal(self, at: Array) -> tuple[Array, Array]:
        """Gram matrix (J, m, m) and moment (J, m) of the coefficients, prior included."""
        shrink = self.shrink(at)
        columns = np.matmul(self.whiten, self.form.columns(self.theta(at), self.runs.inputs, self.frame))
        columns = columns * shrink[..., None]
        inverse = np.exp(-2 * at[:, -1])[:, None]
        transposed = columns.transpose(0, 2, 1)
        gram = np.matmul(transposed, columns) * inverse[..., None]
        moment = np.matmul(transposed, (shrink * self.whitened)[..., None])[..., 0] * inverse
        return gram + np.eye(gram.shape[1]) / self.scale**2, moment

    def solve(self, gram: Array, moment: Array) -> Array:
        present = np.ones(moment.shape, dtype=bool)
        return varpro.solve(gram, moment, present, self.form.signed)

    def likelihood(self, at: Array) -> Array:
        """(J,) log, coefficients integrated out. Where the sign of one binds, as if at its best allowed value."""
        gram, moment = self.normal(at)
        best = self.solve(gram, moment)
        shrink = self.shrink(at)
        rest = ((shrink * self.whitened) ** 2).sum(axis=1) * np.exp(-2 * at[:, -1])
        square = rest - 2 * (moment * best).sum(axis=1) + np.einsum("ji,jik,jk->j", best, gram, best)
        width = np.linalg.slogdet(gram)[1] + gram.shape[1] * 2 * np.log(self.scale)
        found = -0.5 * square - 0.5 * width - len(self.runs) * at[:, -1] + np.log(shrink).sum(axis=1)
        return np.where(np.isfinite(found), found, -np.inf)


def pose(form: Form, rows: Rows, reach: Mapping[str, Array], departs: bool) -> Posed:
    frame = form.frame(rows.runs.inputs, reach)
    scale = float(rows.runs.loss.mean())
    if not departs:
        return Posed(form, frame, rows.runs, rows.whiten, scale, NO_DEPARTURE, np.zeros(0), np.zeros((0, 0)))
    departure = Departure.over(rows.runs.inputs, reach)
    turn, lengths, axes = np.linalg.svd(rows.whiten @ departure.columns(rows.runs.inputs) * scale)
    reached = np.zeros(len(rows.runs))
    reached[: len(lengths)] = lengths
    return Posed(form, frame, rows.runs, turn.T @ rows.whiten, scale, departure, reached, axes.T)


def draw_away(posed: Posed, at: Array, coefficients: Array, random: np.random.Generator) -> Array:
    """(J, k) nats: the departure's weights, given the form."""
    if not posed.departs:
        return np.zeros((len(at), 0))
    columns = np.matmul(posed.whiten, posed.form.columns(posed.theta(at), posed.runs.inputs, posed.frame))
    rest = posed.whitened - np.matmul(columns, coefficients[..., None])[..., 0]
    level, noise = posed.level(at)[:, None], np.exp(at[:, -1:])
    weights = random.standard_normal((len(at), len(posed.axes)))
    seen = min(weights.shape[1], rest.shape[1])
    length = level * posed.reach[:seen]
    both = length**2 + noise**2
    weights[:, :seen] = length * rest[:, :seen] / both + weights[:, :seen] * noise / np.sqrt(both)
    return np.asarray(level * posed.scale * weights @ posed.axes.T)
