"""Every law on every role, and which of them to believe."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratoon.config import ConfigError, Role
from ratoon.laws.equations import cmr, dcpt, warm
from ratoon.laws.fit import Fit, fit
from ratoon.laws.form import Form
from ratoon.laws.table import Table
from ratoon.laws.uncertainty import Forecast, forecast
from ratoon.records import LawReport

LAWS: dict[str, Form] = {"warm": warm.FORM, "dcpt": dcpt.FORM, "cmr": cmr.FORM}
# In the order in which near ties are broken: cmr comes last since a power of tokens has no floor.
TIE = 1.5  # the longest runs of one sweep share their luck: a held-out error is no surer than this
RIVAL = 2.0  # times the least held-out error up to which a law is a rival worth hearing
SAME_SIZE = 1.25  # a law of one size speaks for a target within this factor
MANY_GROUPS = 6
FIRM_AGREEMENT = 0.2


@dataclass(frozen=True)
class Candidate:
    """One law fitted on one role, and the rows it was fitted on."""

    name: str
    table: Table
    fit: Fit
    eligible: bool  # speaks for the target's size

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

    def forecast(self, tokens: float, replicates: int, seed: int, spread: float = 0.0) -> Forecast:
        # Another seed per role: what moves general loss in a draw is not what moves domain loss.
        seed = 2 * seed + (self.role == "domain")
        groups = list(self.table.group)
        return forecast(
            self.fit, self.table.runs, groups, tokens=tokens, spread=spread, replicates=replicates, seed=seed
        )

    def doubts(self) -> list[str]:
        """What a reader should know before believing it."""
        who = f"{self.name} ({self.role})"
        found = [f"{who}: {reason}" for reason in self.fit.reasons]
        fixed = {*self.fit.settled.exponents, *self.fit.settled.absent}
        if ends := [name for name in self.fit.at_bounds if name not in fixed]:
            found.append(f"{who}: not decided by these runs, at the end of the range: {', '.join(ends)}")
        if self.fit.agreement < FIRM_AGREEMENT:
            found.append(f"{who}: only {self.fit.agreement:.0%} of the starts reached this optimum")
        return found


def rows_for(form: Form, table: Table, params: float) -> Table:
    """The rows this law can be fitted on."""
    if not form.spans_sizes:
        table = table.near_size(params)
    return table if form.speaks_at_zero else table.where(table.runs.own > 0)


def fit_all(
    tables: dict[Role, Table], *, params: float, tokens: float, wanted: str, seed: int
) -> tuple[list[Candidate], list[str]]:
    """Every law on both roles. A law these runs cannot pin is left out and said so, unless it is the one `wanted`
    or none is left: then its ConfigError is raised."""
    found: list[Candidate] = []
    warnings: list[str] = []
    refused: list[ConfigError] = []
    for name, form in LAWS.items():
        try:
            both = [_candidate(name, form, table, params, tokens, seed) for table in tables.values()]
        except ConfigError as error:
            if name == wanted:
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


def _candidate(name: str, form: Form, table: Table, params: float, tokens: float, seed: int) -> Candidate:
    rows = rows_for(form, table, params)
    runs = rows.runs
    reach = {"N": params, "D": tokens}
    fitted = fit(form, runs.inputs, runs.loss, reach=reach, seed=seed)
    away = float(np.exp(np.abs(np.log(runs.params / params)).min()))
    return Candidate(name, rows, fitted, form.spans_sizes or away <= SAME_SIZE)


def pick(candidates: Sequence[Candidate], role: Role, wanted: str) -> Candidate:
    """The law asked for; else the smallest held-out error among those that speak for the target's size, a near
    tie going to the law that stays bounded as tokens grow."""
    of_role = [one for one in candidates if one.role == role]
    if wanted != "auto":
        return next(one for one in of_role if one.name == wanted)
    eligible = [one for one in of_role if one.eligible] or of_role
    least = min(one.error for one in eligible)
    return next(one for one in eligible if one.error <= least * TIE)


def spread(candidates: Sequence[Candidate], picked: Candidate, params: float, tokens: float) -> float:
    """Root mean square distance, relative, of the picked law's rivals (itself one of them) from it at the target,
    over the ratios tried. Laws that agree where there are runs part beyond them, and no held-out run can tell."""
    rivals = [one for one in candidates if one.role == picked.role and one.eligible]
    least = min((one.error for one in rivals), default=float("inf"))
    own = np.unique(picked.table.runs.own[(picked.table.runs.own > 0) & (picked.table.runs.own < 1)])
    if len(own) == 0 or not np.isfinite(least):
        return 0.0
    centre = picked.fit.loss(params, tokens, own)
    near = [one for one in rivals if one is picked or one.error <= RIVAL * least]
    away = [one.fit.loss(params, tokens, own) / centre - 1 for one in near]
    return float(np.sqrt(np.mean(np.square(away)))) if away else 0.0
