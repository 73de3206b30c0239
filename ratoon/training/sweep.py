"""Proxy runs over ratio x size x tokens: the observations that laws are fitted on.

A group is one size at one ratio. With a schedule whose constant part does not know its end, the group is one
trunk with a short decay branched off for each horizon: every branch is, to the bit, the whole run of that
length. Where the target run will repeat scarce text, each horizon is a run of its own instead, on a subset
small enough to be repeated as often (arXiv 2606.07597).
"""

import copy
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from ratoon import records
from ratoon.config import ConfigError, Declared, Role, SweepConfig, TrainConfig
from ratoon.lm.load import pick_device
from ratoon.records import Observation, Record
from ratoon.stream.rows import Rows
from ratoon.training.loop import State
from ratoon.training.pool import map_processes
from ratoon.training.request import Portion, Request
from ratoon.training.run import Journal, Run, reporter
from ratoon.training.schedules import decay_start


class Corpus(Declared):
    """A packed source as the planner sees it."""

    rows: str
    role: Role
    weight: float = 1.0


class Group(Declared):
    """One size at one ratio; `request` is its longest run."""

    request: Request
    horizons: tuple[PositiveInt, ...]
    target_tokens: PositiveInt


class SweepRequest(Declared):
    groups: tuple[Group, ...]
    workers: PositiveInt
    out: str


class SweepResult(Record):
    observations: tuple[Observation, ...]
    tokens: int


def portions(corpora: dict[str, Corpus], domain_share: float) -> dict[str, Portion]:
    """The mixture at a domain share: within a role by weight. A source with share 0 is evaluated all the same."""
    if not 0 <= domain_share <= 1:
        raise ConfigError(f"domain share {domain_share} is outside 0..1; give a fraction, 0.3 for 30%")
    totals = {role: sum(c.weight for c in corpora.values() if c.role == role) for role in ("general", "domain")}
    if missing := [role for role, total in totals.items() if total == 0]:
        raise ConfigError(f"no {' and no '.join(missing)} source among {sorted(corpora)}; a mixture needs one of each")
    by_role = {"general": 1 - domain_share, "domain": domain_share}
    return {
        name: Portion(rows=c.rows, role=c.role, share=by_role[c.role] * c.weight / totals[c.role])
        for name, c in corpora.items()
    }


@dataclass(frozen=True)
class Plan:
    """What all groups of a sweep have in common, and the groups that can be made of it.

    models  label -> directory; the target's own size last
    common  row_tokens, held_out_tokens, commit of Request
    """

    models: Mapping[str, Path]
    corpora: dict[str, Corpus]
    sweep: SweepConfig
    recipe: TrainConfig
    out: Path
    common: Mapping[str, Any]

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
        """Tokens, halving downwards from the longest, whole steps."""
        step = self.recipe.rows_per_step * int(self.common["row_tokens"])
        found = tuple(sorted({self.sweep.tokens // 2**n // step * step for n in range(self.sweep.horizons)} - {0}))
        check_shortest(self.sweep, self.recipe, min(found, default=0), step)
        return found

    def group(self, label: str, ratio: float, lengths: int | None = None) -> Group:
        """One size at one ratio, measured at the shortest `lengths` horizons; None: at all."""
        horizons = self.horizons[:lengths]
        tokens = self.sweep.tokens if lengths is None else horizons[-1]
        threads = self.recipe.threads or max(1, (os.cpu_count() or 1) // self.workers)
        name = f"{label}-r{round(ratio * 100):03d}"
        request = Request(
            name=name,
            label=label,
            model=str(self.models[label]),
            portions=portions(self.corpora, ratio),
            recipe=self.recipe.model_copy(update={"tokens": tokens, "threads": threads}),
            out=str(self.out / name),
            **self.common,
        )
        return Group(request=request, horizons=horizons, target_tokens=self.recipe.tokens)

    def grid(self) -> list[Group]:
        """Every size at every ratio that was asked for."""
        return [self.group(label, ratio) for label in self.models for ratio in self.sweep.ratios or ()]

    def request(self, groups: Iterable[Group], out: Path) -> SweepRequest:
        """These groups, the longest first, so that no core waits."""
        ordered = sorted(groups, key=lambda group: -group_tokens(group) * weight_bytes(group))
        return SweepRequest(groups=tuple(ordered), workers=self.workers, out=str(out))


def weight_bytes(group: Group) -> int:
    return sum(file.stat().st_size for file in Path(group.request.model).glob("*.safetensors"))


def check_shortest(sweep: SweepConfig, recipe: TrainConfig, shortest: int, step_tokens: int) -> None:
    warmup = recipe.schedule.warmup_steps * step_tokens
    if shortest <= warmup:
        raise ConfigError(
            f"params.yaml: sweep: the shortest of {sweep.horizons} horizons is {shortest:,} tokens, not more than the "
            f"warm-up of {warmup:,}; raise sweep.tokens, or lower sweep.horizons or train.schedule.warmup_steps"
        )


def limited(group: Group, horizon: int) -> dict[str, int]:
    """source -> rows to use in a run of `horizon` tokens, for sources the target will read more than once."""
    limits = {}
    for name, portion in group.request.portions.items():
        if portion.share > 0:
            available = Rows.open(Path(portion.rows), "train", group.request.row_tokens).num_rows
            wanted = group.target_tokens * portion.share / group.request.row_tokens
            if wanted > available:
                limits[name] = max(1, round(available * horizon / group.target_tokens))
    return limits


def group_tokens(group: Group) -> int:
    """Tokens the group will train on, branches included."""
    recipe, step = group.request.recipe, group.request.step_tokens
    if not branches(group):
        return sum(group.horizons)
    steps = [h // step for h in group.horizons]
    starts = [decay_start(recipe.schedule, s) for s in steps]
    return step * (max(starts) + sum(s - a for s, a in zip(steps, starts, strict=True)))


def branches(group: Group) -> bool:
    return group.request.recipe.schedule.name != "cosine" and not limited(group, max(group.horizons))


def run_group(group: Group) -> list[Observation]:
    """All observations of one group; a finished group is read back, not run again."""
    out = Path(group.request.out)
    table = out / f"observations-{group.digest()}.csv"
    if table.exists():
        return records.read_observations(table)
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "metrics.jsonl", -1)
    found = trunk(group, journal) if branches(group) else separate(group, journal)
    records.write_observations(table, found)
    return found


def trunk(group: Group, journal: Journal) -> list[Observation]:
    """One constant-rate trunk, and from it the decay of each horizon."""
    run = Run(group.request)
    recipe, step = group.request.recipe, group.request.step_tokens
    name = group.request.name
    found = run.evaluate(run=f"{name}-start", group=name, finished=False)
    spent = 0

    def leg(until: int, steps: int) -> None:
        nonlocal spent
        begun = run.state.step
        report = reporter(journal, step, steps)
        run.advance(until, steps, lambda at, values: report(at - begun + spent, values))
        spent += until - begun

    for horizon in group.horizons:
        steps = horizon // step
        leg(decay_start(recipe.schedule, steps), steps)
        kept = snapshot(run.state)
        leg(steps, steps)
        found += run.evaluate(run=f"{name}-{horizon}", group=name, finished=True)
        put_back(run.state, kept)
    return found


def separate(group: Group, journal: Journal) -> list[Observation]:
    """Each horizon a run of its own, scarce sources cut to repeat as often as in the target."""
    found: list[Observation] = []
    name, spent = group.request.name, 0
    for horizon in group.horizons:
        limits = limited(group, horizon)
        cut = {
            source: portion.model_copy(update={"limit_rows": limits.get(source)})
            for source, portion in group.request.portions.items()
        }
        recipe = group.request.recipe.model_copy(update={"tokens": horizon})
        run = Run(group.request.model_copy(update={"portions": cut, "recipe": recipe}))
        if not found:
            found += run.evaluate(run=f"{name}-start", group=name, finished=False)
        steps = run.request.steps
        write = reporter(journal, run.request.step_tokens, steps)
        run.advance(steps, steps, lambda at, values, write=write, spent=spent: write(at + spent, values))  # type: ignore[misc]
        spent += steps
        found += run.evaluate(run=f"{name}-{horizon}", group=name, finished=True)
    return found


def snapshot(state: State) -> tuple[int, dict, dict]:
    return state.step, copy.deepcopy(state.model.state_dict()), copy.deepcopy(state.optimizer.state_dict())


def put_back(state: State, kept: tuple[int, dict, dict]) -> None:
    state.step = kept[0]
    state.model.load_state_dict(kept[1])
    state.optimizer.load_state_dict(kept[2])


def run_sweep(request: SweepRequest, report: Callable[[int, int], None] | None = None) -> SweepResult:
    """Run every group, `workers` at once. report(tokens so far, tokens in all) about once a second."""
    done = Path(request.out) / "result.json"
    if done.exists():
        return records.read(done, SweepResult)
    total = sum(group_tokens(group) for group in request.groups)
    folders = [Path(group.request.out) for group in request.groups]

    def poll() -> None:
        if report:
            report(min(total, sum(tokens_written(folder) for folder in folders)), total)

    found = map_processes(run_group, list(request.groups), request.workers, poll)
    result = SweepResult(observations=tuple(o for group in found for o in group), tokens=total)
    records.write_observations(Path(request.out) / "observations.csv", result.observations)
    records.write(done, result)
    return result


def merge(parts: Iterable[SweepResult], out: Path) -> SweepResult:
    """Sweeps made one after the other as one, in `out`."""
    parts = list(parts)
    found = tuple(o for part in parts for o in part.observations)
    result = SweepResult(observations=found, tokens=sum(part.tokens for part in parts))
    records.write_observations(out / "observations.csv", found)
    records.write(out / "result.json", result)
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
