"""The best mixture where losses are laws: a convex programme, with the proof that it was solved.

    minimise  sum_i w_i L_i(h) + kappa KL(h | reference)   over  low <= h <= high, sum h = 1, L_i(h) <= ceiling_i

Laws that are convex in h (c + k exp(t.h); 1/sum C h^g with every g <= 1) make every local optimum the global one. The
proof does not come from the solver: the residual of the Karush-Kuhn-Tucker conditions, and `gap`, the most by which
the optimum can lie lower, from a linear bound under the Lagrangian. Where a law is not convex the bound does not hold:
several starts are tried, `gap` is None and the residual says no more than that no small step helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import minimize, nnls

from ratoon.config import ConfigError
from ratoon.laws.form import Array
from ratoon.laws.mixtures.limits import Goal, Limits

ACTIVE = 1e-6  # a share this near to its limit, or a loss to its ceiling, counts as at it
TINY = 1e-12  # the least share under a pull, whose slope at zero is infinite
BROKEN = 1e-6  # nats over a ceiling that are rounding
PROVEN = 1e-5  # nats: a gap no measurement resolves


class Smooth(Protocol):
    @property
    def convex(self) -> bool: ...

    def loss(self, shares: Array) -> Array: ...

    def gradient(self, shares: Array) -> Array: ...


@dataclass(frozen=True)
class Optimum:
    shares: Array  # (d,)
    value: float  # nats: the goal, its pull included
    residual: float | None  # of the KKT conditions, largest entry in nats per share; None: no gradient to take it of
    gap: float | None  # nats, at most so far above the least possible. None: not convex, or searched
    over: float = 0.0  # nats over the worst ceiling

    @property
    def proven(self) -> bool:
        return self.gap is not None and self.gap <= PROVEN and self.over <= BROKEN


@dataclass(frozen=True)
class Programme:
    surfaces: Sequence[Smooth]  # (p)
    goal: Goal
    limits: Limits

    @property
    def convex(self) -> bool:
        return all(one.convex for one, matters in zip(self.surfaces, self.goal.matters, strict=True) if matters)

    @property
    def bounded(self) -> list[int]:
        return np.flatnonzero(np.isfinite(self.goal.ceilings)).tolist()

    @property
    def low(self) -> Array:
        return np.maximum(self.limits.low, TINY) if self.goal.pull > 0 else self.limits.low

    def losses(self, shares: Array) -> Array:
        """(p,); 0 for those that do not matter."""
        pairs = zip(self.surfaces, self.goal.matters, strict=True)
        return np.array([float(one.loss(shares)[0]) if matters else 0.0 for one, matters in pairs])

    def value(self, shares: Array) -> float:
        return float(self.goal.value(self.losses(shares)[None], shares[None])[0])

    def gradient(self, shares: Array) -> Array:
        found = np.zeros_like(shares)
        for one, weight in zip(self.surfaces, self.goal.weights, strict=True):
            if weight > 0:
                found += weight * one.gradient(shares)
        if self.goal.pull > 0 and self.goal.reference is not None:
            found += self.goal.pull * (np.log(np.maximum(shares, TINY) / self.goal.reference) + 1)
        return found


def solve(surfaces: Sequence[Smooth], goal: Goal, limits: Limits, starts: Array | None = None) -> Optimum:
    """The best allowed mixture. `starts` (k, d) are further places to begin, of use where a law is not convex.

    Raises ConfigError when no allowed mixture keeps under the ceilings, naming which and what is reachable.
    """
    programme = Programme(surfaces, goal, limits)
    middle = limits.project(goal.reference if goal.reference is not None else np.full(len(limits.low), 1.0))
    begin = middle if starts is None else np.concatenate([middle, limits.project(starts)])
    if not programme.convex:
        begin = np.concatenate([begin, limits.project(0.9 * np.eye(len(limits.low)) + 0.1 * middle)])
    found = [_descend(programme, start) for start in (begin[:1] if programme.convex else begin)]
    kept = [shares for shares in found if _over(programme, shares) <= BROKEN]
    if not kept and programme.bounded:
        kept = [_descend(programme, reachable(programme))]
    best = min(kept or found, key=programme.value)
    return certify(programme, best)


def _over(programme: Programme, shares: Array) -> float:
    return float(programme.goal.over(programme.losses(shares)[None])[0])


def _descend(programme: Programme, start: Array) -> Array:
    """Sequential quadratic programming, ended by a projection that makes the sum exact."""
    ceilings = [
        {
            "type": "ineq",
            "fun": lambda h, i=i: programme.goal.ceilings[i] - float(programme.surfaces[i].loss(h)[0]),
            "jac": lambda h, i=i: -programme.surfaces[i].gradient(h),
        }
        for i in programme.bounded
    ]
    total = {"type": "eq", "fun": lambda h: h.sum() - 1, "jac": lambda h: np.ones_like(h)}
    at = np.clip(start, programme.low, programme.limits.high)
    for _ in range(3):  # from where it ended with a fresh curvature: what one pass left, the next takes
        found = minimize(
            programme.value,
            at,
            jac=programme.gradient,
            method="SLSQP",
            bounds=list(zip(programme.low, programme.limits.high, strict=True)),
            constraints=[total, *ceilings],
            options={"ftol": 1e-14, "maxiter": 500},
        )
        if not np.isfinite(found.x).all():
            break
        there = programme.limits.project(found.x)[0]
        if np.abs(there - at).max() < 1e-10:
            break
        at = there
    return at


def reachable(programme: Programme) -> Array:
    """A mixture under all ceilings, or a letter about those that are in the way."""
    free = Goal(programme.goal.evaluated, programme.goal.weights, np.full(len(programme.surfaces), np.inf))
    at = programme.limits.project(np.full(len(programme.low), 1.0))[0]
    for i in programme.bounded:
        alone = Programme(programme.surfaces, _only(free, i), programme.limits)
        least = _descend(alone, at)
        if (lowest := alone.value(least)) > programme.goal.ceilings[i] + BROKEN:
            raise ConfigError(
                f"loss of {free.evaluated[i]} can be brought to {lowest:.4f} nats within the limits on shares, and its "
                f"ceiling is {programme.goal.ceilings[i]:.4f}; raise that ceiling or widen the limits"
            )
    # The least sum of squared excesses: convex where the laws are, and zero where a mixture keeps them all.
    excess = _Excess(programme)
    least = _descend(Programme([excess], Goal(("excess",), np.ones(1), np.full(1, np.inf)), programme.limits), at)
    if _over(programme, least) > 1e-4:
        over = programme.losses(least) - programme.goal.ceilings
        named = ", ".join(f"{free.evaluated[i]} {over[i]:+.4f}" for i in programme.bounded)
        raise ConfigError(
            f"each ceiling can be kept, but not all at once: at the mixture that breaks them least they are missed by "
            f"{named} nats; raise some, or widen the limits on shares"
        )
    return least


def _only(goal: Goal, i: int) -> Goal:
    return Goal(goal.evaluated, np.eye(len(goal.weights))[i], goal.ceilings)


@dataclass(frozen=True)
class _Excess:
    programme: Programme

    @property
    def convex(self) -> bool:
        return self.programme.convex

    def _each(self, shares: Array) -> Array:
        bounded = self.programme.bounded
        return np.maximum(self.programme.losses(shares) - self.programme.goal.ceilings, 0.0)[bounded]

    def loss(self, shares: Array) -> Array:
        return np.atleast_1d((self._each(shares) ** 2).sum())

    def gradient(self, shares: Array) -> Array:
        pairs = zip(self._each(shares), self.programme.bounded, strict=True)
        parts = [2 * over * self.programme.surfaces[i].gradient(shares) for over, i in pairs if over > 0]
        return np.asarray(sum(parts, np.zeros_like(shares)))


def certify(programme: Programme, shares: Array) -> Optimum:
    """What is known of this mixture, by its gradients alone."""
    low, high = programme.low, programme.limits.high
    slope = programme.gradient(shares)
    losses = programme.losses(shares)
    tight = [i for i in programme.bounded if losses[i] > programme.goal.ceilings[i] - ACTIVE]
    bends = [programme.surfaces[i].gradient(shares) for i in tight]
    unit = np.eye(len(shares))
    pushes = [-unit[j] for j in np.flatnonzero(shares - low < ACTIVE)] + [
        unit[j] for j in np.flatnonzero(high - shares < ACTIVE)
    ]
    ones = np.ones_like(shares)
    columns = np.stack([ones, -ones, *bends, *pushes], axis=1)
    multipliers, _ = nnls(columns, -slope, maxiter=100 * columns.shape[1])
    residual = float(np.abs(slope + columns @ multipliers).max())
    prices = multipliers[2 : 2 + len(tight)]
    lagrangian = slope + sum((price * bend for price, bend in zip(prices, bends, strict=True)), np.zeros_like(slope))
    room = sum(price * (programme.goal.ceilings[i] - losses[i]) for price, i in zip(prices, tight, strict=True))
    gap = float(lagrangian @ (shares - programme.limits.least(lagrangian)) + room)
    return Optimum(
        shares=shares,
        value=programme.value(shares),
        residual=residual,
        gap=max(gap, 0.0) if programme.convex else None,
        over=_over(programme, shares),
    )
