"""Proxy runs over ratio x size x tokens, and where asked x learning rate x schedule: what laws are fitted on.

What one group is: proxies.py; how it is run: group.py. Groups run side by side, each in a process of its own or several
as one stack of weights (stacked.py).
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from ratoon import records
from ratoon.config import ChooseConfig, ConfigError, Declared, Role, Schedule, SweepConfig, TrainConfig
from ratoon.corpus.packed import read_index
from ratoon.lm.load import pick_device
from ratoon.training.faults import Ended
from ratoon.training.hopeless import Bound
from ratoon.training.pool import map_processes
from ratoon.training.proxies import Group, branches, group_tokens, limited, stopped, table_of, tokens_run
from ratoon.training.request import Portion, Request, Trunk
from ratoon.training.shortest import check_shortest
from ratoon.training.swept import SweepResult, check_measured, merge
from ratoon.training.trunk import go_on

__all__ = [
    "Corpus",
    "Group",
    "Plan",
    "SweepRequest",
    "SweepResult",
    "branches",
    "group_tokens",
    "limited",
    "merge",
    "portions",
    "run_sweep",
    "tokens_written",
]


class Corpus(Declared):
    """A packed source as the planner sees it."""

    rows: str
    role: Role
    weight: float = 1.0


class SweepRequest(Declared):
    groups: tuple[Group, ...]
    workers: PositiveInt
    out: str
    stacked: Literal["auto", "never", "always"] = "auto"
    is_round: bool = False  # of a sweep that grows: others may have been measured where all of these break

    @property
    def grace_seconds(self) -> float:
        return max(group.request.grace_seconds for group in self.groups)


def portions(corpora: dict[str, Corpus], domain_share: float, temperature: float | None = None) -> dict[str, Portion]:
    """The mixture at a domain share. A source with share 0 is evaluated all the same.

    temperature  T: shares within a role follow weight * tokens^(1/T); None: the weight alone, as for an infinite one
    """
    if not 0 <= domain_share <= 1:
        raise ConfigError(f"domain share {domain_share} is outside 0..1; give a fraction, 0.3 for 30%")
    weights = {name: corpus.weight * tempered(corpus, temperature) for name, corpus in corpora.items()}
    totals = {role: sum(weights[n] for n, c in corpora.items() if c.role == role) for role in ("general", "domain")}
    if missing := [role for role, total in totals.items() if total == 0]:
        raise ConfigError(f"no {' and no '.join(missing)} source among {sorted(corpora)}; a mixture needs one of each")
    by_role = {"general": 1 - domain_share, "domain": domain_share}
    return {
        name: Portion(rows=c.rows, role=c.role, share=by_role[c.role] * weights[name] / totals[c.role])
        for name, c in corpora.items()
    }


def tempered(corpus: Corpus, temperature: float | None) -> float:
    return 1.0 if temperature is None else read_index(Path(corpus.rows)).totals["train"].tokens ** (1 / temperature)


@dataclass(frozen=True)
class Plan:
    """What all groups of a sweep have in common, and the groups that can be made of it.

    models  label -> directory; the target's own size last
    common  row_tokens, held_out_tokens, commit of Request
    choose  what the sweep is for: the ceiling past which a proxy is hopeless
    trunks  label -> trunk that its proxies continue, as the target run will
    """

    models: Mapping[str, Path]
    corpora: dict[str, Corpus]
    sweep: SweepConfig
    recipe: TrainConfig
    out: Path
    common: Mapping[str, Any]
    choose: ChooseConfig = field(default_factory=ChooseConfig)
    trunks: Mapping[str, Trunk] = field(default_factory=dict)

    @property
    def own(self) -> str:
        """The label of the target's size."""
        return list(self.models)[-1]

    @property
    def workers(self) -> int:
        cores = os.cpu_count() or 1
        return self.sweep.workers or (cores if pick_device(self.recipe.device).type == "cpu" else 1)

    @property
    def horizons(self) -> tuple[int, ...]:
        """Tokens up to the longest, whole steps, halving downwards or evenly spaced."""
        step, sweep = self.recipe.rows_per_step * int(self.common["row_tokens"]), self.sweep
        if sweep.spacing == "halving":
            lengths = [sweep.tokens // 2**n for n in range(sweep.horizons)]
        else:
            lengths = [sweep.tokens * (n + 1) // sweep.horizons for n in range(sweep.horizons)]
        found = tuple(sorted({tokens // step * step for tokens in lengths} - {0}))
        check_shortest(sweep, self.recipe, min(found, default=0), step)
        return found

    @property
    def bound(self) -> Bound | None:
        if self.sweep.hopeless is None:
            return None
        ceiling = self.choose.tolerance if self.choose.goal == "ceiling" else None
        return Bound(rule=self.sweep.hopeless, tolerance=ceiling)

    def recipe_of(self, label: str, rate: float | None = None, schedule: Schedule | None = None) -> TrainConfig:
        """The recipe of one size at one rate and schedule; None: those of train."""
        recipe = self.recipe
        if label in self.trunks:
            if rate is not None or schedule is not None:
                raise ConfigError(
                    "sweep.learning_rates, sweep.schedules: a trunk that is continued has its own rate; leave them "
                    "out, or set train.trunk: keep"
                )
            return go_on(recipe, self.trunks[label])
        changes = {"learning_rate": rate, "schedule": schedule}
        return recipe.model_copy(update={key: value for key, value in changes.items() if value is not None})

    def group(
        self,
        label: str,
        ratio: float,
        lengths: int | None = None,
        *,
        rate: float | None = None,
        schedule: Schedule | None = None,
    ) -> Group:
        """One size at one ratio, measured at the shortest `lengths` horizons; None: at all."""
        horizons = self.horizons[:lengths]
        tokens = self.sweep.tokens if lengths is None else horizons[-1]
        threads = self.recipe.threads or max(1, (os.cpu_count() or 1) // self.workers)
        name = self.name_of(label, ratio)
        name += "" if rate is None else f"-lr{rate:g}"
        name += "" if schedule is None else f"-{schedule.name}-{schedule_digest(schedule)}"
        request = Request(
            name=name,
            label=label,
            model=str(self.models[label]),
            portions=portions(self.corpora, ratio, self.recipe.mixture.temperature),
            recipe=self.recipe_of(label, rate, schedule).model_copy(update={"tokens": tokens, "threads": threads}),
            out=str(self.out / name),
            trunk=self.trunks.get(label),
            **self.common,
        )
        # Schedules that are compared need not have a trunk; the one that all share does, or it is said.
        alone = self.sweep.schedules is not None and request.recipe.schedule.no_trunk is not None
        return Group(
            request=request, horizons=horizons, target_tokens=self.recipe.tokens, bound=self.bound, separate=alone
        )

    @staticmethod
    def name_of(label: str, ratio: float) -> str:
        return f"{label}-r{ratio * 100:03g}"

    def grid(self) -> list[Group]:
        """Every size at every ratio, learning rate and schedule that was asked for."""
        sweep = self.sweep
        axes = (self.models, sweep.ratios or (), sweep.learning_rates or (None,), sweep.schedules or (None,))
        return [
            self.group(label, ratio, rate=rate, schedule=schedule) for label, ratio, rate, schedule in product(*axes)
        ]

    def request(self, groups: Iterable[Group], out: Path) -> SweepRequest:
        """These groups, the longest first, so that no core waits."""
        ordered = sorted(groups, key=lambda group: -group_tokens(group) * weight_bytes(group))
        return SweepRequest(groups=tuple(ordered), workers=self.workers, out=str(out), stacked=self.sweep.stacked)


def schedule_digest(schedule: Schedule) -> str:
    """Tells schedules of one name apart."""
    return hashlib.sha256(schedule.model_dump_json().encode()).hexdigest()[:4]


def weight_bytes(group: Group) -> int:
    return sum(file.stat().st_size for file in Path(group.request.model).glob("*.safetensors"))


def run_sweep(
    request: SweepRequest, report: Callable[[int, int], None] | None = None, ends: Callable[[], bool] = bool
) -> SweepResult:
    """Run every group, `workers` at once. report(tokens so far, tokens in all) about once a second.

    ends  whether the sweep is to end before its end. Raises Ended then: finished groups are kept
    A group that breaks is recorded as stopped. Raises GaveUp where none was measured.
    """
    done = Path(request.out) / "result.json"
    if done.exists():
        return records.read(done, SweepResult)
    from ratoon.training.stacked import bundles, run_bundle

    total = sum(group_tokens(group) for group in request.groups)
    folders = [Path(group.request.out) for group in request.groups]

    def poll() -> None:
        if report:
            report(min(total, sum(tokens_written(folder) for folder in folders)), total)

    together = bundles(request.groups, request.stacked, request.workers)
    try:
        found = map_processes(run_bundle, together, request.workers, poll, ends)
    except Ended:
        kept = sum(table_of(group).exists() for group in request.groups)
        raise Ended(
            f"the sweep was asked to end and did, {kept} of {len(request.groups)} groups finished and kept in "
            f"{request.out}; run again to go on"
        ) from None
    made = {
        group.request.name: table
        for bundle, tables in zip(together, found, strict=True)
        for group, table in zip(bundle, tables, strict=True)
    }
    result = SweepResult(
        observations=tuple(o for group in request.groups for o in made[group.request.name]),
        tokens=sum(tokens_run(group) for group in request.groups),
        stopped=tuple(halted for group in request.groups if (halted := stopped(group)) is not None),
    )
    if not request.is_round:
        check_measured(result)
    records.write_observations(Path(request.out) / "observations.csv", result.observations)
    records.write(done, result)
    return result


def tokens_written(folder: Path) -> int:
    """Tokens by the last line of a group's journal."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            return int(json.loads(line)["tokens"])
        except (ValueError, KeyError):
            continue
    return 0
