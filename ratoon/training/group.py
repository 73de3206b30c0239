"""A group of a sweep: one size at one ratio, measured at several horizons.

With a schedule whose constant part does not know its end, the group is one trunk with a short decay branched off for
each horizon: every branch is, to the bit, the whole run of that length. Where the target run will repeat scarce text,
each horizon is a run of its own instead, on a subset small enough to be repeated as often (arXiv 2606.07597); and so
it is where the schedule has no trunk and the sweep is to compare it all the same.
"""

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ratoon import records
from ratoon.config import ConfigError
from ratoon.records import Observation
from ratoon.training.alone import Alone
from ratoon.training.faults import Ended
from ratoon.training.hopeless import Stopped, why_stop
from ratoon.training.journal import Journal, Report, reporter
from ratoon.training.pool import asked
from ratoon.training.proxies import Group, branches, limited, table_of
from ratoon.training.request import Request
from ratoon.training.rollback import Watch
from ratoon.training.run import Run
from ratoon.training.schedules import decay_start
from ratoon.training.trunk import evaluate_parent


def run_group(group: Group) -> list[Observation]:
    """All observations of one group; a finished group is read back, not run again."""
    if table_of(group).exists():
        return records.read_observations(table_of(group))
    walk = Walk(group)
    if branches(group):
        run = Run(trunk_request(group))
        branch([walk], Alone(run))
    else:
        separate(walk)
    return walk.finish()


def trunk_request(group: Group) -> Request:
    """The group's longest run, if its loss lets it have a trunk."""
    if why := group.request.recipe.loss.no_trunk:
        raise ConfigError(f"train.loss: no trunk for a sweep: {why}; for a sweep give until_share 1")
    return group.request


def check_not_asked() -> None:
    """Raises Ended where the sweep that this group is of is to end: what is finished is kept, and no more is begun."""
    if asked():
        raise Ended("the sweep was asked to end")


@dataclass
class Walk:
    """A group on its way from horizon to horizon, and what it leaves behind.

    One that breaks is not gone back with, as a run is: its loss would be of other rows than those of the rest. It ends
    where it broke, which is recorded; what it has measured before stands.
    """

    group: Group
    found: list[Observation] = field(default_factory=list)
    halted: Stopped | None = None
    spent: int = 0  # steps taken, branches included

    def __post_init__(self) -> None:
        check_not_asked()
        Path(self.group.request.out).mkdir(parents=True, exist_ok=True)
        self.journal = Journal(Path(self.group.request.out) / "metrics.jsonl", -1)
        self.watch = Watch(self.group.request.recipe.faults.spike)

    def start(self, run: Run) -> None:
        name = self.group.request.name
        self.found += evaluate_parent(run, name=f"{name}-start", group=name)
        if strange := not_numbers(self.found):
            raise ConfigError(f"{self.group.request.model}: its loss on {strange} is no number; take another base")

    def report(self, begun: int, steps: int, aside: bool = False) -> Report:
        """Of a leg that begins at step `begun` of a run; lines count the steps of all legs.

        aside  on a branch, whose losses say nothing of those the trunk will have
        """
        write, spent = reporter(self.journal, self.group.request.step_tokens, steps), self.spent
        watch = Watch(self.watch.rule, self.watch.losses) if aside else self.watch

        def told(at: int, values: dict[str, torch.Tensor | float]) -> None:
            check_not_asked()
            if self.halted is None and "loss_nats" in values:
                watch.see(values["loss_nats"])
            write(at - begun + spent, values)

        return told

    def measure(self, run: Run, horizon: int) -> None:
        """At the decayed end of a horizon; a group that was stopped is not measured further."""
        if self.halted is not None:
            return
        name, longest = self.group.request.name, max(self.group.horizons)
        new = run.evaluate(run=f"{name}-{horizon}", group=name, finished=True)
        if strange := not_numbers(new):
            self.broke(f"its loss on {strange} at the end of {horizon:,} tokens is no number")
            return
        self.found += new
        bound, step = self.group.bound, self.group.request.step_tokens
        if bound and horizon < longest and (why := why_stop(bound, self.found, longest // step)):
            left_out = tuple(h for h in self.group.horizons if h > horizon)
            self.halted = Stopped(group=name, tokens=horizon, left_out=left_out, reason=why)

    def broke(self, why: str) -> None:
        """It is not taken further. A failure of its own: those beside it go on."""
        last = max((one.tokens for one in self.found if one.finished), default=0)
        self.halted = Stopped(
            group=self.group.request.name,
            tokens=last,
            left_out=tuple(h for h in self.group.horizons if h > last),
            reason=why,
            spent=self.spent * self.group.request.step_tokens,
        )

    def finish(self) -> list[Observation]:
        if self.halted is not None:
            records.write(table_of(self.group).with_suffix(".stopped.json"), self.halted)
        records.write_observations(table_of(self.group), self.found)  # the mark of a finished group: last
        return self.found


def not_numbers(found: Sequence[Observation]) -> str:
    """Names of the sources whose loss is no number; one that was not measured is another matter."""
    return ", ".join(one.evaluated for one in found if one.loss_nats is not None and not math.isfinite(one.loss_nats))


class Company(Protocol):
    """Runs that take their steps together: one, or a stack. broken: the number of one that broke -> why it did"""

    @property
    def runs(self) -> Sequence[Run]: ...
    @property
    def broken(self) -> Mapping[int, str]: ...
    def advance(self, until: int, steps: int, reports: Sequence[Report]) -> None: ...
    def snapshot(self) -> Any: ...
    def put_back(self, kept: Any) -> None: ...


def branch(walks: Sequence[Walk], company: Company) -> None:
    """One constant-rate trunk, and from it the decay of each horizon. All walks have the horizons of the first."""
    group = walks[0].group
    schedule, step = group.request.recipe.schedule, group.request.step_tokens

    def leg(until: int, steps: int, aside: bool = False) -> None:
        begun = company.runs[0].state.step
        company.advance(until, steps, [walk.report(begun, steps, aside) for walk in walks])
        for number, walk in enumerate(walks):
            walk.spent += company.runs[0].state.step - begun
            if walk.halted is None and number in company.broken:
                walk.broke(company.broken[number])

    for walk, run in zip(walks, company.runs, strict=True):
        walk.start(run)
    for horizon in group.horizons:
        steps = horizon // step
        leg(decay_start(schedule, steps), steps)
        if all(walk.halted for walk in walks):
            return
        kept = company.snapshot()
        leg(steps, steps, aside=True)
        for walk, run in zip(walks, company.runs, strict=True):
            walk.measure(run, horizon)
        if all(walk.halted for walk in walks):
            return
        company.put_back(kept)


def separate(walk: Walk) -> None:
    """Each horizon a run of its own, scarce sources cut to repeat as often as in the target."""
    group = walk.group
    for horizon in group.horizons:
        limits = limited(group, horizon)
        cut = {
            source: portion.model_copy(update={"limit_rows": limits.get(source)})
            for source, portion in group.request.portions.items()
        }
        recipe = group.request.recipe.model_copy(update={"tokens": horizon})
        run = Run(group.request.model_copy(update={"portions": cut, "recipe": recipe}))
        if not walk.found:
            walk.start(run)
        steps, alone = run.request.steps, Alone(run)
        alone.advance(steps, steps, [walk.report(0, steps, aside=True)])
        walk.spent += run.state.step
        if alone.broken:
            walk.broke(alone.broken[0])
        walk.measure(run, horizon)
        if walk.halted:
            return
        del run, alone  # a second model beside it may not fit; models hold themselves in circles
        gc.collect()
