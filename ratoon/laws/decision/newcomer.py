"""A domain nobody has swept, at the target: what its loss would be at each share, from tables of other domains.

One table holds the runs of every domain, each row with its domain's name; another the probes, the losses over the
first percent of one run per domain, all alike. What design/transfer.py makes of them is read at the target.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ratoon.config import ChooseConfig, ConfigError
from ratoon.laws.catalog import LAWS
from ratoon.laws.decision.believe import far, refuse_unasked
from ratoon.laws.design.transfer import Domain, Transfer, transfer
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array
from ratoon.laws.tables.bring import match, read_runs
from ratoon.laws.tables.reading import Sheet, closest
from ratoon.laws.tables.runtable import RunTable
from ratoon.records import Interval

STEPS = 9  # shares that are shown, through those that were run
OF_PROBES = ("evaluated", "D", "domain", "loss")  # the words that a table of probes is read by


@dataclass(frozen=True)
class Newcomer:
    """The new domain at `params` and `tokens`. Losses are nats per token."""

    name: str
    known: tuple[str, ...]
    params: float
    tokens: float
    shares: tuple[float, ...]  # its own
    losses: tuple[float, ...]
    intervals: tuple[Interval, ...] | None  # 90%; None: three known domains leave nothing to learn them from
    initial_loss: float  # what its probe says
    decline_rate: float  # nats per billion tokens
    level: float  # nats by which its own runs moved it
    own_runs: int
    unseen_error: float | None  # relative, median: known domains, each foreseen from the others
    law: dict[str, float]
    warnings: tuple[str, ...] = ()


def foretell(
    runs: Sheet,
    probes: Sheet,
    new: str,
    *,
    columns: Mapping[str, str] | None = None,
    target: Mapping[str, float] | None = None,
    seed: int = 0,
    config: ChooseConfig | None = None,
) -> Newcomer:
    """`new` by the domains of `runs`. `columns` as `read_runs` takes them; `evaluated` is the column of names.

    Rows of the new domain in `runs` are its own short runs, if there are any. Raises ConfigError where a probe is
    missing, there are too few domains, or the target lies farther from the runs than `config` lets it.
    """
    config = config or ChooseConfig()
    told = dict(columns or {})
    tables = by_domain(runs, told)
    probed = by_domain(probes, {name: at for name, at in told.items() if name in OF_PROBES})
    for name in (new, *tables):
        if name not in probed:
            raise ConfigError(
                f"{probes.where}: no probe of {name!r}{closest(name, probed)}; every domain is probed alike, the first "
                f"percent of one run each. There are {', '.join(probed)}"
            )
    rows = {name: _runs(table) for name, table in tables.items()}
    known = [Domain(name, rows[name][0], *_probe(probed[name]), rows[name][1]) for name in tables if name != new]
    few, trunks = _of_its_own(rows[new]) if new in rows else (None, None)
    every = Runs.gather(
        {name: np.concatenate([one.runs.inputs[name] for one in known]) for name in ("N", "D")},
        np.concatenate([one.runs.loss for one in known]),
    )
    at = {name: float(values.max()) for name, values in every.inputs.items()} | dict(target or {})
    reach = {name: at[name] for name in ("N", "D")}
    distant = far(every, config, reach)
    refuse_unasked([one.letter for one in distant], config)
    found = transfer(known, *_probe(probed[new]), few=few, few_groups=trunks, reach=reach, seed=seed)
    return replace(_told(found, new, known, few, at), warnings=tuple(one.warning for one in distant))


def _of_its_own(rows: tuple[Runs, tuple[str, ...]]) -> tuple[Runs | None, tuple[str, ...] | None]:
    """The rows the law speaks about: those that read any of the domain."""
    runs, groups = rows
    read = runs.own > 0
    if not read.any():
        return None, None
    return runs.where(read), tuple(name for name, kept in zip(groups, read, strict=True) if kept)


def _told(found: Transfer, new: str, known: list[Domain], few: Runs | None, at: Mapping[str, float]) -> Newcomer:
    own = np.concatenate([one.runs.own for one in known])
    shares = np.linspace(own[own > 0].min(), own.max(), STEPS)
    return Newcomer(
        name=new,
        known=tuple(one.name for one in known),
        params=at["N"],
        tokens=at["D"],
        shares=tuple(shares.tolist()),
        losses=tuple(found.loss(at["N"], at["D"], shares).tolist()),
        intervals=found.intervals(at["N"], at["D"], shares),
        initial_loss=found.initial_loss,
        decline_rate=found.decline_rate,
        level=found.level,
        own_runs=0 if few is None else len(few),
        unseen_error=found.unseen_error,
        law=found.fit.params,
    )


def by_domain(sheet: Sheet, told: Mapping[str, str]) -> dict[str, RunTable]:
    """Each domain's rows as a table of their own, in the order of their first row."""
    mapping = match(sheet, told)
    if "evaluated" not in mapping:
        raise ConfigError(
            f"{sheet.where}: which column names the domain of a row? Say --columns evaluated=COLUMN; columns are "
            f"{sheet.names}"
        )
    names = sheet.words(mapping["evaluated"])
    if unnamed := [k for k, name in enumerate(names) if not name]:
        raise ConfigError(f"{sheet.where}: {sheet.listed(unnamed)}: no domain in column {mapping['evaluated']}")
    rest = {name: at for name, at in told.items() if name != "evaluated"}
    return {name: read_runs(sheet.keep([name == other for other in names]), rest) for name in dict.fromkeys(names)}


def _loss_of(table: RunTable) -> str:
    return "domain" if "domain" in table.sources else "loss"


def _runs(table: RunTable) -> tuple[Runs, tuple[str, ...]]:
    return table.rows_for(LAWS["dcpt"], _loss_of(table))


def _probe(table: RunTable) -> tuple[Array, Array]:
    if "D" not in table.inputs:
        raise ConfigError(f"{table.sheet.where}: no tokens of the probes; {table.ask('D')}")
    on = _loss_of(table)
    if on not in table.sources:
        raise ConfigError(f"{table.sheet.where}: no loss of the probes; {table.ask(on)}")
    order = np.argsort(table.inputs["D"], kind="stable")
    return table.inputs["D"][order], table.losses[on][order]
