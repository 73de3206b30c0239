"""What is known of the decision so far: draws of the best share, its interval, and what being wrong would cost."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from ratoon.config import ChooseConfig, Role
from ratoon.laws.decision.believe import SPREAD, crossing, share_grid
from ratoon.laws.decision.candidates import LAWS
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.decision.regret import regrets
from ratoon.laws.design.posterior import DRAWS, Posterior, posterior
from ratoon.laws.design.rows import Rows
from ratoon.laws.form import Array, Form, Mask, count_levels, count_shares
from ratoon.laws.tables.table import own_share

SHARES = share_grid(0.01, 0.99)  # a decision may fall on
FAR = 10.0  # times the held-out misfit at most that is expected of the target
SLOPE = 0.1  # of log tokens, over which the fall of domain loss is taken
ANCHORS = (0.1, 0.3, 0.5, 0.7, 0.9)  # quantiles of r*: where a run may be expected to decide it
FLAT, LEVEL = 0.05, 1e-6  # of the steepest, and nats per share: what is less steep counts as if it were so
HELD = 1.5  # runs longer than the longest divided by this are held out


@dataclass(frozen=True)
class Said:
    """One role's laws, and how far to trust them beyond the longest run.

    misfit  relative: what laws of the shorter runs got wrong of the longest, beyond what their draws allowed
    shocks  (J,) standard normal quantiles in shuffled order
    """

    role: Role
    laws: Posterior
    misfit: float
    longest: float
    shorter: float
    shocks: Array

    def loss(self, params: ArrayLike, tokens: ArrayLike, shares: ArrayLike) -> Array:
        """(J, n) nats per token. A law that is tangent to the truth errs by the square of the stretch in log tokens."""
        stretch = np.log(np.maximum(np.asarray(tokens, dtype=float) / self.longest, 1.0))
        unit = max(np.log(self.longest / self.shorter), 1e-9)
        shift = self.misfit * np.minimum((stretch / unit) ** 2, FAR)
        own = own_share(self.role, np.asarray(shares, dtype=float))
        return np.asarray(self.laws.loss(params, tokens, own) * (1 + shift * self.shocks[:, None]))


@dataclass(frozen=True)
class Belief:
    """J draws of either loss at a target of `params` and `tokens`, and of the decision there.

    best    (J,) r*, the best share of each draw: the largest under the ceiling (0 where none is), or that of the
            least weighted sum
    turns   (J, a) what decides r* by crossing its limit there, at the ANCHORS of r*, in units of the share: general
            loss, or the slope of the weighted goal, over how steep it is there. Nearly linear in the laws, which r* is
            not
    costs   (J, s) regret of taking each of SHARES, as regret.py counts it
    fall    per unit of log tokens at the target, of what regret is counted in: domain loss, or the weighted goal
    """

    said: Mapping[Role, Said]
    params: float
    tokens: float
    stakes: Stakes
    best: Array
    turns: Array
    costs: Array
    fall: float

    @property
    def width(self) -> float:
        return self.width_of(np.full(len(self.best), 1 / len(self.best)))

    @property
    def regret(self) -> float:
        return self.regret_of(np.full(len(self.best), 1 / len(self.best)))

    @property
    def median(self) -> float:
        return quantile(self.best, 0.5)

    def width_of(self, weights: Array) -> float:
        """Of the interval of r* under these weights of the draws."""
        return quantile(self.best, (1 + SPREAD) / 2, weights) - quantile(self.best, (1 - SPREAD) / 2, weights)

    def regret_of(self, weights: Array) -> float:
        """Expected, nats per token, of the share that would be taken under these weights of the draws."""
        expected = weights @ self.costs
        if self.stakes.config.goal == "weighted":
            return float(expected.min())
        safe = quantile(self.best, 1 - self.stakes.config.confidence, weights)
        return float(expected[np.searchsorted(SHARES, safe + 1e-9, side="right").clip(1, len(SHARES)) - 1])

    @property
    def roles(self) -> tuple[Role, ...]:
        """Whose losses the decision hangs on."""
        return ("general", "domain") if self.stakes.config.goal == "weighted" else ("general",)

    def measured(self, runs: Sequence[tuple[float, float, Sequence[float]]]) -> list[tuple[Array, Array]]:
        """For each (size, share, horizons) the (J, q) losses it would be seen to have, and the (q, q) covariance of
        their noise. Draws that say nothing of that size expect what the others do:
        they learn nothing from it."""
        params, shares, tokens = (
            np.array([x for run in runs for x in column(run)])
            for column in (lambda run: [run[0]] * len(run[2]), lambda run: [run[1]] * len(run[2]), lambda run: run[2])
        )
        tables = [self._expected(role, params, tokens, shares) for role in self.roles]
        ends = np.cumsum([0] + [len(run[2]) for run in runs])
        found = []
        for start, end in itertools.pairwise(ends):
            values = [table[:, start:end] for table in tables]
            noise = [
                self.said[role].laws.noise_of(one.mean(axis=0)) for role, one in zip(self.roles, values, strict=True)
            ]
            found.append((np.concatenate(values, axis=1), block_diag(*noise)))
        return found

    def _expected(self, role: Role, params: Array, tokens: Array, shares: Array) -> Array:
        values = self.said[role].loss(params, tokens, shares)
        for size in np.unique(params):
            speaks, at = self.speaks(size), params == size
            if not speaks.all():
                values[np.ix_(~speaks, at)] = values[np.ix_(speaks if speaks.any() else ~speaks, at)].mean(axis=0)
        return values

    def speaks(self, params: float) -> Mask:
        return np.logical_and.reduce([self.said[role].laws.speaks(params) for role in self.roles])


def believe_weakly(rows: Mapping[Role, Rows], *, params: float, tokens: float, stakes: Stakes) -> Belief:
    """From whatever runs there are, be they three: where they are silent, exponents keep their declared ranges; the
    truth may depart from any law unless `form_doubt` is 0."""
    law = stakes.config.law
    forms = [LAWS[law]] if law in LAWS else list(LAWS.values())
    said = {role: _said(role, mine, forms, params, tokens, stakes.config) for role, mine in rows.items()}
    general, domain = (said[role].loss(params, tokens, SHARES) for role in ("general", "domain"))
    if stakes.config.goal == "weighted":
        best = SHARES[stakes.value(general, domain).argmin(axis=1)]
    else:
        best = np.maximum(crossing(SHARES, general, stakes.ceiling), 0.0)
    costs = [regrets(general, domain, general[:, k], domain[:, k], stakes) for k in range(len(SHARES))]
    turns = _turns(general, domain, best, stakes)
    fall = _fall(said, params, tokens, stakes, best)
    return Belief(said, params, tokens, stakes, best, turns, np.stack(costs, axis=1), fall)


def _turns(general: Array, domain: Array, best: Array, stakes: Stakes) -> Array:
    at = np.searchsorted(SHARES, np.quantile(best, ANCHORS)).clip(0, len(SHARES) - 1)
    turning = np.gradient(stakes.value(general, domain), axis=1) if stakes.config.goal == "weighted" else general
    steep = np.abs(np.median(np.gradient(turning, SHARES, axis=1), axis=0))
    return np.asarray((turning / np.maximum(steep, max(FLAT * steep.max(), LEVEL)))[:, at])


def _fall(said: Mapping[Role, Said], params: float, tokens: float, stakes: Stakes, best: Array) -> float:
    """Of domain loss or the weighted goal per unit of log tokens, at the target and the median of r*."""
    share, times = np.median(best).clip(SHARES[0], SHARES[-1]), np.array([1.0, np.exp(SLOPE)])
    general, domain = (said[role].loss(params, tokens * times, share).mean(axis=0) for role in ("general", "domain"))
    now, later = stakes.value(general, domain) if stakes.config.goal == "weighted" else domain
    return max(float(now - later) / SLOPE, 0.0)


def _said(role: Role, rows: Rows, forms: Sequence[Form], params: float, tokens: float, config: ChooseConfig) -> Said:
    seed, departs = 2 * config.seed + (role == "domain"), config.form_doubt > 0
    runs = rows.runs
    laws = posterior(forms, rows, params=params, tokens=tokens, seed=seed, departs=departs)
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((k + 0.5) / laws.draws) for k in range(laws.draws)])
    shocks = np.random.default_rng(seed).permutation(quantiles)
    longest = float(runs.tokens.max())
    kept = runs.tokens <= longest / HELD
    shorter = float(runs.tokens[kept].max(initial=runs.tokens.min()))
    return Said(role, laws, _misfit(rows, forms, kept, params, seed, departs), longest, shorter, shocks)


def _misfit(rows: Rows, forms: Sequence[Form], kept: Mask, params: float, seed: int, departs: bool) -> float:
    """0 where too little would be left to foresee the longest runs from."""
    runs = rows.runs
    sizes = np.unique(runs.params)
    own = (runs.params == sizes[np.abs(np.log(sizes / params)).argmin()]) & (runs.own > 0)
    held, left = own & ~kept & ~rows.loose.any(axis=1), own & kept  # a former sweep's level cannot be foreseen
    if not held.any() or count_shares(runs.own[left]) < 3 or count_levels(runs.tokens[left]) < 2:
        return 0.0
    longest = float(runs.tokens.max())
    before = posterior(
        forms, rows.where(left), params=params, tokens=longest, draws=DRAWS // 2, seed=seed, departs=departs
    )
    foreseen = before.loss(runs.params[held], runs.tokens[held], runs.own[held])
    away = foreseen.mean(axis=0) / runs.loss[held] - 1
    allowed = np.var(foreseen, axis=0) / runs.loss[held] ** 2 + before.noise**2
    return float(np.sqrt(max(np.mean(away**2 - allowed), 0.0)))


def quantile(values: Array, level: float, weights: Array | None = None) -> float:
    """Of weighted draws; linear between them."""
    if weights is None:
        return float(np.quantile(values, level))
    order = np.argsort(values, kind="stable")
    middle = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(level, middle, values[order]))
