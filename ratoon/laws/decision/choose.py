"""The domain share for the target run: the largest that keeps general loss under its ceiling, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.believe import GRID, SPREAD, Believed, believe, crossing, refuse_far, share_grid
from ratoon.laws.decision.goals import Decision, Stakes, allowed, decide, down
from ratoon.laws.decision.regret import expected_regret
from ratoon.laws.design.advice import advise
from ratoon.laws.design.next_run import Rule
from ratoon.laws.form import Array
from ratoon.laws.tables.nats import refuse_parent_unit
from ratoon.laws.tables.table import own_share
from ratoon.records import Choice, Interval, LawReport, Observation, RatioPoint

FRESH = 4.0  # times that text is read nearly as if it were fresh (arXiv:2305.16264)


@dataclass(frozen=True)
class FitReport:
    """The laws without a choice: what `ratoon fit` prints."""

    laws: tuple[LawReport, ...]
    general_law: str  # the one that would be believed
    domain_law: str
    curve: tuple[RatioPoint, ...]  # at the target size and tokens
    warnings: tuple[str, ...]


def choose(
    observations: Sequence[Observation],
    *,
    params_non_embedding: int,
    tokens: int,
    parent_general: float,
    parent_domain: float,
    config: ChooseConfig,
    available_domain_tokens: int | None = None,
    believed: Believed | None = None,
    rule: Rule | None = None,
) -> Choice:
    """The share for a run of `tokens` at `params_non_embedding`, from finished runs with a loss.

    The parent's losses are nats per token on the same held-out text. `available_domain_tokens` is the domain text
    there is, which may be read `config.domain_epochs` times. Under the goal `ceiling` the share is the one that stays
    under it with `config.confidence`, rounded down to a hundredth; where none is that sure but the best estimate keeps
    under the ceiling, the smallest share tried, with a warning. Under `weighted` it is where the goal is least. What
    being wrong about it is expected to cost is `Choice.regret`, as regret.py counts it. `believed` is what `believe`
    made of the same observations, target and parents, where that is known already. With a `rule` of what narrow enough
    and worth its price are, `Choice.further` is the run that would narrow the choice most per FLOP.

    Raises ConfigError when the observations cannot carry a choice, or no share meets the tolerance.
    """
    stakes = Stakes(parent_general, parent_domain, config)
    if believed is None:
        believed = believe(observations, params_non_embedding, tokens, config, stakes.parents)
    assert (believed.params, believed.tokens) == (params_non_embedding, tokens)
    refuse_far(believed.tables, params_non_embedding, tokens, config)
    for role, loss in stakes.parents.items():
        refuse_parent_unit(observations, params_non_embedding, role, loss)
    largest = believed.largest(stakes.ceiling)
    choice = _told(believed, stakes, decide(believed, stakes, largest, available_domain_tokens), largest)
    if said := _repeats(choice, available_domain_tokens):
        choice = choice.model_copy(update={"warnings": (*choice.warnings, said)})
    return choice if rule is None else _advised(choice, observations, stakes, rule)


def _repeats(choice: Choice, available: int | None) -> str | None:
    """Said of text that is read often: no law of a share counts repeats, beyond what the runs themselves repeated."""
    if not available or (times := choice.share * choice.tokens / available) <= FRESH:
        return None
    return (
        f"at {choice.share:g} the domain text is read {times:.1f} times; domain loss is foretold as the runs read "
        f"theirs, and will be higher where they read it less often: `ratoon choose scarce` counts repeats"
    )


def _advised(choice: Choice, observations: Sequence[Observation], stakes: Stakes, rule: Rule) -> Choice:
    try:
        return advise(choice, observations, stakes=stakes, rule=rule)
    except ConfigError as error:  # the choice stands without it
        return choice.model_copy(update={"warnings": (*choice.warnings, f"no further run is told: {error}")})


def _told(believed: Believed, stakes: Stakes, decision: Decision, largest: Array) -> Choice:
    """The decision as a record, with everything a reader should weigh it by."""
    share = decision.share
    median, low, high = np.quantile(np.maximum(largest, 0), [0.5, (1 - SPREAD) / 2, (1 + SPREAD) / 2])
    return Choice(
        share=share,
        interval=Interval(value=float(median), low=float(low), high=float(high), confidence=SPREAD),
        reason=decision.reason,
        law=believed.law,
        laws=tuple(one.report() for one in believed.candidates),
        params_non_embedding=int(believed.params),
        tokens=int(believed.tokens),
        parent_general_nats=stakes.general,
        parent_domain_nats=stakes.domain,
        ceiling_nats=stakes.ceiling,
        tolerance=stakes.config.tolerance,
        predicted_general=believed.interval("general", share),
        predicted_domain=believed.interval("domain", share),
        curve=believed.curve(),
        second_opinion=_second_opinion(believed, stakes, decision.cap),
        best=decision.best,
        regret=expected_regret(believed, stakes, share, decision.cap),
        warnings=(
            *decision.warnings,
            *_unsure(believed, share, stakes),
            *believed.warnings,
            *_after(believed, share, stakes),
        ),
    )


def fit_report(
    observations: Sequence[Observation],
    *,
    params_non_embedding: int | None = None,
    tokens: int | None = None,
    config: ChooseConfig | None = None,
) -> FitReport:
    """Every law on both roles with its evidence, and the curve at the target; the largest run when none is given."""
    usable = [x for x in observations if x.finished and x.tokens > 0]
    params = params_non_embedding or max((x.params_non_embedding for x in usable), default=1)
    tokens = tokens or max((x.tokens for x in usable), default=1)
    believed = believe(
        observations, params, tokens, (config or ChooseConfig()).model_copy(update={"extrapolate": True})
    )
    return FitReport(
        laws=tuple(one.report() for one in believed.candidates),
        general_law=believed.picked["general"].name,
        domain_law=believed.picked["domain"].name,
        curve=believed.curve(),
        warnings=tuple(believed.warnings),
    )


def _after(believed: Believed, share: float, stakes: Stakes) -> list[str]:
    found = []
    table = believed.tables["general"]
    if share > table.share.max() + GRID / 2:
        found.append(f"extrapolates beyond the largest domain share tried, {table.share.max():g}")
    if share < table.share.min() - GRID / 2:
        found.append(f"extrapolates beyond the smallest domain share tried, {table.share.min():g}")
    if not table.runs.loss.min() / 1.3 < stakes.general < table.runs.loss.max() * 1.3:
        found.append(
            f"the parent's general loss, {stakes.general:.3g}, is far from the runs' "
            f"({table.runs.loss.min():.3g} to {table.runs.loss.max():.3g}): are both nats per token on the same text?"
        )
    if believed.interval("general", share).value > stakes.ceiling:
        found.append(f"at {share:g} general loss is predicted above its ceiling of {stakes.ceiling:.4f} nats")
    return found


def _unsure(believed: Believed, share: float, stakes: Stakes) -> list[str]:
    """Said where the confidence asked for could not be had."""
    config = stakes.config
    if config.ratio is not None or config.goal != "ceiling" or share > believed.smallest:
        return []
    under = float((believed.draws("general", share)[:, 0] <= stakes.ceiling).mean())
    if under >= config.confidence:
        return []
    return [
        f"general loss stays under its ceiling with {under:.0%} confidence only, {config.confidence:.0%} was asked "
        f"for: {share:g} is the most careful share tried; longer proxy runs (sweep.tokens) would tell more, and "
        f"the gate decides"
    ]


def _second_opinion(believed: Believed, stakes: Stakes, cap: float) -> dict[str, float]:
    """The share each other law would choose, read alone; 0 where it finds none."""
    weighted = stakes.config.goal == "weighted"
    sole = [voices[0].candidate.name if len(voices) == 1 else None for voices in believed.voices.values()]
    chosen = sole[0] if not weighted or sole[0] == sole[1] else None
    others = [name for name in dict.fromkeys(one.name for one in believed.candidates) if name != chosen]
    opinion = _weighted_opinion if weighted else _careful_opinion
    return {name: round(opinion(believed, stakes, cap, name), 2) for name in others}


def _careful_opinion(believed: Believed, stakes: Stakes, cap: float, name: str) -> float:
    """Under the ceiling with confidence, whatever domain text there is."""
    shares, config = share_grid(believed.smallest, 1.0), stakes.config
    one = believed.candidate("general", name)
    heard = [voice.forecast for voice in believed.voices["general"] if voice.candidate is one]
    drawn = heard[0] if heard else one.forecast(believed.tokens, config)
    losses = drawn.draws(believed.params, believed.tokens, own_share("general", shares))
    limit = float(np.quantile(crossing(shares, losses, stakes.ceiling), 1 - config.confidence, method="lower"))
    return max(down(limit), 0.0)


def _weighted_opinion(believed: Believed, stakes: Stakes, cap: float, name: str) -> float:
    shares = allowed(believed, cap)
    general, domain = (
        believed.candidate(role, name).loss(believed.params, believed.tokens, own_share(role, shares))
        for role in get_args(Role)
    )
    return float(shares[stakes.value(general, domain).argmin()])
