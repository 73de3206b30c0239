"""Runs from anybody's table, checked and ready to be fitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from ratoon.config import ConfigError, Role
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, Form
from ratoon.laws.tables.reading import Sheet
from ratoon.laws.tables.table import own_share
from ratoon.records import Observation


@dataclass(frozen=True)
class RunTable:
    """n runs, or checkpoints of runs.

    inputs   by the laws' names: N, D, lr ..., `share` of the domain or `r` of the evaluated text, `h` (n, d)
    sources  "general" and "domain", or "loss" of one text -> (n, texts) nats per token, NaN where not measured
    texts    the same -> the names of these texts
    bits     the same -> (n, texts) bits per byte, where the table has them: they show a loss in another unit
    domains  names of the columns of h
    """

    inputs: Mapping[str, Array]
    sources: Mapping[str, Array]
    texts: Mapping[str, tuple[str, ...]]
    run: tuple[str, ...]
    group: tuple[str, ...]  # runs that share a trunk, resampled together
    sheet: Sheet = field(repr=False)
    bits: Mapping[str, Array] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.run)

    @property
    def losses(self) -> dict[str, Array]:
        """(n,) means over the texts of a role; NaN where one of them was not measured."""
        return {name: values.mean(axis=1) for name, values in self.sources.items()}

    @property
    def both_roles(self) -> bool:
        """Whether the runs can carry a choice of ratio."""
        return {"N", "D", "share"} <= set(self.inputs) and set(get_args(Role)) <= set(self.sources)

    def offers(self, form: Form, on: str) -> bool:
        """Whether the table has every column that this law is a law of."""
        by_share = "share" in self.inputs and on in get_args(Role)
        return all(name in self.inputs or (name == "r" and by_share) for name in form.inputs)

    def rows_for(self, form: Form, on: str) -> tuple[Runs, tuple[str, ...]]:
        """What this law is fitted on for one of the losses, and the group of each row. Rows of the parent (0 tokens),
        and those without that loss, are left out."""
        if on not in self.sources:
            raise ConfigError(f"{self.sheet.where}: no {on} loss; {self.ask(on)}")
        inputs = {name: self._input(form, name, on) for name in form.inputs}
        keep = ~np.isnan(self.losses[on])
        if "D" in self.inputs:
            keep &= self.inputs["D"] > 0
        if not keep.any():
            raise ConfigError(f"{self.sheet.where}: no row with a {on} loss after training; {self.ask(on)}")
        groups = tuple(name for name, kept in zip(self.group, keep, strict=True) if kept)
        return Runs.gather({name: values[keep] for name, values in inputs.items()}, self.losses[on][keep]), groups

    def _input(self, form: Form, name: str, on: str) -> Array:
        if name in self.inputs:
            return self.inputs[name]
        if name == "r" and "share" in self.inputs:
            for role in get_args(Role):
                if on == role:
                    return own_share(role, self.inputs["share"])
            raise ConfigError(
                f"{self.sheet.where}: `share` is the domain's; on whose text is the loss measured? Say general=COLUMN "
                f"or domain=COLUMN instead of loss=COLUMN, or r=COLUMN for the share of that text itself"
            )
        raise ConfigError(
            f"{self.sheet.where}: {form.name} is a law of {', '.join(form.inputs)}, and there is no {name}; "
            f"{self.ask(name)}"
        )

    def ask(self, name: str) -> str:
        return f"name its column, --columns {name}=COLUMN; columns are {self.sheet.names}"

    def observations(self) -> list[Observation]:
        """One per row and text of either role that was measured: what `choose` reads.

        Raises ConfigError where the table has no losses of both roles, or no N, D or share.
        """
        missing = [name for name in ("N", "D", "share") if name not in self.inputs]
        missing += [role for role in get_args(Role) if role not in self.sources]
        if missing:
            raise ConfigError(
                f"{self.sheet.where}: a ratio is chosen from N, D, share, general and domain losses, and there is no "
                f"{', no '.join(missing)}; {self.ask(missing[0])}"
            )
        return [
            self._observation(k, role, t)
            for role in get_args(Role)
            for t in range(len(self.texts[role]))
            for k in range(len(self))
            if not np.isnan(self.sources[role][k, t])
        ]

    def _observation(self, k: int, role: Role, t: int) -> Observation:
        bits = float(self.bits[role][k, t]) if role in self.bits else np.nan
        tokens = round(float(self.inputs["D"][k]))
        return Observation(
            run=self.run[k],
            group=self.group[k],
            commit=None,
            config="",
            model="",
            params_non_embedding=round(float(self.inputs["N"][k])),
            tokens=tokens,
            share=float(self.inputs["share"][k]),
            learning_rate=float(self.inputs["lr"][k]) if "lr" in self.inputs else 0.0,
            step=0,
            finished=tokens > 0,
            evaluated=self.texts[role][t],
            role=role,
            loss_nats=float(self.sources[role][k, t]),
            bits_per_byte=None if np.isnan(bits) else bits,
        )
