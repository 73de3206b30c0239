"""A table of runs, the laws fitted on it, and what they say of a target: what `ratoon fit` shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.catalog import LAWS, MIXTURES, law_named
from ratoon.laws.decision.believe import Believed, around, believe, far
from ratoon.laws.decision.candidates import LAWS as RATIO_LAWS
from ratoon.laws.decision.choose import choose
from ratoon.laws.decision.evidence import Evidence, gather
from ratoon.laws.design.next_run import Rule
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.pin import would_pin
from ratoon.laws.form import Form, count_shares
from ratoon.laws.tables.parents import parent_losses
from ratoon.laws.tables.runtable import RunTable
from ratoon.laws.tables.table import own_share
from ratoon.records import Choice, Interval, Observation

RATIOS = 3  # domain shares without which no law of the ratio is fitted
MIXED = ("auto", "combined")  # names that are no law: which of several to believe


@dataclass(frozen=True)
class Study:
    """laws       every law fitted, on each of the losses
    target     inputs of the run asked about: N and D, and whatever else was given
    predicted  loss -> nats per token of the target, where the target says all that the believed law asks
    believed   both roles' laws over the whole range of ratios; none where the table has one loss only
    choice     the ratio, where one was asked for and found; `refused` says why none was found
    """

    table: RunTable
    laws: tuple[Evidence, ...]
    target: dict[str, float]
    predicted: dict[str, Interval]
    believed: Believed | None
    choice: Choice | None
    refused: str | None
    warnings: tuple[str, ...]

    def best(self, on: str) -> Evidence:
        """The most believed law of this loss."""
        return max((one for one in self.laws if one.on == on), key=lambda one: one.belief)

    @property
    def losses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.on for one in self.laws))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "table": self.table.sheet.where,
            "rows": len(self.table),
            "target": self.target,
            "laws": [one.document() for one in self.laws],
            "predicted": {on: interval.model_dump() for on, interval in self.predicted.items()},
            "choice": None if self.choice is None else self.choice.model_dump(mode="json"),
            "refused": self.refused,
            "warnings": list(self.warnings),
        }


def study(
    table: RunTable,
    *,
    law: str | None = None,
    target: Mapping[str, float] | None = None,
    decide: bool = False,
    parent: Mapping[Role, float] | None = None,
    config: ChooseConfig | None = None,
    available_domain_tokens: int | None = None,
    rule: Rule | None = None,
) -> Study:
    """Fit, compare and, with `decide`, choose.

    law     a name of `LAWS` or `MIXTURES`; `auto` believes the law that did best on what it had not seen, `combined`
            all of them by how well they did (losses without a ratio: as `auto`). None: what `config` says of ratios
    target  N and D of the run asked about, the largest run's where not given; other inputs of the law as well
    decide  take the ratio too: a table with losses of both roles, and the parent's, by `parent` or by rows of 0 tokens
    rule    and tell the run that would narrow the choice most, and whether it is worth its price by this rule

    Raises ConfigError where the runs cannot carry the law asked for.
    """
    config = config or ChooseConfig()
    asked = _target(table, target or {})
    law = law or (config.law if table.both_roles else "auto")
    if table.both_roles and (law in MIXED or law in RATIO_LAWS):
        config = ChooseConfig.model_validate({**config.model_dump(), "law": law})
        return _of_ratios(table, asked, decide, parent, config, available_domain_tokens, rule)
    if decide:
        table.observations()  # says what is missing, if anything is
        raise ConfigError(
            f"{law} chooses no ratio; those that do are {', '.join((*MIXED, *RATIO_LAWS))}. Leave out the tolerance to "
            f"see it fitted"
        )
    return _of_losses(table, law, asked, config)


def _target(table: RunTable, told: Mapping[str, float]) -> dict[str, float]:
    largest = {name: float(table.inputs[name].max()) for name in ("N", "D") if name in table.inputs}
    return {**largest, **{name: float(value) for name, value in told.items()}}


def round_target(table: RunTable, told: Mapping[str, float]) -> tuple[int, int]:
    """Parameters and tokens of the run asked about."""
    target = _target(table, told)
    return round(target["N"]), round(target["D"])


def parents(observations: Sequence[Observation], params: int, told: Mapping[Role, float]) -> dict[Role, float]:
    """The parent's losses: those that were told, the others from the rows with 0 tokens."""
    return {**parent_losses(observations, params, [role for role in get_args(Role) if role not in told]), **told}


# ---------------------------------------------------------------- both roles


def _of_ratios(
    table: RunTable,
    target: dict[str, float],
    decide: bool,
    parent: Mapping[Role, float] | None,
    config: ChooseConfig,
    available: int | None,
    rule: Rule | None,
) -> Study:
    refuse_few_ratios(table)
    observations = table.observations()
    params, tokens = round_target(table, target)
    known = parents(observations, params, parent or {}) if decide else {}
    # The laws are shown at targets too far to decide about as well: with a warning, and without a choice.
    believed = believe(observations, params, tokens, config.model_copy(update={"extrapolate": True}), known)
    choice, refused = _chosen(observations, believed, known, available, config, rule) if decide else (None, None)
    at = choice.share if choice else float(target.get("share", believed.smallest))
    return Study(
        table=table,
        laws=_candidates(believed, config),
        target=target,
        predicted={role: believed.interval(role, at) for role in get_args(Role)} if choice or "share" in target else {},
        believed=believed,
        choice=choice,
        refused=refused,
        warnings=(*table.notes, *(choice.warnings if choice else believed.warnings)),
    )


def _chosen(
    observations: Sequence[Observation],
    believed: Believed,
    parent: Mapping[Role, float],
    available: int | None,
    config: ChooseConfig,
    rule: Rule | None,
) -> tuple[Choice | None, str | None]:
    """The choice, or why there is none."""
    try:
        return choose(
            observations,
            params_non_embedding=int(believed.params),
            tokens=int(believed.tokens),
            parent_general=parent["general"],
            parent_domain=parent["domain"],
            config=config,
            available_domain_tokens=available,
            believed=believed,
            rule=rule,
        ), None
    except ConfigError as error:
        return None, str(error)


def refuse_few_ratios(table: RunTable) -> None:
    """In words of the table: a law would speak of each loss's own share."""
    shares = table.inputs["share"][table.inputs["D"] > 0]
    if len(shares) and (ratios := count_shares(shares)) < RATIOS:
        found = " and ".join(f"{x:g}" for x in np.unique(shares))
        raise ConfigError(
            f"{table.sheet.where}: all {len(shares)} runs have domain share{'s' * (ratios > 1)} {found}, which cannot "
            f"show how loss bends with it; run the same sizes and lengths at {RATIOS} shares or more, better five, one "
            f"of them 1"
        )


def _candidates(believed: Believed, config: ChooseConfig) -> tuple[Evidence, ...]:
    weights = {id(voice.candidate): voice.weight for voices in believed.voices.values() for voice in voices}
    return tuple(
        gather(
            one.name,
            one.role,
            one.fit,
            one.table.runs,
            [str(name) for name in one.table.group],
            belief=weights.get(id(one), 0.0),
            tokens=believed.tokens,
            seed=2 * config.seed + (one.role == "domain"),
        )
        for one in believed.candidates
    )


# ---------------------------------------------------------------- each loss by itself


def _of_losses(table: RunTable, law: str, target: dict[str, float], config: ChooseConfig) -> Study:
    found: list[Evidence] = []
    predicted: dict[str, Interval] = {}
    warnings = list(table.notes)
    for on in table.sources:
        at = _of_text(table, on, target)
        fitted, left_out = _fit_each(table, law, on, at, config)
        best = min(fitted, key=lambda one: np.inf if (error := one.fit.unseen_error) is None else error)
        believed = replace(best, belief=1.0)
        found += [believed if one is best else one for one in fitted]
        warnings += [*left_out, *_doubts(believed, at, config)]
        if set(believed.fit.form.inputs) <= set(at):
            value = believed.fit.loss(*(at[name] for name in believed.fit.form.inputs))
            predicted[on] = around(float(value), believed.draws(at)[:, 0])
    return Study(table, tuple(found), target, predicted, None, None, None, tuple(warnings))


def _of_text(table: RunTable, on: str, target: Mapping[str, float]) -> dict[str, float]:
    """The target with this text's own share, where the domain's was told."""
    found = dict(target)
    if "r" in target and set(get_args(Role)) <= set(table.sources):
        raise ConfigError(
            f"target: r={target['r']:g} is a text's own share of the training tokens, and of general and domain text "
            f"at once it is two mixtures; say the domain's, share="
        )
    for role in get_args(Role):
        if on == role and "share" in target:
            found["r"] = float(own_share(role, np.asarray(target["share"])))
    return found


def _fit_each(
    table: RunTable, law: str, on: str, target: Mapping[str, float], config: ChooseConfig
) -> tuple[list[Evidence], list[str]]:
    """The law asked for, or every one that these columns and runs carry, and what was left out."""
    found: list[Evidence] = []
    refused: list[ConfigError] = []
    forms = _offered(table, on) if law in MIXED else {law: law_named(law, table.domains)}
    for name, form in forms.items():
        try:
            runs, groups = table.rows_for(form, on)
            reach = {key: target[key] for key in form.inputs if key in target}
            fitted = fit(form, runs.inputs, runs.loss, reach=reach, seed=config.seed)
        except ConfigError as error:
            refused.append(error)
            continue
        if not form.speaks_at_zero and "r" in runs.inputs:
            keep = runs.own > 0
            runs, groups = runs.where(keep), tuple(name for name, kept in zip(groups, keep, strict=True) if kept)
        found.append(gather(name, on, fitted, runs, groups, tokens=target.get("D", 0.0), seed=config.seed))
    if not found:
        raise refused[0]
    return found, [f"left out ({on}): {error}" for error in refused]


def _offered(table: RunTable, on: str) -> dict[str, Form]:
    """The laws of nothing but what the table has."""
    forms = dict(LAWS)
    if len(table.domains) > 1:
        forms |= {name: law_named(name, table.domains) for name in MIXTURES}
    offered = {name: form for name, form in forms.items() if table.offers(form, on)}
    if not offered:
        have = ", ".join(table.inputs) or "no input of any law"
        asks = "; ".join(f"{name}: {', '.join(form.inputs)}" for name, form in LAWS.items())
        raise ConfigError(
            f"{table.sheet.where}: found {have}, of which alone no law speaks. Name further columns with --columns; "
            f"the laws are of {asks}"
        )
    return offered


def _doubts(one: Evidence, target: Mapping[str, float], config: ChooseConfig) -> list[str]:
    """What a reader should know before believing it."""
    who, fitted = f"{one.law} ({one.on})", one.fit
    found = [f"{who}: {reason}" for reason in fitted.reasons]
    fixed = {*fitted.settled.exponents, *fitted.settled.absent}
    if ends := [name for name in fitted.at_bounds if name not in fixed]:
        found.append(f"{who}: not decided by these runs, at the end of the range: {', '.join(ends)}")
    if fitted.agreement < config.min_agreement:
        found.append(f"{who}: only {fitted.agreement:.0%} of the starts reached this optimum")
    if not fitted.held_out:
        found.append(f"{who}: too few runs to hold any out: intervals hold sampling error only")
    if pin := would_pin(fitted, one.runs.inputs):
        found.append(f"{who}: {pin}")
    reach = {name: target[name] for name in ("D", "N") if name in one.runs.inputs}
    found += [f"{who}: {each.warning}" for each in far(one.runs, config, reach)]
    return found
