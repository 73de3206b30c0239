"""Every law on every role, and which of them to believe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ChooseConfig, ConfigError, Role
from ratoon.laws.decision.sizes import Starts, as_one_size, folds, size_doubt
from ratoon.laws.equations import cmr, dcpt, warm
from ratoon.laws.fitting.fit import Fit, fit
from ratoon.laws.form import Array, Form, share_levels
from ratoon.laws.intervals.forecast import Forecast, forecast
from ratoon.laws.tables.table import Table
from ratoon.records import LawReport

# In the order in which near ties are broken: cmr comes last since a power of tokens has no floor.
LAWS: dict[str, Form] = {"warm": warm.FORM, "dcpt": dcpt.FORM, "cmr": cmr.FORM}
FAINT = 0.01  # of belief, below which a law is not worth its draws
TINY = 1e-9  # relative error that is rounding


@dataclass(frozen=True)
class Candidate:
    """One law fitted on one role, and the rows it was fitted on."""

    name: str
    table: Table
    fit: Fit
    eligible: bool  # speaks for the target's size
    params: float  # the target's

    @property
    def role(self) -> Role:
        return self.table.role

    @property
    def error(self) -> float:
        """Relative; the larger of the held-out errors' root mean squares, over rows that every law speaks about.
        Infinite when nothing was held out."""
        return max((split.rms_where_seen for split in self.fit.held_out), default=float("inf"))

    def report(self) -> LawReport:
        return LawReport(
            law=self.name,
            role=self.role,
            params=self.fit.params,
            seen_error=self.fit.seen_error,
            unseen_error=self.fit.unseen_error,
            agreement=self.fit.agreement,
            at_bounds=self.fit.at_bounds,
            observations=self.fit.observations,
            loose=self.fit.identification.loose,
            condition=self.fit.identification.condition,
            noise=self.fit.identification.noise,
        )

    def forecast(self, tokens: float, config: ChooseConfig, spread: float = 0.0) -> Forecast:
        """Draws of the loss; `spread` is a relative doubt beside what the runs and the form leave open."""
        # Another seed per role: what moves general loss in a draw is not what moves domain loss.
        seed = 2 * config.seed + (self.role == "domain")
        groups = list(self.table.group)
        sized = size_doubt(self.fit, self.table, self.params, tokens, self.inner_shares)
        return forecast(
            self.fit,
            self.table.runs,
            groups,
            tokens=tokens,
            spread=float(np.hypot(spread, sized)),
            doubt=config.form_doubt,
            replicates=config.bootstrap,
            seed=seed,
            folds=folds(self.table.runs.inputs, self.params, self.fit.form.spans_sizes),
        )

    def loss(self, params: float, tokens: ArrayLike, own: ArrayLike) -> Array:
        """Nats per token, best estimate, at the evaluated corpus's own share."""
        return self.fit.loss(params, tokens, own)

    @property
    def inner_shares(self) -> Array:
        """The evaluated corpus's own shares that were tried, without 0 and 1: each once, however it was rounded."""
        own = self.table.runs.own
        own = own[(own > 0) & (own < 1)]
        level = share_levels(own)
        return np.array([np.median(own[level == one]) for one in np.unique(level)])

    def doubts(self, config: ChooseConfig) -> list[str]:
        """What a reader should know before believing it."""
        who = f"{self.name} ({self.role})"
        found = [f"{who}: {reason}" for reason in self.fit.reasons]
        fixed = {*self.fit.settled.exponents, *self.fit.settled.absent}
        if ends := [name for name in self.fit.at_bounds if name not in fixed]:
            found.append(f"{who}: not decided by these runs, at the end of the range: {', '.join(ends)}")
        if self.fit.agreement < config.min_agreement:
            found.append(f"{who}: only {self.fit.agreement:.0%} of the starts reached this optimum")
        return found


def rows_for(
    form: Form, table: Table, params: float, known: Mapping[float, float], config: ChooseConfig
) -> tuple[Table, bool]:
    """The rows this law can be fitted on, and whether it then speaks for a model of `params` parameters; `known` holds
    the losses that runs of each size started from."""
    speaks = True
    if not form.spans_sizes:
        joined = as_one_size(table, params, known, config.far_size)
        away = float(np.exp(np.abs(np.log(table.runs.params / params)).min()))
        speaks = joined is not None or away <= config.same_size
        table = joined or table.near_size(params)
    return (table if form.speaks_at_zero else table.where(table.runs.own > 0)), speaks


def fit_all(
    tables: dict[Role, Table], known: Starts, *, params: float, tokens: float, config: ChooseConfig
) -> tuple[list[Candidate], list[str]]:
    """Every law on both roles. A law these runs cannot pin is left out and said so, unless it is the one asked for
    or none is left: then its ConfigError is raised."""
    found: list[Candidate] = []
    warnings: list[str] = []
    refused: list[ConfigError] = []
    for name, form in LAWS.items():
        try:
            both = [
                _candidate(name, *rows_for(form, table, params, known[role], config), form, params, tokens, config)
                for role, table in tables.items()
            ]
        except ConfigError as error:
            if name == config.law:
                raise
            refused.append(error)
            warnings.append(f"{name} left out: {error}")
            continue
        found += both
    if not found:
        raise refused[0]
    general = tables["general"]
    if not general.share.max() < 1 and any(one.name == "dcpt" for one in found):
        warnings.append("dcpt (general): runs without general text left out, the law is silent about them")
    return found, warnings


def _candidate(
    name: str, rows: Table, speaks: bool, form: Form, params: float, tokens: float, config: ChooseConfig
) -> Candidate:
    reach = {"N": params, "D": tokens}
    left_out = folds(rows.runs.inputs, params, form.spans_sizes)
    fitted = fit(form, rows.runs.inputs, rows.runs.loss, reach=reach, folds=left_out, seed=config.seed)
    return Candidate(name, rows, fitted, speaks, params)


def pick(candidates: Sequence[Candidate], role: Role, config: ChooseConfig) -> Candidate:
    """The law asked for; else the smallest held-out error among those that speak for the target's size, a near
    tie going to the law that stays bounded as tokens grow."""
    if config.law in LAWS:
        return next(one for one in candidates if one.role == role and one.name == config.law)
    heard = _heard(candidates, role)
    least = min(one.error for one in heard)
    return next(one for one in heard if one.error <= least * config.near_tie)


def weigh(candidates: Sequence[Candidate], role: Role, config: ChooseConfig) -> list[tuple[Candidate, float]]:
    """Every law that speaks for the target's size with its share of belief, error ** -config.sharpness, largest
    first; those below a hundredth are dropped."""
    heard = _heard(candidates, role)
    least = min(one.error for one in heard)
    if not np.isfinite(least):
        return [(heard[0], 1.0)]
    raw = np.array([(max(least, TINY) / max(one.error, TINY)) ** config.sharpness for one in heard])
    kept = [(one, weight) for one, weight in zip(heard, raw / raw.sum(), strict=True) if weight >= FAINT]
    whole = sum(weight for _, weight in kept)
    return sorted(((one, float(weight / whole)) for one, weight in kept), key=lambda pair: -pair[1])


def _heard(candidates: Sequence[Candidate], role: Role) -> list[Candidate]:
    of_role = [one for one in candidates if one.role == role]
    return [one for one in of_role if one.eligible] or of_role


def spread(
    candidates: Sequence[Candidate], picked: Candidate, params: float, tokens: float, config: ChooseConfig
) -> float:
    """Root mean square distance, relative, of the picked law's rivals (itself one of them) from it at the target,
    over the ratios tried. Laws that agree where there are runs part beyond them, and no held-out run can tell."""
    rivals = [one for one in candidates if one.role == picked.role and one.eligible]
    least = min((one.error for one in rivals), default=float("inf"))
    own = picked.inner_shares
    if len(own) == 0 or not np.isfinite(least):
        return 0.0
    centre = picked.loss(params, tokens, own)
    near = [one for one in rivals if one is picked or one.error <= config.rival * least]
    away = [one.loss(params, tokens, own) / centre - 1 for one in near]
    return float(np.sqrt(np.mean(np.square(away)))) if away else 0.0
