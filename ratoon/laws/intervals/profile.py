"""Which values of a parameter the runs allow: its profile likelihood, and whether that closes.

One parameter is held at a value while all others are fitted anew; the value is allowed as long as the sum of squares,
in units of the noise (noise.py), rises by no more than chance would raise it. Unlike a standard error this follows the
valley along which two parameters trade. Where one can go to the end of its range and the others make up for it the
interval does not close on that side: the runs do not identify the parameter.

Outliers are moved in and observations of weight 0 left out; other weights say how much a row counts in a fit, not how
noisy it is, and are not read. Axes: B problems (parameters x sides), n observations, k exponents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.fitting.fit import Fit, flat
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, Exponent, Mask
from ratoon.laws.intervals.chance import criticals
from ratoon.laws.intervals.known import Scale
from ratoon.laws.intervals.lanes import Lanes, Places
from ratoon.laws.intervals.simulate import noise_of, spoken
from ratoon.laws.intervals.valley import Held, Valley

DRAWS = 400  # of the noise
FIRST = 0.02  # first step: of a log, of the range where an exponent's scale is linear, of the value
AHEAD = 1.1  # past where the rise so far points to, to have it bracketed
LEAP = 30.0  # times the distance so far, at most
NEAR = 0.2  # of the root of the rise, over which it is a straight line
TURNS = 16
AT_END = 1e-3  # of an exponent, or of its range, within which it is at the end of it
ITERATIONS = 25


class Profile(NamedTuple):
    """In the units of `Fit.params`. A side that does not close ends at the end of the parameter's range.

    leans_on  exponents that were at the end of their own range where the interval ends: it closes because theirs is
              declared, not because the runs say so
    """

    name: str
    value: float  # of the fit
    low: float
    high: float
    closes_below: bool
    closes_above: bool
    leans_on: tuple[str, ...]

    @property
    def identified(self) -> bool:
        return self.closes_below and self.closes_above and not self.leans_on


def profile(
    fitted: Fit,
    runs: Runs,
    groups: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    confidence: float = 0.9,
    known: Scale | None = None,
    seed: int = 0,
) -> tuple[Profile, ...]:
    """Profile intervals of the parameters that were fitted: exponents by their names, coefficients as `Fit.params`
    reports them.

    known  the measurements' noise, where something other than these runs tells it

    Raises ConfigError where a name is none of these.
    """
    runs, groups = spoken(fitted, runs, groups)
    used = runs.weights > 0
    runs, lanes = runs.where(used), Lanes.of(groups, runs.inputs).where(used)
    noise = noise_of(fitted, runs, lanes, draws=DRAWS, random=np.random.default_rng(seed), known=known)
    valley = Valley(fitted, runs, lanes, noise.typical)
    held = valley.held
    if names is not None:
        have = [one.name for one in held]
        if wrong := [name for name in names if name not in have]:
            raise ConfigError(f"{fitted.form.name}: {wrong[0]!r} is no parameter that was fitted; those are {have}")
        held = [one for one in held if one.name in names]
    if not held:
        return ()
    critical = criticals(valley, held, noise, lanes, confidence)
    return _Walk(valley, [one for one in held for _ in (0, 1)], np.repeat(critical, 2)).profiles()


@dataclass
class _Walk:
    """From the optimum outwards to both sides of every parameter, until the rise is more than chance.

    Problems come in pairs, below and above. Rises are roots of the rise of the sum of squares: straight lines where
    the runs' information is as good as normal.
    """

    valley: Valley
    held: list[Held]  # one per problem
    critical: Array  # of each problem

    def __post_init__(self) -> None:
        size = len(self.held)
        self.side = np.tile([-1.0, 1.0], size // 2)
        self.middle = np.array([one.place(one.value) for one in self.held])
        self.limit = np.array([one.reach(side) for one, side in zip(self.held, self.side, strict=True)])
        self.theta = np.repeat(self.valley.optimum.theta, size, axis=0)
        self.inner, self.low = np.zeros(size), np.zeros(size)  # the farthest allowed, and its rise
        self.outer, self.high = np.full(size, np.inf), np.full(size, np.inf)  # the nearest that is not

    def profiles(self) -> tuple[Profile, ...]:
        for _ in range(TURNS):
            open_ = (self.inner < self.limit) & (self.high - self.low > NEAR)
            if not open_.any():
                break
            self.turn(np.flatnonzero(open_))
        closes = np.isfinite(self.outer)
        part = (self.critical - self.low) / np.where(closes, self.high - self.low, 1.0)
        ends = self.inner + part * np.where(closes, self.outer - self.inner, 0.0)
        reported = [
            self.reported(one, one.at(float(at)) if closed else (one.low if side < 0 else one.high))
            for one, at, side, closed in zip(self.held, self.middle + self.side * ends, self.side, closes, strict=True)
        ]
        return tuple(
            self.interval(i, reported[i : i + 2], [bool(x) for x in closes[i : i + 2]])
            for i in range(0, len(self.held), 2)
        )

    def turn(self, at: Places) -> None:
        """One step of these problems: outwards until the rise is too much, then in between."""
        inner, outer, low, high, critical = (
            x[at] for x in (self.inner, self.outer, self.low, self.high, self.critical)
        )
        bracketed = np.isfinite(outer)
        part = (critical - low) / np.where(bracketed, high - low, 1.0)
        between = inner + np.clip(part, 0.1, 0.9) * np.where(bracketed, outer - inner, 0.0)
        ahead = inner * np.clip(AHEAD * critical / np.maximum(low, 1e-12), 2.0, LEAP)
        tried = np.where(bracketed, between, np.minimum(np.where(inner > 0, ahead, FIRST), self.limit[at]))
        held = [self.held[b] for b in at]
        places = self.middle[at] + self.side[at] * tried
        values = np.array([one.at(float(x)) for one, x in zip(held, places, strict=True)])
        found = self.valley.minimise(held, values, self.theta[at], ITERATIONS)
        rise = np.sqrt(np.maximum(2 * (found.value - self.valley.optimum.value[0]), 0.0))
        over = rise > critical
        self.inner[at], self.low[at] = np.where(over, inner, tried), np.where(over, low, rise)
        self.outer[at], self.high[at] = np.where(over, tried, outer), np.where(over, rise, high)
        self.theta[at] = np.where(over[:, None], self.theta[at], found.theta)

    def interval(self, at: int, ends: Sequence[float], closes: Sequence[bool]) -> Profile:
        one, fitted = self.held[at], self.valley.fitted
        own = one.value if one.exponent is None else float(fitted.theta[one.exponent])
        value = fitted.params.get(one.name, own)
        leans = tuple(
            name
            for k, (name, limits) in enumerate(fitted.form.exponents.items())
            if k != one.exponent
            and name not in fitted.settled.exponents
            and at_end(self.theta[at : at + 2, k], limits).any()
        )
        return Profile(one.name, value, min(ends[0], value), max(ends[1], value), closes[0], closes[1], leans)

    def reported(self, one: Held, value: float) -> float:
        fitted = self.valley.fitted
        if one.exponent is None or one.name not in fitted.params:
            return value
        theta = fitted.theta.copy()
        theta[one.exponent] = value
        return flat(fitted.form.build(theta, fitted.coefficients, fitted.frame))[one.name]


def at_end(values: Array, limits: Exponent) -> Mask:
    slack = AT_END * np.abs(values) if limits.log else AT_END * (limits.high - limits.low)
    return np.asarray((values <= limits.low + slack) | (values >= limits.high - slack))
