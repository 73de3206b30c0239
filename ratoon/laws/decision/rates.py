"""Domain share and peak learning rate from one table: runs at several of both, by a quadratic surface for either loss.

What laws/equations/almr.py fits and joint.py minimises, with the goal and the tolerance of ChooseConfig. Surfaces say
nothing of other sizes or lengths: the runs nearest to the target's size are read, at their common longest length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.believe import around, far, refuse_far
from ratoon.laws.decision.goals import EDGE, INTERIOR, TOLERANCE, Stakes
from ratoon.laws.decision.joint import Mixed, best_on_surfaces
from ratoon.laws.equations import almr
from ratoon.laws.equations.almr import TERMS, Surface
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import count_levels
from ratoon.laws.intervals.forecast import bootstrap
from ratoon.laws.tables.nats import refuse_parent_unit
from ratoon.laws.tables.table import tabulate
from ratoon.records import Interval, Observation

LEVELS = 3  # of shares and of learning rates, below which nothing bends
EDGES = 1e-3  # relative: how near the ceiling is on it


@dataclass(frozen=True)
class RateChoice:
    share: Interval
    rate: Interval  # peak learning rate
    general: Interval  # nats per token there
    domain: Interval
    reason: str
    curve: tuple[Mixed, ...]  # the best share at each learning rate that was swept, where one meets the goal
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Swept:
    """One role: the surface, draws of it, and the box that was swept."""

    surface: Surface
    drawn: list[Surface]
    shares: tuple[float, float]
    rates: tuple[float, float]
    tried: tuple[float, ...]  # learning rates

    def held_at(self, rate: float) -> "_Swept":
        """The same at one learning rate alone."""
        return replace(self, rates=(rate, rate))


def choose_rate(
    observations: Sequence[Observation],
    *,
    params_non_embedding: int,
    parent_general: float,
    parent_domain: float,
    config: ChooseConfig,
    tokens: int | None = None,
) -> RateChoice:
    """The share and peak learning rate that meet config.goal, within the box that was swept.

    Under the goal `ceiling` the best estimate of general loss is kept under it, not its quantile: a sweep of this kind
    has few runs, and `general` says how sure it is. `tokens` are the target's, refused where far from the runs.
    """
    tables, _ = tabulate(observations)
    refuse_far(tables, params_non_embedding, tokens, config)
    stakes = Stakes(parent_general, parent_domain, config)
    refuse_parent_unit(observations, params_non_embedding, "general", parent_general)
    refuse_parent_unit(observations, params_non_embedding, "domain", parent_domain)
    general, warnings = _swept(observations, "general", params_non_embedding, config)
    domain, _ = _swept(observations, "domain", params_non_embedding, config)
    target = {"N": params_non_embedding} if tokens is None else {"D": tokens, "N": params_non_embedding}
    warnings += [one.warning for one in far(tables["general"].runs, config, target)]
    best = _best(general.surface, domain.surface, general, stakes)
    assert best is not None
    pairs = zip(general.drawn, domain.drawn, strict=True)
    each = [found for g, d in pairs if (found := _best(g, d, general, stakes, certain=False)) is not None]
    if len(each) < len(general.drawn):
        warnings.append(
            f"in {1 - len(each) / len(general.drawn):.0%} of the draws nothing swept is under the ceiling; the "
            f"intervals of share and rate are over the others"
        )
    if best.at_ends:
        warnings.append(f"the best {' and '.join(best.at_ends)} is the last one swept: widen the sweep there")
    at = best.share, best.rate
    along = [_best(general.surface, domain.surface, general.held_at(lr), stakes, certain=False) for lr in general.tried]
    return RateChoice(
        share=around(best.share, np.array([one.share for one in each] or [best.share])),
        rate=around(best.rate, np.array([one.rate for one in each] or [best.rate])),
        general=around(best.general, np.array([float(one.loss(*at)) for one in general.drawn])),
        domain=around(best.domain, np.array([float(one.loss(*at)) for one in domain.drawn])),
        reason=_why(best, stakes),
        curve=tuple(one for one in along if one is not None),
        warnings=tuple(warnings),
    )


def _why(best: Mixed, stakes: Stakes) -> str:
    if stakes.config.goal == "ceiling" and best.general >= stakes.ceiling * (1 - EDGES):
        return TOLERANCE
    return EDGE if best.at_ends else INTERIOR


def _best(general: Surface, domain: Surface, box: _Swept, stakes: Stakes, *, certain: bool = True) -> Mixed | None:
    """None: nothing swept is under the ceiling; an error where that is `certain`."""
    if stakes.config.goal == "weighted":
        return best_on_surfaces(general, domain, shares=box.shares, rates=box.rates, weight=stakes.weight)
    try:
        return best_on_surfaces(general, domain, shares=box.shares, rates=box.rates, ceiling=stakes.ceiling)
    except ConfigError:
        if certain:
            raise
        return None


def _swept(
    observations: Sequence[Observation], role: Role, params: int, config: ChooseConfig
) -> tuple[_Swept, list[str]]:
    tables, _ = tabulate(observations)
    # That runs differ in their rates is worth a word everywhere but here.
    _, warnings = tabulate([x.model_copy(update={"learning_rate": 0.0}) for x in observations])
    table = tables[role].near_size(params)
    longest = table.runs.tokens.max()
    table = table.where(np.isclose(table.runs.tokens, longest, rtol=0.02))
    lr, share = table.learning_rate, table.share
    shares, rates = len(np.unique(share)), count_levels(lr[lr > 0])
    if (lr <= 0).any() or shares < LEVELS or rates < LEVELS:
        raise ConfigError(
            f"{len(table.runs)} {role} observations of {longest:,.0f} tokens at {shares} shares and {rates} peak "
            f"learning rates; a surface needs {LEVELS} of each, crossed, at one length, with learning_rate filled in"
        )
    inputs = {"r": share, "lr": lr}
    fitted = fit(almr.FORM, inputs, table.runs.loss, seed=config.seed)
    runs = Runs.gather(inputs, table.runs.loss)
    seed = 2 * config.seed + (role == "domain")
    drawn = bootstrap(fitted, runs, list(table.group), replicates=config.bootstrap, seed=seed)
    lr0 = float(fitted.frame)
    surfaces = [Surface(**dict(zip(TERMS, row.tolist(), strict=True)), lr0=lr0) for row in drawn.coefficients]
    surface = Surface(**dict(zip(TERMS, fitted.coefficients.tolist(), strict=True)), lr0=lr0)
    box = (float(share.min()), float(share.max())), (float(lr.min()), float(lr.max()))
    return _Swept(surface, surfaces, *box, tuple(np.unique(lr).tolist())), warnings
