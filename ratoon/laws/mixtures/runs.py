"""Proxy runs that differ in their mixture: what many-domain regressors are fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.form import Array, count_levels
from ratoon.laws.tables.runtable import RunTable

EXACT = 1e-6  # by which the shares of a row may miss one without a word
SAME = 0.02  # relative: sizes and lengths this near are one
FEWEST = 8  # different mixtures below which nothing can be held out


@dataclass(frozen=True)
class MixtureRuns:
    """n runs of one size and one length: shares (n, d) of their training tokens, losses (n, p) in nats per token."""

    domains: tuple[str, ...]
    evaluated: tuple[str, ...]
    shares: Array
    losses: Array
    names: tuple[str, ...]  # of runs; rows of one name are one event and are resampled together
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.shares)

    @classmethod
    def gather(
        cls,
        domains: Sequence[str],
        evaluated: Sequence[str],
        shares: ArrayLike,
        losses: ArrayLike,
        *,
        names: Sequence[str] | None = None,
        rounding: float = 0.0,
    ) -> "MixtureRuns":
        """Checked rows. `rounding` is the step the shares were rounded to: a row may miss one by half a step per
        domain and is then divided by its sum, which a note says. With 0 rows must sum to one as they are.

        Raises ConfigError for anything that is no mixture or no loss.
        """
        h, y = np.asarray(shares, dtype=float), np.asarray(losses, dtype=float)
        y = y[:, None] if y.ndim == 1 else y
        _refuse_shapes(tuple(domains), tuple(evaluated), h, y)
        _refuse_values(h, y, evaluated)
        total = h.sum(axis=1)
        allowed = max(EXACT, rounding * len(domains) / 2)
        if (wrong := np.flatnonzero(np.abs(total - 1) > allowed)).size:
            raise ConfigError(
                f"shares of rows {wrong[:5].tolist()} sum to {total[wrong[0]]:g}; allowed is 1 within {allowed:g}. "
                f"Shares are of tokens, in 0..1; if they were rounded, say to what step (`rounding`)"
            )
        off = int(np.count_nonzero(np.abs(total - 1) > EXACT))
        note = f"{off} of {len(h)} rows summed to {total.min():.4g}..{total.max():.4g} and were divided by their sum"
        h = h / total[:, None]
        if (different := len(np.unique(h, axis=0))) < FEWEST:
            raise ConfigError(f"{different} different mixtures; at least {FEWEST} are needed to hold some out")
        labels = tuple(names) if names is not None else tuple(str(row) for row in range(len(h)))
        if len(labels) != len(h):
            raise ConfigError(f"{len(labels)} names for {len(h)} rows; one per row, the same for rows of one run")
        return cls(tuple(domains), tuple(evaluated), h, y, labels, (note,) if off else ())

    @classmethod
    def of_table(cls, table: RunTable, target: Mapping[str, float] | None = None) -> "MixtureRuns":
        """The rows of one size and one length, those nearest to the target's N and D (none: the largest), with every
        loss that the table has.

        Raises ConfigError where it has no mixture h, or no loss.
        """
        if "h" not in table.inputs:
            raise ConfigError(
                f"{table.sheet.where}: no mixture; name the columns of its shares, --columns 'h=mix_*' or h=web+code, "
                f"for counts or rounded shares 'h=shares(mix_*)'; columns are {table.sheet.names}"
            )
        losses = np.concatenate(list(table.sources.values()), axis=1)
        texts = [name for names in table.texts.values() for name in names]
        keep, notes = ~np.isnan(losses).any(axis=1), list(table.notes)
        if not keep.all():
            notes.append(f"{(~keep).sum()} rows without all of the losses left out")
        for name in ("N", "D"):
            if name in table.inputs and np.ptp(values := table.inputs[name][keep]) > 0:
                wanted = (target or {}).get(name, values.max())
                tried = values[values > 0]
                nearest = float(tried[np.abs(np.log(tried / wanted)).argmin()])
                keep &= np.isclose(table.inputs[name], nearest, rtol=SAME)
                if (different := count_levels(tried, SAME)) > 1:
                    notes.append(f"of {different} different {name} the rows of {nearest:,.0f} are read")
        h, domains = table.inputs["h"][keep], table.domains
        if not (had := (h > 0).any(axis=0)).all():
            never = ", ".join(name for name, tried in zip(domains, had, strict=True) if not tried)
            notes.append(f"no run had any of {never}: left out, with a share of 0; nothing is known of it")
            domains = tuple(name for name, tried in zip(domains, had, strict=True) if tried)
            h = h[:, had]
        names = [name for name, kept in zip(table.run, keep, strict=True) if kept]
        found = cls.gather(domains, texts, h / h.sum(axis=1, keepdims=True), losses[keep], names=names)
        return replace(found, notes=(*notes, *found.notes))


def _refuse_shapes(domains: tuple[str, ...], evaluated: tuple[str, ...], h: Array, y: Array) -> None:
    if len(domains) < 2 or len(set(domains)) < len(domains):
        raise ConfigError(f"a mixture is of two or more different domains, found {domains}")
    if not evaluated or len(set(evaluated)) < len(evaluated):
        raise ConfigError(f"losses must be of one or more different held-out sets, found {evaluated}")
    if h.ndim != 2 or y.ndim != 2 or len(h) != len(y) or h.shape[1] != len(domains) or y.shape[1] != len(evaluated):
        raise ConfigError(
            f"shares {h.shape} and losses {y.shape}; expected one row per run, {len(domains)} shares and "
            f"{len(evaluated)} losses in each"
        )


def _refuse_values(h: Array, y: Array, evaluated: Sequence[str]) -> None:
    if (bad := np.flatnonzero(~np.isfinite(h).all(axis=1) | (h < 0).any(axis=1))).size:
        raise ConfigError(f"rows {bad[:5].tolist()} have a share that is no number or below 0; leave them out")
    for name, column in zip(evaluated, y.T, strict=True):
        if (bad := np.flatnonzero(~np.isfinite(column) | (column <= 0))).size:
            raise ConfigError(f"loss of {name}: not above 0 in rows {bad[:5].tolist()}; leave such rows out")
        if np.ptp(column) < 1e-6 * column.mean():
            raise ConfigError(f"loss of {name} is {column[0]:g} in every run; nothing can be learned from a constant")
