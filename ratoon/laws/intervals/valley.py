"""The sum of squares of a law's runs in units of their noise, with one parameter held at a value.

Any parameter can be held: an exponent by not moving it, a coefficient as it is reported by an observation more, of
itself, that outweighs all others. Many problems are one batch. Outliers are moved in.
Axes: B problems, n observations, k exponents, m coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from ratoon.laws.fitting import varpro
from ratoon.laws.fitting.fit import Fit, flat
from ratoon.laws.fitting.objective import Objective
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.fitting.search import masks, problem
from ratoon.laws.form import Array
from ratoon.laws.intervals.lanes import Lanes
from ratoon.laws.intervals.noise import Noise
from ratoon.laws.intervals.simulate import cleaned

SQUARED = Objective("raw", np.inf)
FIRM = 100.0  # how much more a held coefficient weighs than all runs together
REST = 60  # iterations of the search for the optimum itself
# As good as the end of a range that has none: steps of a log, and times the value.
FAR, FAR_LINEAR = 20.0, 1e6


@dataclass(frozen=True)
class Held:
    """A parameter on the scale it is moved on: coordinate = (log of value)/unit, or value/unit.

    exponent  its place in theta; None: a coefficient, as reported
    """

    name: str
    exponent: int | None
    value: float
    log: bool
    unit: float
    low: float
    high: float

    def size(self, value: float) -> float:
        """What is one where it is held at `value`."""
        return value if self.log else max(abs(value), self.unit)

    def reach(self, side: float) -> float:
        """How far it can be moved to this side."""
        end = self.low if side < 0 else self.high
        inside = np.isfinite(end) and not (self.log and end == 0)
        return abs(self.place(end) - self.place(self.value)) if inside else (FAR if self.log else FAR_LINEAR)

    def place(self, value: float) -> float:
        return float(np.log(value) if self.log else value) / self.unit

    def at(self, coordinate: float) -> float:
        moved = coordinate * self.unit
        return float(np.clip(np.exp(moved) if self.log else moved, self.low, self.high))


@dataclass(frozen=True)
class Valley:
    """The sum of squares of the runs in units of their noise, with a parameter of each problem held."""

    fitted: Fit
    runs: Runs
    lanes: Lanes
    noise: Noise  # one draw

    @cached_property
    def root(self) -> csr_array:
        """(n, n): from nats to units of noise, run by run."""
        n = len(self.runs)
        return csr_array(self.noise.take(np.zeros(n, dtype=int)).whiten(self.lanes, np.eye(n)).T / self.unit)

    def whiten(self, columns: Array) -> Array:
        """(B, n, m)."""
        B, n, m = columns.shape
        wide = columns.transpose(1, 0, 2).reshape(n, B * m)
        return np.asarray((self.root @ wide).reshape(n, B, m).transpose(1, 0, 2))

    @cached_property
    def loss(self) -> Array:
        return cleaned(self.fitted, self.runs)

    @property
    def unit(self) -> Array:
        """(n,): nats that are one in the space of the fit."""
        return np.ones(len(self.runs)) if self.fitted.loss_kind.space == "raw" else self.loss

    @cached_property
    def target(self) -> Array:
        return np.asarray(self.root @ self.loss)

    @property
    def weight(self) -> float:
        return FIRM * float(np.linalg.norm(self.target))

    def minimise(self, held: Sequence[Held], values: Array, theta: Array, iterations: int) -> varpro.Optimum:
        """Problem b has held[b] at values[b]; without any, one problem holds nothing. theta (B, k)."""
        fitted, form = self.fitted, self.fitted.form
        free, present = masks(form, fitted.settled)
        moves = np.broadcast_to(free, theta.shape).copy()
        start, goal = theta.copy(), np.zeros((len(theta), 1))
        for b, one in enumerate(held):
            if one.exponent is None:
                goal[b] = self.weight * values[b] / one.size(values[b])
            else:
                start[b, one.exponent], moves[b, one.exponent] = values[b], False

        def columns(there: Array) -> Array:
            seen = self.whiten(form.columns(there, self.runs.inputs, fitted.frame))
            pins = np.zeros((len(there), 1, seen.shape[2]))
            times = len(there) // len(theta)  # rows of finite differences, next to each other
            for b, one in enumerate(held):
                if one.exponent is None:
                    rows = self.rows(one.name, there[b * times : (b + 1) * times])
                    pins[b * times : (b + 1) * times, 0] = rows * self.weight / one.size(values[b])
            return np.concatenate([seen, pins], axis=1)

        posed = replace(
            problem(form, self.runs, fitted.frame, SQUARED, fitted.settled),
            columns=columns,
            slopes=None,
            loss=np.concatenate([np.broadcast_to(self.target, (len(theta), len(self.runs))), goal], axis=1),
        )
        ones = np.ones((len(theta), len(self.runs) + 1))
        return varpro.descend(
            posed, start, ones, moves, np.broadcast_to(present, (len(theta), len(present))).copy(), iterations
        )

    def rows(self, name: str, theta: Array) -> Array:
        """(B, m) how a reported coefficient is made of the form's."""
        units = np.eye(len(self.fitted.form.linear))
        build, frame = self.fitted.form.build, self.fitted.frame
        return np.array([[flat(build(there, unit, frame))[name] for unit in units] for there in theta])

    @cached_property
    def optimum(self) -> varpro.Optimum:
        return self.minimise((), np.zeros(0), self.fitted.theta[None], REST)

    @cached_property
    def held(self) -> list[Held]:
        """Every parameter that was fitted, at the optimum."""
        form, settled = self.fitted.form, self.fitted.settled
        theta, coefficients = self.optimum.theta[0], self.optimum.coefficients[0]
        found = []
        for k, (name, limits) in enumerate(form.exponents.items()):
            if name not in settled.exponents:
                unit = 1.0 if limits.log else limits.high - limits.low
                found.append(Held(name, k, float(theta[k]), limits.log, unit, limits.low, limits.high))
        fixed = {*form.exponents, *settled.absent, *settled.given}
        reported = flat(form.build(theta, coefficients, self.fitted.frame))
        for name in (name for name in reported if name not in fixed):
            row = self.rows(name, theta[None])[0]
            told = float(row @ coefficients)
            if not row.any() or not np.isclose(told, reported[name], rtol=1e-6, atol=1e-12):
                continue  # a parameter that is no coefficient, such as a normalised exponent: held by its own name
            signed = bool(form.signed[row != 0].all()) and (row >= 0).all()
            moved = float(self.loss.mean()) / max(float(np.abs(row).max()), 1e-300) if told == 0 else abs(told)
            log = bool(signed and told > 0)
            found.append(Held(name, None, told, log, 1.0 if log else moved, 0.0 if signed else -np.inf, np.inf))
        return found
