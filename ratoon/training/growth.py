"""A sweep that grows: three ratios first, then what narrows the choice most per FLOP, until it is not worth it.

Rounds of as many groups as run at once. A round is planned from the observations alone and written down before it is
run, so that an interrupted sweep goes on with the same rounds and no group is run twice. This module alone in
ratoon.training reads the laws; a machine that only trains does not import it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratoon import records
from ratoon.config import ChooseConfig
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.design.belief import Belief, believe_weakly
from ratoon.laws.design.drift import compare
from ratoon.laws.design.next_run import Option, Rule, first_lengths, options, propose, shares, stop
from ratoon.laws.design.rows import Rows
from ratoon.laws.size import train_flops
from ratoon.laws.tables.parents import parent_losses
from ratoon.laws.tables.table import tabulate
from ratoon.lm.load import non_embedding
from ratoon.records import Observation
from ratoon.training.sweep import Group, Plan, SweepRequest, group_tokens
from ratoon.training.swept import SweepResult, check_measured, merge, merged

CarryOut = Callable[[SweepRequest, Path], None]  # runs a request and leaves result.json in its folder


@dataclass(frozen=True)
class Question:
    """What the sweep is to decide."""

    plan: Plan
    sizes: Mapping[str, int]  # label -> parameters, embeddings excluded
    config: ChooseConfig
    former: tuple[Observation, ...] = ()  # of the refresh before: its law is the prior, where nothing contradicts it

    @property
    def params(self) -> int:
        return self.sizes[self.plan.own]

    @property
    def tokens(self) -> int:
        return self.plan.recipe.tokens

    @property
    def rule(self) -> Rule:
        sweep = self.plan.sweep
        return Rule(sweep.width, sweep.price, sweep.max_runs)

    def stakes(self, observations: Sequence[Observation]) -> Stakes:
        parent = parent_losses(observations, self.params)
        return Stakes(parent["general"], parent["domain"], self.config)

    def believe(self, observations: Sequence[Observation]) -> Belief:
        tables, _ = tabulate(observations)
        rows = {role: Rows.of(table) for role, table in tables.items()}
        found = compare(self.former, observations, params=self.params, tokens=self.tokens, seed=self.config.seed)
        if found is not None:
            rows = {role: mine.and_former(found.prior[role]) if found.prior else mine for role, mine in rows.items()}
        return believe_weakly(rows, params=self.params, tokens=self.tokens, stakes=self.stakes(observations))

    def options(self, observations: Sequence[Observation]) -> list[Option]:
        """The groups that could still be made, and what they would cost."""
        names = {one.group for one in observations}
        made = {(float(one.params_non_embedding), one.share) for one in observations}
        # By name too: a block may hold another share than the one that was asked for, which is what is recorded.
        made |= {
            (float(size), share)
            for label, size in self.sizes.items()
            for share in shares()
            if self.plan.name_of(label, share) in names
        }
        return options([float(size) for size in self.sizes.values()], self.plan.horizons, made, self.cost)

    def cost(self, size: float, share: float, horizons: Sequence[float]) -> float:
        """FLOPs of one group, its branches included."""
        label = next(label for label, its in self.sizes.items() if its == size)
        return train_flops(size, group_tokens(self.plan.group(label, share, len(horizons))))

    def left(self, observations: Sequence[Observation]) -> float | None:
        """FLOPs of the budget that are not spent; None: there is no limit."""
        if self.plan.sweep.budget is None:
            return None
        lengths: dict[tuple[int, float], set[float]] = {}
        for one in observations:
            if one.finished:
                lengths.setdefault((one.params_non_embedding, one.share), set()).add(one.tokens)
        spent = sum(self.cost(size, share, sorted(tokens)) for (size, share), tokens in lengths.items())
        return self.plan.sweep.budget * train_flops(self.params, self.tokens) - spent

    def group(self, option: Option) -> Group:
        label = next(label for label, size in self.sizes.items() if size == option.params)
        return self.plan.group(label, option.share, len(option.horizons))


def size_of(model: Path) -> int:
    """Parameters of a model directory, embeddings excluded, without loading its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return non_embedding(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model, local_files_only=True)))


def start(plan: Plan) -> list[Group]:
    """The first runs, all of the target's size: FLOPs go with tokens."""
    shares, budget = plan.sweep.start, plan.sweep.budget
    most = None if budget is None else budget * plan.recipe.tokens
    lengths = first_lengths(shares, lambda share, count: group_tokens(plan.group(plan.own, share, count)), most)
    return [plan.group(plan.own, *each) for each in zip(shares, lengths, strict=True)]


def further(question: Question, observations: Sequence[Observation]) -> tuple[list[Group], str]:
    """The next round, and why there is none where it is empty."""
    belief = question.believe(observations)
    made = len({one.group for one in observations})
    rule = question.rule
    number = question.plan.workers if rule.max_runs is None else min(question.plan.workers, rule.max_runs - made)
    left = question.left(observations)
    found = propose(belief, question.options(observations), rule, max(number, 1), left)
    said = f"{made} proxy runs, best share {belief.median:.2f}, interval {belief.width:.2f} wide"
    if why := stop(belief, found[0] if found else None, rule, made, left):
        return [], why
    return [question.group(one.option) for one in found], said


def grow(question: Question, carry_out: CarryOut, say: Callable[[str], None]) -> SweepResult:
    """All rounds, each in a folder of its own; finished ones are read back."""
    plan = question.plan
    wanted, rounds = start(plan), list[SweepResult]()
    while wanted:
        folder = plan.out / f"round-{len(rounds) + 1:02d}"
        if not (folder / "result.json").exists():
            kept = folder / "request.json"
            planned = plan.request(wanted, folder).model_copy(update={"is_round": True})
            carry_out(records.read(kept, SweepRequest) if kept.exists() else planned, folder)
        rounds.append(records.read(folder / "result.json", SweepResult))
        check_measured(merged(rounds))
        wanted, said = further(question, [one for part in rounds for one in part.observations])
        say(said)
    return merge(rounds, plan.out)
