"""The best mixture where losses are known by their predictions alone: simulate many, keep the best, walk from there.

RegMix (arXiv:2407.01492) predicts 100 000 simulated mixtures and takes the mean of the best 128: the single best is
one where the regressor errs most on the good side, and the mean is still allowed, since limits on shares are convex.
Here that mean is where a walk begins, which moves share from one domain to another as long as that pays.
"""

from collections.abc import Callable

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.form import Array
from ratoon.laws.mixtures.limits import Goal, Limits
from ratoon.laws.mixtures.simplex import BROKEN, Optimum

SIMULATED = 20_000
BEST = 1 / 800  # of them averaged: RegMix's 128 of 100 000
STRENGTHS = (0.1, 5.0)  # of the Dirichlet draws about a mixture, as RegMix samples its proxies, times their number
STEPS = (0.08, 0.04, 0.02, 0.01, 0.005)  # of the walk; finer shares mean nothing to a sampler of rows
WALK = 200  # moves at most, per step

Predict = Callable[[Array], Array]  # shares (n, d) -> losses (n, p)


def search(
    predict: Predict,
    goal: Goal,
    limits: Limits,
    tried: Array,
    *,
    seed: int = 0,
    simulated: int = SIMULATED,
    starts: Array | None = None,
) -> Optimum:
    """The best allowed mixture found. `tried` (n, d) are mixtures that were run: draws are about them and their
    mean. `starts` are further places to walk from. No proof: `gap` is None.

    Raises ConfigError when none of all mixtures looked at keeps under the ceilings.
    """
    drawn = draw(tried, limits, simulated, np.random.default_rng(seed))
    if starts is not None:
        drawn = np.concatenate([drawn, limits.project(starts)])
    scores, over = _score(predict, goal, drawn)
    order = np.lexsort((scores, np.maximum(over, BROKEN)))
    chosen = [drawn[order[0]]]
    best = drawn[order[: max(int(simulated * BEST), 1)]]
    chosen.append(limits.project(best.mean(axis=0))[0])
    ends = [_walk(predict, goal, limits, shares) for shares in chosen]
    values, broken = _score(predict, goal, np.array(ends))
    at = int(np.lexsort((values, np.maximum(broken, BROKEN)))[0])
    if broken[at] > BROKEN:
        _letter(predict, goal, drawn, ends[at])
    return Optimum(ends[at], float(values[at]), None, None, float(broken[at]))


def draw(tried: Array, limits: Limits, count: int, random: np.random.Generator) -> Array:
    """(count + n, d) allowed mixtures: the tried ones, and Dirichlet draws of many strengths, half of them about the
    mean of the tried and half about the tried themselves."""
    d = tried.shape[1]
    centres = np.where(
        random.random(count)[:, None] < 0.5, tried.mean(axis=0), tried[random.integers(len(tried), size=count)]
    )
    strength = np.exp(random.uniform(np.log(STRENGTHS[0]), np.log(STRENGTHS[1]), count))[:, None] * d
    # Added to each domain: from a share of zero nothing would ever be drawn.
    shapes = strength * (0.9 * centres + 0.1 / d)
    gammas = random.gamma(shapes) + 1e-12
    return limits.project(np.concatenate([tried, gammas / gammas.sum(axis=1, keepdims=True)]))


def _score(predict: Predict, goal: Goal, shares: Array) -> tuple[Array, Array]:
    losses = predict(shares)
    return goal.value(losses, shares), goal.over(losses)


def _walk(predict: Predict, goal: Goal, limits: Limits, shares: Array) -> Array:
    """Of all moves of one step of share between two domains the best, until none helps; then smaller steps."""
    (value,), (over,) = _score(predict, goal, shares[None])
    for step in STEPS:
        for _ in range(WALK):
            moved = _moves(shares, step, limits)
            if not len(moved):
                break
            values, excess = _score(predict, goal, moved)
            at = int(np.lexsort((values, np.maximum(excess, BROKEN)))[0])
            if (max(excess[at], BROKEN), values[at]) >= (max(over, BROKEN), value - 1e-9):
                break
            shares, value, over = moved[at], values[at], excess[at]
    return shares


def _moves(shares: Array, step: float, limits: Limits) -> Array:
    d = len(shares)
    give, take = (pairs.ravel() for pairs in np.meshgrid(range(d), range(d), indexing="ij"))
    sizes = np.minimum(np.minimum(step, shares[give] - limits.low[give]), limits.high[take] - shares[take])
    useful = (give != take) & (sizes > 1e-9)
    moved = np.repeat(shares[None], int(useful.sum()), axis=0)
    rows = np.arange(len(moved))
    moved[rows, give[useful]] -= sizes[useful]
    moved[rows, take[useful]] += sizes[useful]
    return moved


def _letter(predict: Predict, goal: Goal, drawn: Array, nearest: Array) -> None:
    losses, at = predict(drawn), predict(nearest[None])[0]
    named = ", ".join(
        f"{goal.evaluated[i]} (ceiling {goal.ceilings[i]:.4f}, least found alone {losses[:, i].min():.4f}, here "
        f"{at[i]:.4f})"
        for i in np.flatnonzero(np.isfinite(goal.ceilings))
    )
    raise ConfigError(
        f"no mixture within the limits was found that keeps under every ceiling, of {len(drawn):,} simulated; nearest "
        f"comes one with {named}. Raise a ceiling, or widen the limits on shares"
    )
