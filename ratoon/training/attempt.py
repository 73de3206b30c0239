"""One try to take a run to its end, from where the tries before it left off, past what may go wrong on the way."""

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ratoon import records
from ratoon.config import ConfigError
from ratoon.lm.load import pick_device
from ratoon.training import checkpoint, shards
from ratoon.training.clock import Clock
from ratoon.training.disk import discard, tidy
from ratoon.training.faults import Book, Ended, Fault, GaveUp, Kind, LeftOut, halved
from ratoon.training.journal import Journal, Silent, flat, read_trace, reporter
from ratoon.training.loop import Diverged
from ratoon.training.ranks import ALONE, Ranks
from ratoon.training.rollback import Spiked, Watch, broken_rows, weights_are_numbers
from ratoon.training.staging import Writer, short_of_memory
from ratoon.training.trunk import evaluate_parent, keep, keep_at

if TYPE_CHECKING:
    from ratoon.training.request import Request
    from ratoon.training.run import Run


class Attempt:
    """A request under way. Whatever it knows is on disk, or follows from what is: a fault and a kill are alike.

    open_run     the request with its files open and its model as before the first step
    evaluate_at  steps at which it is evaluated; save_at: at which its state is saved
    asked        whether it is to end before its end
    ranks        those it is shared by: what one of them knows alone, a signal or what is on disk, all are told
    """

    def __init__(
        self,
        request: "Request",
        open_run: "Callable[[Request], Run]",
        *,
        evaluate_at: list[int],
        save_at: list[int],
        asked: Callable[[], bool],
        ranks: Ranks = ALONE,
    ) -> None:
        self.request, self.open_run = request, open_run
        self.evaluate_at, self.save_at, self.keep_at = set(evaluate_at), set(save_at), keep_at(request)
        self.ranks = ranks
        self.asked = asked if ranks.count == 1 else lambda: ranks.any(asked())
        self.rules = request.recipe.faults
        self.out = Path(request.out)
        self.identity = request.identity()
        self.clock = Clock(self.out / "spent.json", self.identity, writes=ranks.first)
        on_gpu = pick_device(request.recipe.device).type == "cuda"
        self.writer = Writer() if self.rules.saving == "beside" or (self.rules.saving == "auto" and on_gpu) else None
        self.book = Book(self.out / "faults.json", self.identity, writes=ranks.first)
        if ranks.first:
            for folder in (self.checkpoints, self.out / "trunk"):
                tidy(folder)
        self.open()
        self.first_step = self.run.state.step

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    def open(self) -> None:
        """From the newest whole checkpoint that knows of every row left out before it, or from the beginning."""
        micro_rows = self.book.micro_rows or self.request.recipe.micro_rows
        recipe = self.request.recipe.model_copy(update={"micro_rows": micro_rows})
        self.run = self.open_run(self.request.model_copy(update={"recipe": recipe}))
        if self.book.micro_rows:
            for held_out in self.run.held_out.values():
                held_out.at_once = min(held_out.at_once, self.book.micro_rows)
        saved = self.ranks.same(self.last_saved() if self.ranks.first else None)
        progress = checkpoint.restore(self.run.state, saved, self.identity) if saved else {}
        self.run.left_out = self.book.left_out
        self.watch = Watch(self.rules.spike, progress.get("losses", ()))
        step = self.run.state.step
        self.saved = step if progress else -1
        self.journal = Journal(self.out / "metrics.jsonl", step) if self.ranks.first else Silent()
        self.report = reporter(self.journal, self.request.step_tokens, self.request.steps)
        self.observations = self.ranks.same(read_trace(self.out / "observations.csv", step))

    def last_saved(self) -> Path | None:
        """The newest whole checkpoint to go on from; those that read what was left out since are removed."""
        for saved in reversed(checkpoint.whole(self.checkpoints)):
            found = checkpoint.read_progress(saved)
            if found["identity"] != self.identity or knows(found, self.book.left_out):
                return saved
            discard(saved)
        return None

    def go(self) -> None:
        """To the last step, evaluated and saved. Raises Ended where it was asked to end before it."""
        try:
            while self.run.state.step < self.request.steps or self.saved < self.request.steps:
                fault = self.stretch()
                if fault is not None:
                    self.go_back(fault)
            self.wait()
        finally:
            if self.writer:
                self.writer.settle()

    def stretch(self) -> Fault | None:
        """To the next step at which something is due; what broke on the way, if something did."""
        try:
            if not self.observations:
                self.evaluate()
            if self.asked():
                self.end()
            self.advance()
        except (Diverged, Spiked) as error:
            return self.examine(error)
        except (RuntimeError, MemoryError) as error:
            if not short_of_memory(error):
                raise
            return self.lower(error)
        return None

    def advance(self) -> None:
        steps, due = self.request.steps, self.evaluate_at | self.save_at | ({self.keep_at} if self.keep_at else set())
        stop = min((step for step in due if step > self.run.state.step), default=steps)
        self.run.advance(stop, steps, partial(self.on_step, stop))
        if stop in self.evaluate_at:
            self.evaluate()
        if stop == self.keep_at:
            self.check_weights()
            keep(self.run, self.out / "trunk")
        if stop in self.save_at or stop == steps:
            self.save()

    def on_step(self, stop: int, step: int, values: dict[str, torch.Tensor | float]) -> None:
        """Between two steps, where the state is whole."""
        if "loss_nats" in values:
            self.watch.see(values["loss_nats"])
        self.report(step, values)
        self.clock.tick()
        if left_out := self.run.left_out.get(step - 1):
            self.journal.write(step, step * self.request.step_tokens, {"faults/rows_left_out": len(left_out)})
        if step != stop and self.asked():
            self.end()

    def evaluate(self) -> None:
        name, step = self.request.name, self.run.state.step
        if step == 0:
            new = evaluate_parent(self.run, name=name, group=name)
        else:
            new = self.run.evaluate(run=name, group=name, finished=step == self.request.steps)
        self.observations.extend(new)
        if self.ranks.first:
            records.write_observations(self.out / "observations.csv", self.observations)
        self.journal.write(step, new[0].tokens, {**flat(new), **self.run.reading.metrics(step)})
        self.clock.tick()

    def check_weights(self) -> None:
        """What is saved is good: it is what a run goes back to."""
        if not self.weights_are_numbers():
            raise Diverged(f"weights are no numbers after step {self.run.state.step - 1}")

    def weights_are_numbers(self) -> bool:
        return self.ranks.all(weights_are_numbers(self.run.model))

    def save(self) -> None:
        self.check_weights()
        state, tokens = self.run.state, self.run.state.step * self.request.step_tokens
        more = {"left_out": self.run.left_out, "losses": list(self.watch.losses)}
        if self.ranks.count > 1 and state.step < self.request.steps:
            progress = {"step": state.step, "tokens": tokens, "identity": self.identity, **more}
            shards.save(state, self.checkpoints, progress, self.ranks, self.writer)
        else:
            checkpoint.save(
                state,
                self.checkpoints,
                tokenizer=Path(self.request.model),
                identity=self.identity,
                tokens=tokens,
                more=more,
                writer=self.writer,
            )
        self.saved = state.step
        self.clock.keep()

    def end(self) -> None:
        if self.saved != self.run.state.step and self.run.state.step:
            self.save()
        self.wait()
        raise Ended(
            f"{self.request.name} was asked to end and did, at step {self.run.state.step} of {self.request.steps}; "
            f"its state is saved: run again to go on"
        )

    def wait(self) -> None:
        """Until what is being saved is saved. Raises what went wrong with it."""
        if self.writer:
            self.writer.wait()
            self.ranks.wait()  # the first makes a checkpoint of all parts when the others have long written theirs

    def examine(self, error: Diverged | Spiked) -> Fault:
        """What broke a step, and the rows that are not to be read again."""
        state = self.run.state
        state.optimizer.zero_grad(set_to_none=True)
        first = last = state.step - 1  # the step just taken
        rows: tuple[int, ...] | None = None
        kind: Kind
        if isinstance(error, Spiked):
            assert self.rules.spike
            kind, first = "spike", max(0, last - self.rules.spike.steps + 1)
        elif not self.weights_are_numbers():
            kind = "weights"
            if state.step == 0:
                raise ConfigError(f"{self.request.model}: some of its weights are no numbers; take another base")
        else:
            kind, first, last = "gradient", state.step, state.step
            batch = self.run.step_batch_at(last)
            rows = tuple(broken_rows(state, batch, self.run.request.recipe, self.ranks))
        return self.fault(kind, str(error), range(first, last + 1), rows)

    def fault(self, kind: Kind, why: str, steps: range, rows: tuple[int, ...] | None) -> Fault:
        """A fault by which `rows`, or all, of some steps are left out, named as their sources number them."""
        left_out, sources = dict[int, tuple[int, ...]](), dict[str, list[int]]()
        for step in steps:
            batch = self.run.whole_batch_at(step)
            had = [row for row in range(len(batch.tokens)) if row not in self.run.left_out.get(step, ())]
            left_out[step] = tuple(had if rows is None else [had[row] for row in rows])
            if batch.place is not None:
                for row in left_out[step]:
                    name = self.run.mixture.order.names[int(batch.place.source[row])]
                    sources.setdefault(name, []).append(int(batch.place.row[row]) // batch.parts)
        found = {name: tuple(dict.fromkeys(numbers)) for name, numbers in sources.items()}
        return Fault(kind=kind, step=steps[-1], why=why, left_out=left_out, sources=found)

    def lower(self, error: BaseException) -> Fault:
        """Out of memory: the same rows in smaller parts. Raises ConfigError where there is none smaller."""
        recipe, step = self.run.request.recipe, self.run.state.step
        if self.ranks.count > 1:  # the others wait for it in the middle of a step, and cannot be told
            raise ConfigError(
                f"train.micro_rows: rank {self.ranks.number} is out of memory at step {step}, with "
                f"{recipe.micro_rows or 'all'} rows of it per forward pass; lower it and start again: checkpoints are "
                f"whole"
            ) from error
        micro_rows = halved(recipe.rows_per_step, recipe.micro_rows or recipe.rows_per_step)
        return Fault(kind="memory", step=step, why=str(error).split("\n")[0][:300], micro_rows=micro_rows)

    def go_back(self, fault: Fault) -> None:
        """Write it down, then open everything anew. Raises GaveUp where it happened too often."""
        self.wait()
        if fault.kind != "memory" and self.book.rollbacks >= self.rules.rollbacks:
            raise GaveUp(
                f"{self.request.name}: step {fault.step}: {fault.why}; gone back {self.book.rollbacks} times, and "
                f"train.faults.rollbacks allows no more: lower train.learning_rate, or look at the rows that broke it "
                f"({named(fault)}; {self.book.path}); checkpoints in {self.checkpoints} are whole"
            )
        self.book.add(fault)
        del self.run  # a second model beside it may not fit
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.open()


def named(fault: Fault, most: int = 3) -> str:
    """The first rows of each source that a fault is about."""
    found = []
    for source, rows in fault.sources.items():
        more = f" and {len(rows) - most} more" if len(rows) > most else ""
        found.append(f"{source} row {', '.join(str(row) for row in rows[:most])}{more}")
    return "; ".join(found)


def knows(progress: dict[str, Any], left_out: LeftOut) -> bool:
    """Whether a checkpoint was made without every row that is left out before its step."""
    known = {int(step): set(rows) for step, rows in progress.get("left_out", {}).items()}
    return all(set(rows) <= known.get(step, set()) for step, rows in left_out.items() if step < progress["step"])
