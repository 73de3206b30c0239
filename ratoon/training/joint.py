"""Ratio x learning rate, ratio x schedule: which of those swept the target run is to take.

The laws of the ratio know one rate and one schedule. So both are settled first, by what was measured at the target's
own size, and the laws then read the runs of that rate and schedule alone.

    learning rate   three or more, crossed with three or more shares: the surface of laws/decision/rates.py (after
                    arXiv:2409.06624), and of the rates swept the one nearest to its best; else the best measured
    schedule        no law reads its shape from a sweep: the best measured

With ratoon.training.growth, a part of this room that reads the laws: a machine that only trains does not import it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ratoon.config import ConfigError, Schedule
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.decision.rates import choose_rate
from ratoon.records import Observation
from ratoon.training.sweep import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class Settled:
    """None: as the recipe has it; nothing was swept."""

    learning_rate: float | None
    schedule: Schedule | None
    observations: list[Observation]  # of that rate and schedule, every size
    said: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """The longest run of one group: mean loss of either role at its end."""

    share: float
    general: float
    domain: float


def settle(plan: Plan, observations: Sequence[Observation], params: int, stakes: Stakes) -> Settled:
    """The rate and schedule for the target, of those that were swept.

    params  of the target's own size; the other sizes follow
    """
    kept, said = list(observations), list[str]()
    schedule = rate = None
    if plan.sweep.schedules is not None:
        schedules = {group.request.name: group.request.recipe.schedule for group in plan.grid()}
        # Compared at the rate each does best at: a schedule is not judged by another's rate.
        schedule, why = best_measured(
            kept, params, stakes, lambda one: schedules[one.group], plan.sweep.schedules, told=lambda s: s.name
        )
        kept = [one for one in kept if schedules[one.group] == schedule]
        said.append(f"schedule {why}; no law reads its shape from a sweep")
    if plan.sweep.learning_rates is not None:
        rate, why = settle_rate(kept, params, stakes, plan.sweep.learning_rates)
        kept = [one for one in kept if one.learning_rate == rate]
        said.append(why)
    return Settled(rate, schedule, kept, tuple(said))


def settle_rate(
    observations: Sequence[Observation], params: int, stakes: Stakes, swept: Sequence[float]
) -> tuple[float, str]:
    if len(swept) == 1:
        return swept[0], f"learning rate {swept[0]:g}, the one that was swept"
    try:
        found = choose_rate(
            observations,
            params_non_embedding=params,
            parent_general=stakes.general,
            parent_domain=stakes.domain,
            config=stakes.config,
        )
    except ConfigError as error:
        rate, why = best_measured(
            observations, params, stakes, lambda one: one.learning_rate, swept, told="{:g}".format
        )
        return rate, f"learning rate {why}; no surface: {error}"
    rate = min(swept, key=lambda one: (abs(math.log(one / found.rate.value)), one))
    warned = "".join(f"; {warning}" for warning in found.warnings)
    return rate, (
        f"learning rate {rate:g}, of those swept the nearest to {found.rate.value:.2g} "
        f"[{found.rate.low:.2g}, {found.rate.high:.2g}], where the surface of share and rate is best{warned}"
    )


def best_measured(
    observations: Sequence[Observation],
    params: int,
    stakes: Stakes,
    key: Callable[[Observation], T],
    among: Sequence[T],
    *,
    told: Callable[[T], str],
) -> tuple[T, str]:
    """Of several settings the one whose best run is best, and the words for it. Of equals the first."""
    points = {n: longest(observations, params, lambda one, it=it: key(one) == it) for n, it in enumerate(among)}  # type: ignore[misc]
    scores = {n: min((worth(point, stakes) for point in found), default=None) for n, found in points.items()}
    measured = {n: score for n, score in scores.items() if score is not None}
    if not measured:
        raise ConfigError(
            f"no run of {params:,} parameters was measured on both roles at its end; run the sweep again, or leave "
            f"sweep.learning_rates and sweep.schedules out"
        )
    best = min(measured, key=lambda n: (measured[n], n))
    at = min(points[best], key=lambda point: worth(point, stakes))
    return among[best], (
        f"{told(among[best])}, the best measured of {', '.join(told(it) for it in among)}: domain {at.domain:.4f} and "
        f"general {at.general:.4f} nats at share {at.share:g}"
    )


def worth(point: Point, stakes: Stakes) -> tuple[float, float]:
    """Less is better: by the goal, a run over the ceiling after all that keep under it."""
    if stakes.config.goal == "weighted":
        weight = stakes.config.general_weight
        return 0.0, weight * point.general / stakes.general + (1 - weight) * point.domain / stakes.domain
    over = max(0.0, point.general - stakes.ceiling)
    return over, point.domain


def longest(observations: Sequence[Observation], params: int, of: Callable[[Observation], bool]) -> list[Point]:
    """The end of every group of one size that ran to the longest horizon; one without a loss is left out."""
    ended = [one for one in observations if one.finished and one.params_non_embedding == params]
    tokens = max((one.tokens for one in ended), default=0)
    groups: dict[str, list[Observation]] = {}
    for one in ended:
        if one.tokens == tokens and of(one):
            groups.setdefault(one.group, []).append(one)
    found = [(rows[0].share, means(rows)) for rows in groups.values()]
    return [Point(share, both["general"], both["domain"]) for share, both in found if len(both) == 2]


def means(rows: Sequence[Observation]) -> Mapping[str, float]:
    losses: dict[str, list[float]] = {}
    for one in rows:
        if one.loss_nats is None:
            return {}
        losses.setdefault(one.role, []).append(one.loss_nats)
    return {role: sum(found) / len(found) for role, found in losses.items()}
