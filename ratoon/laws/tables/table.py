"""Observations in, arrays out: one table per role, and everything refused that a law must not be fitted on."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ratoon.config import ConfigError, Role
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, Mask
from ratoon.laws.tables.nats import listed, refuse_other_units, where
from ratoon.records import Observation

CONSTANT = 1e-6  # relative spread of losses that is none
TOLD_APART = 0.5  # correlation of loss with share above which its sign is taken at its word


@dataclass(frozen=True)
class Table:
    """The n observations of one role; `runs.own` is that role's own share, `share` the domain share."""

    role: Role
    runs: Runs
    share: Array
    group: Array  # (n,) of str
    learning_rate: Array  # (n,) peak; 0 where it was not told

    def where(self, mask: Mask) -> "Table":
        return Table(self.role, self.runs.where(mask), self.share[mask], self.group[mask], self.learning_rate[mask])

    def near_size(self, params: float) -> "Table":
        """The runs of the one size nearest to `params`, by ratio."""
        sizes = np.unique(self.runs.params)
        nearest = sizes[np.abs(np.log(sizes / params)).argmin()]
        return self.where(self.runs.params == nearest)


def own_share(role: Role, share: Array) -> Array:
    """Domain loss reads the domain share, general loss what is left of it."""
    return share if role == "domain" else 1 - share


def tabulate(observations: Sequence[Observation]) -> tuple[dict[Role, Table], list[str]]:
    """One table per role from finished runs with a loss, and what was left out, in words.

    Several sources of a role are averaged with equal weight at each run and token count; where one of them was
    not measured the point is left out, since a mean over fewer sources is another quantity.
    """
    warnings: list[str] = []
    numbered = [(number, x) for number, x in enumerate(observations, start=1) if x.finished and x.tokens > 0]
    usable = [(number, x) for number, x in numbered if x.loss_nats is not None]
    if not usable:
        raise ConfigError(
            f"{len(observations)} observations, none of a finished run with a loss; "
            f"the laws read rows with finished=true and loss_nats filled in"
        )
    if unmeasured := [number for number, x in numbered if x.loss_nats is None]:
        warnings.append(f"{len(unmeasured)} rows of finished runs without a loss left out: {listed(unmeasured)}")
    for number, item in usable:
        _check(number, item)
    refuse_other_units(usable)
    tables: dict[Role, Table] = {}
    for role in get_args(Role):
        rows = [(number, item) for number, item in usable if item.role == role]
        if not rows:
            found = ", ".join(sorted({item.role for _, item in usable}))
            raise ConfigError(
                f"no {role} loss among the observations, only {found}; a ratio weighs what is gained on domain "
                f"text against what is lost on general text, so evaluate each run on a source of either role"
            )
        _refuse_constant(role, rows)
        tables[role] = _table(role, rows, warnings)
    _refuse_swapped(tables)
    return tables, [*warnings, *_rates_differ(tables["general"])]


def _check(number: int, item: Observation) -> None:
    if item.loss_nats is None or not math.isfinite(item.loss_nats) or item.loss_nats <= 0:
        raise ConfigError(
            f"{where(number, item)}: loss_nats is {item.loss_nats}; leave it empty where it was not measured"
        )
    if not 0 <= item.share <= 1:
        raise ConfigError(
            f"{where(number, item)}: share is {item.share:g}; allowed is 0..1. If it is in percent, divide by 100"
        )


def _refuse_constant(role: Role, rows: list[tuple[int, Observation]]) -> None:
    losses = np.array([item.loss_nats for _, item in rows], dtype=float)
    if len(losses) > 1 and np.ptp(losses) < CONSTANT * losses.mean():
        raise ConfigError(
            f"all {len(losses)} {role} losses are {losses[0]:g} (observations {listed([n for n, _ in rows])}); a "
            f"constant says nothing about the ratio. Check that each run's own loss was recorded"
        )


def _table(role: Role, rows: list[tuple[int, Observation]], warnings: list[str]) -> Table:
    points = _points(rows, warnings)
    sources = {item.evaluated for _, item in rows}
    whole = [measured for measured in points.values() if set(measured) == sources]
    if left_out := len(points) - len(whole):
        warnings.append(f"{left_out} {role} points left out: not measured on all of {', '.join(sorted(sources))}")
    if not whole:
        raise ConfigError(
            f"no run was measured on all {role} sources ({', '.join(sorted(sources))}); "
            f"evaluate every run on the same sources, or fit the table of one source"
        )
    first = [next(iter(measured.values())) for measured in whole]
    share = np.array([item.share for item in first])
    runs = Runs.of(
        N=np.array([float(item.params_non_embedding) for item in first]),
        D=np.array([float(item.tokens) for item in first]),
        r=own_share(role, share),
        loss=np.array([np.mean([item.loss_nats for item in measured.values()]) for measured in whole]),
    )
    rates = np.array([item.learning_rate for item in first])
    return Table(role, runs, share, np.array([item.group for item in first]), rates)


def _points(rows: list[tuple[int, Observation]], warnings: list[str]) -> dict[tuple[str, int], dict[str, Observation]]:
    """(run, tokens) -> source -> its one observation."""
    points: dict[tuple[str, int], dict[str, Observation]] = defaultdict(dict)
    first: dict[tuple[str, int, str], int] = {}
    repeated: list[int] = []
    for number, item in rows:
        measured = points[item.run, item.tokens]
        earlier = measured.get(item.evaluated)
        if earlier is not None:
            _refuse_two_results(item, earlier, first[item.run, item.tokens, item.evaluated], number)
            repeated.append(number)
        else:
            first[item.run, item.tokens, item.evaluated] = number
            measured[item.evaluated] = item
    if repeated:
        warnings.append(f"{len(repeated)} repeated rows counted once: {listed(repeated)}")
    return points


def _refuse_two_results(item: Observation, earlier: Observation, first: int, number: int) -> None:
    for field, what in (("loss_nats", "losses"), ("share", "shares"), ("params_non_embedding", "sizes")):
        was, now = getattr(earlier, field), getattr(item, field)
        if was != now:
            raise ConfigError(
                f"run {item.run} at {item.tokens} tokens has two {what} on {item.evaluated}, {was:g} in observation "
                f"{first} and {now:g} in {number}; keep one, or give the second run its own name"
            )


def _rates_differ(table: Table) -> list[str]:
    """Sizes may each have their own learning rate; runs of one size compare only at one."""
    found = []
    for size in np.unique(table.runs.params):
        rates = np.unique(table.learning_rate[table.runs.params == size])
        if len(rates) > 1:
            found.append(
                f"runs of {size:,.0f} parameters have {len(rates)} peak learning rates ({rates[0]:g} to "
                f"{rates[-1]:g}), which these laws take for noise; fit the runs of one rate"
            )
    return found


def _trend(table: Table) -> float:
    """Mean over sizes of the correlation of loss with domain share, among the longest runs."""
    found = []
    for size in np.unique(table.runs.params):
        at = table.where(table.runs.params == size)
        at = at.where(at.runs.tokens > at.runs.tokens.max() / 1.5)
        if np.ptp(at.share) > 0 and np.ptp(at.runs.loss) > 0:
            found.append(float(np.corrcoef(at.share, at.runs.loss)[0, 1]))
    return float(np.mean(found)) if found else 0.0


def _refuse_swapped(tables: dict[Role, Table]) -> None:
    domain, general = _trend(tables["domain"]), _trend(tables["general"])
    if domain > TOLD_APART and general < -TOLD_APART:
        raise ConfigError(
            f"domain loss rises and general loss falls as the domain share grows (correlations {domain:.2f} and "
            f"{general:.2f}): the roles, or the share, are swapped. `share` is the domain's share of training tokens"
        )
    if domain > TOLD_APART:
        raise ConfigError(
            f"domain loss rises with the domain share (correlation {domain:.2f}), so more of it helps nothing: "
            f"check that `share` is the domain's share, and that `evaluated` is text of that domain"
        )
