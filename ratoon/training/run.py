"""One run from request to result: open, resume, advance, evaluate, save, record."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ratoon import records
from ratoon.lm.head import plain_head
from ratoon.lm.load import check_weights, non_embedding, pick_device
from ratoon.records import Observation
from ratoon.stream.mixture import Batch
from ratoon.training import checkpoint
from ratoon.training.attempt import Attempt
from ratoon.training.dip import dips, early_steps
from ratoon.training.faults import LeftOut
from ratoon.training.journal import Report
from ratoon.training.loop import advance, mean_loss, new_state
from ratoon.training.methods import Setting, build
from ratoon.training.model import open_model
from ratoon.training.ranks import ALONE, Ranks, shard
from ratoon.training.reading import Reading, evaluation_rows, open_held_out, share_read
from ratoon.training.release import release, released
from ratoon.training.request import Request, Result, SourceRead
from ratoon.training.rollback import without
from ratoon.training.schedules import learning_rate
from ratoon.training.shards import begin_chance
from ratoon.training.trunk import beginning, kept_in, take_up


class Run:
    """A request with its files open. `advance` and `evaluate` are all a run or a sweep needs."""

    def __init__(self, request: Request, ranks: Ranks = ALONE) -> None:
        self.request, self.ranks = request, ranks
        recipe = request.recipe
        begin_chance(recipe.seed, ranks.number)  # a checkpoint holds how far it got
        self.left_out: LeftOut = {}
        torch.set_num_threads(recipe.threads or max(1, torch.get_num_threads()))
        check_weights(Path(request.model))
        with ranks.first_before_others():  # an order that is worked out once is kept on disk
            self.reading = Reading(request)
        self.mixture = self.reading.mixture
        self.held_out = {name: open_held_out(name, request) for name in sorted(request.portions)}
        self.model = open_model(beginning(request), recipe, sharded=ranks.count > 1)
        self.params, self.share = non_embedding(self.model), share_read(request)
        roles: dict[str, str] = {name: portion.role for name, portion in request.portions.items()}
        parent, out = Path(request.model), Path(request.out)
        context = self.reading.prefixed.context
        setting = Setting(
            self.model, parent, recipe, self.mixture, roles, request.portions, out, gather=ranks.gather, context=context
        )
        methods = build(setting)
        if ranks.count > 1:
            shard(self.model, pick_device(recipe.device), ranks)
        self.state = new_state(self.model, recipe, next(iter(self.held_out.values())).rows.separator, methods)
        take_up(self)
        words = None if plain_head(self.model) else int(self.model.config.get_text_config().vocab_size)
        for held_out in self.held_out.values():
            held_out.at_once = evaluation_rows(request.row_tokens, words)

    def whole_batch_at(self, step: int) -> Batch:
        """All rows of the step, of all ranks, also those left out."""
        return self.reading.batch_at(step)

    def step_batch_at(self, step: int) -> Batch:
        """All rows of the step that are read, on all ranks."""
        return without(self.whole_batch_at(step), self.left_out.get(step, ()))

    def batch_at(self, step: int) -> Batch:
        """What this rank reads."""
        if self.ranks.count == 1:
            return self.step_batch_at(step)
        rows = self.request.recipe.rows_per_step
        own = self.ranks.rows(rows)
        batch = self.reading.batch_at(step, own)
        first = own.start * batch.parts
        left_out = tuple(n - first for n in self.left_out.get(step, ()) if 0 <= n - first < len(batch.tokens))
        return self.ranks.padded(without(batch, left_out), rows * batch.parts)

    def advance(self, until: int, steps: int, report: Report | None) -> None:
        """Update up to step `until` of a run that is `steps` long."""
        recipe = self.request.recipe
        lr_at = learning_rate(recipe.schedule, recipe.learning_rate, steps, self.request.step_tokens)
        take = partial(
            advance, self.state, batch_at=self.batch_at, lr_at=lr_at, recipe=recipe, report=self.over_ranks(report)
        )
        if self.ranks.count > 1:
            take = partial(take, over_ranks=self.ranks.total)
        for empty in sorted(step for step in self.left_out if self.state.step <= step < until):
            take(empty)
            if not len(self.step_batch_at(empty).tokens):  # no update; rate and rows of the later ones stay their own
                self.state.step += 1
                if report:
                    report(self.state.step, {})
        take(until)

    def over_ranks(self, report: Report | None) -> Report | None:
        """`report` with the loss of all ranks in place of this one's part of it."""
        if report is None or self.ranks.count == 1:
            return report

        def told(step: int, values: dict[str, torch.Tensor | float]) -> None:
            if "loss_nats" in values:
                values = {**values, "loss_nats": self.ranks.sum(torch.as_tensor(values["loss_nats"]))}
            report(step, values)

        return told

    def evaluate(self, *, run: str, group: str, finished: bool) -> list[Observation]:
        """Held-out loss of every portion, read or not; of a finished run, under the weights it releases."""
        request = self.request
        unique = {
            name: int(used) * request.row_tokens
            for name, used in zip(self.mixture.order.names, self.mixture.order.used, strict=True)
        }
        model = released(self.state) if finished else self.state.model
        found = []
        for name, held_out in self.held_out.items():
            parts = (self.ranks.part(batch) for batch in held_out.batches())
            loss = mean_loss(model, parts, request.recipe, held_out.rows.separator, self.ranks.sum)
            found.append(
                Observation(
                    run=run,
                    group=group,
                    commit=request.commit,
                    config=request.identity(),
                    model=request.label,
                    params_non_embedding=self.params,
                    tokens=self.state.step * request.step_tokens,
                    share=self.share,
                    unique_tokens=unique,
                    learning_rate=request.recipe.learning_rate,
                    step=self.state.step,
                    finished=finished,
                    evaluated=name,
                    role=request.portions[name].role,
                    loss_nats=loss,
                    bits_per_byte=None if loss is None else loss * held_out.bits_per_nat,
                )
            )
        return found


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Evenly spaced, the last at the end."""
    return sorted({round(steps * (n + 1) / evaluations) for n in range(evaluations)} - {0})


def evaluated_steps(request: Request) -> list[int]:
    """Those spread evenly, and the early ones."""
    recipe, steps = request.recipe, request.steps
    early = early_steps(steps, recipe.early_evaluations, recipe.early_share)
    return sorted({*evaluation_steps(steps, recipe.evaluations), *early})


def train(request: Request, asked: Callable[[], bool] = bool, ranks: Ranks = ALONE) -> Result:
    """Carry `request` out, from its newest whole checkpoint if there is one. Same request, same weights.

    asked  whether to end before the end: looked at after each step. Raises Ended then, its state saved
    """
    out = Path(request.out)
    done = out / "result.json"
    if ranks.same(done.exists()):
        return records.read(done, Result)
    out.mkdir(parents=True, exist_ok=True)
    attempt = Attempt(
        request,
        partial(Run, ranks=ranks),
        ranks=ranks,
        evaluate_at=evaluated_steps(request),
        save_at=evaluation_steps(request.steps, request.recipe.checkpoints),
        asked=asked,
    )
    attempt.go()
    result = conclude(attempt)
    if ranks.first:
        records.write(done, result)
    return ranks.same(result)


def read_by(run: Run) -> dict[str, SourceRead]:
    """Source -> what the whole run read of it."""
    steps = run.request.steps
    more = run.reading.prefixed.tokens_before(steps)
    found = run.reading.account(steps)
    return {name: SourceRead(**read._asdict(), prefix_tokens=more.get(name, 0)) for name, read in found.items()}


def conclude(attempt: Attempt) -> Result:
    """The model to release, and the record of how it came to be."""
    seconds, own_seconds = attempt.clock.total, attempt.clock.own
    request, run, out = attempt.request, attempt.run, attempt.out
    saved = checkpoint.whole(attempt.checkpoints)[-1]
    final = release(run.state, saved, out / "release", Path(request.model))
    tokens = request.steps * request.step_tokens
    read = tokens - attempt.first_step * request.step_tokens
    return Result(
        name=request.name,
        model=str(final),
        steps=request.steps,
        tokens=tokens,
        params_non_embedding=run.params,
        seconds=seconds,
        tokens_per_second=read / max(own_seconds, 1e-9),
        observations=tuple(attempt.observations),
        data=read_by(run),
        # Of one kind of weights: where others are released than were trained, the end is no part of the way there.
        dips=dips([o for o in attempt.observations if final == saved or not o.finished]),
        trunk=kept_in(out / "trunk"),
        faults=attempt.book.faults,
    )
