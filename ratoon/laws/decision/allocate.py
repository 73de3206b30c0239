"""Compute at a fixed ratio: size against tokens (usage 3 of arXiv:2406.01375).

    min over N of  L(N, C / (6 N), r)

For D-CPT at fixed r this is Chinchilla's split with B r^n in the place of B: N = G (C/6)^(b/(a + b)). Here it is found
by search, so that any law that knows size can be asked, and each draw of it has its own split: the interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.believe import GRID, around
from ratoon.laws.decision.candidates import Candidate, fit_all
from ratoon.laws.decision.goals import INTERIOR
from ratoon.laws.form import Array, count_levels
from ratoon.laws.size import train_flops
from ratoon.laws.tables.parents import starts
from ratoon.laws.tables.table import Table, own_share, tabulate
from ratoon.records import Interval, Observation

FLOPS = train_flops(1.0, 1.0)  # per parameter and token
POINTS = 512  # sizes looked at, log-spaced: between them the optimum is that of a parabola
BESIDE = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the best size: of the curve


@dataclass(frozen=True)
class Split:
    """One way to spend the compute."""

    params: float
    tokens: float
    loss: Interval


@dataclass(frozen=True)
class Allocation:
    """Of `flops` at domain share `share`. Sizes and tokens are plain counts."""

    params: Interval
    tokens: Interval
    loss: Interval  # nats per token at the best split
    share: float
    flops: float
    law: str
    reason: str
    curve: tuple[Split, ...]  # the best one, and others around it
    warnings: tuple[str, ...]


def allocate(
    observations: Sequence[Observation], *, share: float, flops: float, config: ChooseConfig, role: Role = "domain"
) -> Allocation:
    """The size and tokens that `flops` are best spent on, for the loss of `role` at domain share `share`.

    Looks no further than far_size and far_tokens from the runs, unless config.extrapolate. Raises ConfigError where no
    law of size can be fitted, or the compute buys no run within that range.
    """
    tables, warnings = tabulate(observations)
    runs = tables[role].runs
    if count_levels(runs.params) == 1:
        raise ConfigError(
            f"all runs have {runs.params[0]:,.0f} parameters; what size is worth cannot be known from one. Run "
            f"at least two more sizes, better three"
        )
    sizes = _range(runs.params, runs.tokens, flops, config)
    own = float(own_share(role, np.array([share]))[0])
    law, left_out = _law_of_size(tables, observations, role, own, sizes, flops, config)
    best = best_split(_line(law, own, flops), sizes)
    forecast = law.forecast(flops / FLOPS / best, config)
    drawn = forecast.draws(sizes, flops / FLOPS / sizes, own)
    params = around(best, np.array([_valley(sizes, row) for row in drawn]))
    value, high, low = (flops / FLOPS / x for x in (params.value, params.low, params.high))

    def spent(size: float) -> Split:
        D = flops / FLOPS / size
        return Split(size, D, around(float(law.loss(size, D, own)), forecast.draws(size, D, own)[:, 0]))

    return Allocation(
        params=params,
        tokens=Interval(value=value, low=low, high=high, confidence=params.confidence),
        loss=spent(best).loss,
        share=share,
        flops=flops,
        law=law.name,
        reason=_why(best, sizes, runs.params, config),
        curve=tuple(spent(best * by) for by in BESIDE if sizes[0] <= best * by <= sizes[-1]),
        warnings=(*warnings, *left_out, *law.doubts(config), *_untried(share, tables[role].share)),
    )


def _law_of_size(
    tables: dict[Role, Table],
    observations: Sequence[Observation],
    role: Role,
    own: float,
    sizes: Array,
    flops: float,
    config: ChooseConfig,
) -> tuple[Candidate, list[str]]:
    """The law that knows size, speaks at this own share and did best on what it had not seen, and what was left
    out."""
    longest = flops / FLOPS / sizes.min()
    found, left_out = fit_all(tables, starts(observations), params=float(sizes.max()), tokens=longest, config=config)
    knowing = [one for one in found if one.role == role and one.fit.form.spans_sizes]
    if not knowing:
        raise ConfigError(f"no law of size could be fitted on these runs: {'; '.join(left_out)}")
    speaking = [one for one in knowing if own > 0 or one.fit.form.speaks_at_zero]
    if not speaking:
        raise ConfigError(
            f"at this share the run reads no {role} text, and about such runs {', '.join(one.name for one in knowing)} "
            f"is silent; ask about a {role} share above 0"
        )
    return min(speaking, key=lambda one: one.error), left_out


def _untried(share: float, tried: Array) -> list[str]:
    low, high = float(tried.min()), float(tried.max())
    if low - GRID / 2 <= share <= high + GRID / 2:
        return []
    return [f"extrapolates beyond the domain shares tried, {low:g} to {high:g}"]


def _range(params: Array, tokens: Array, flops: float, config: ChooseConfig) -> Array:
    """(POINTS,) sizes at which neither size nor tokens are far from the runs."""
    size, length = _far(config)
    low = max(params.min() / size, flops / FLOPS / (tokens.max() * length))
    high = min(params.max() * size, flops / FLOPS / (tokens.min() / length))
    if low >= high:
        raise ConfigError(
            f"{flops:.3g} FLOPs buy no run within {size:g} times the sizes ({params.min():,.0f} to "
            f"{params.max():,.0f}) and {length:g} times the tokens ({tokens.min():,.0f} to {tokens.max():,.0f}) run; "
            f"set choose.extrapolate to true (--extrapolate) to go further"
        )
    return np.asarray(np.geomspace(low, high, POINTS))


def _far(config: ChooseConfig) -> tuple[float, float]:
    """Times the sizes and tokens run, beyond which nothing is looked at."""
    return (1e3, 1e3) if config.extrapolate else (config.far_size, config.far_tokens)


def _why(best: float, sizes: Array, params: Array, config: ChooseConfig) -> str:
    """What kept the size where it is."""
    if sizes[0] * 1.001 < best < sizes[-1] / 1.001:
        return INTERIOR
    size, length = _far(config)
    ends = {"smallest": (sizes[0], params.min() / size), "largest": (sizes[-1], params.max() * size)}
    end = "largest" if best >= sizes[-1] / 1.001 else "smallest"
    limit = f"far_size {size:g}" if np.isclose(*ends[end]) else f"far_tokens {length:g}"
    return f"limited: the {end} size allowed" + ("" if config.extrapolate else f" ({limit}; --extrapolate looks on)")


def _line(law: Candidate, own: float, flops: float) -> Callable[[Array], Array]:
    def loss(params: Array) -> Array:
        return law.fit.loss(params, flops / FLOPS / params, own)

    return loss


def best_split(loss: Callable[[Array], Array], sizes: Array) -> float:
    """The size of least loss: over a grid, then over a finer one around its best."""
    best = int(np.asarray(loss(sizes)).argmin())
    if best in (0, len(sizes) - 1):
        return float(sizes[best])
    # Finer still, and neighbours would differ by less than rounding.
    finer = np.geomspace(sizes[best - 1], sizes[best + 1], len(sizes))
    return _valley(finer, loss(finer))


def _valley(sizes: Array, losses: Array) -> float:
    """The minimum of the parabola in log size through the best point and its neighbours."""
    best = int(losses.argmin())
    if best in (0, len(sizes) - 1):
        return float(sizes[best])
    before, at, after = losses[best - 1 : best + 2]
    bend = before - 2 * at + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(sizes[best] * (sizes[best + 1] / sizes[best]) ** shift)
