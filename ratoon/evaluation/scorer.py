"""Our own scorer: a suite's tasks as rows of tokens, read once each. The same numbers as lm-eval's, in less time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ratoon.evaluation import asked, samples
from ratoon.evaluation.asked import Asked, Item
from ratoon.evaluation.generate import Prompt, Writer
from ratoon.evaluation.likelihood import Reader
from ratoon.evaluation.samples import Found
from ratoon.evaluation.suite import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Ready(NamedTuple):
    """A task in tokens. Of one kind of the two."""

    task: Task
    items: list[Item]
    asked: Asked | None
    prompts: list[Prompt]

    @property
    def rows(self) -> int:
        return self.asked.branches if self.asked else len(self.prompts)


class Scorer:
    """A task is read by itself, whatever the others are: its scores are the same in another suite, to the last bit."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        row_tokens: int,
        *,
        bf16: bool = False,
        batch_tokens: int | None = None,
        report: Callable[[int, int], None] | None = None,
    ) -> None:
        self.tokenizer, self.row_tokens = tokenizer, row_tokens
        self.reader = Reader(model, row_tokens, bf16=bf16, batch_tokens=batch_tokens)
        self.writer = Writer(model, tokenizer, row_tokens, bf16=bf16)
        self.report = report
        self.done = self.total = 0

    def score(self, tasks: Sequence[Task], suite: Path) -> Iterator[tuple[Task, Found, int]]:
        """(task, per-item scores, requests that lost the beginning of their context)."""
        ready = [self.prepare(task, asked.items_of(suite / f"{task.name}.jsonl")) for task in tasks]
        self.total = sum(each.rows for each in ready)
        for each in ready:
            yield self.answer(each)

    def prepare(self, task: Task, items: list[Item]) -> Ready:
        if task.kind == "generation":
            return Ready(task, items, None, self.prompts(items))
        form = asked.rolling if task.kind == "rolling" else asked.choice
        return Ready(task, items, form(items, self.tokenizer, self.row_tokens), [])

    def prompts(self, items: Sequence[Item]) -> list[Prompt]:
        encoded = asked.encode(self.tokenizer, [item["prompt"] for item in items])
        prefix = asked.prefix_of(self.tokenizer)
        return [
            Prompt(tokens or [prefix], int(item["max_tokens"]), tuple(item["until"] or ()))
            for item, tokens in zip(items, encoded, strict=True)
        ]

    def answer(self, ready: Ready) -> tuple[Task, Found, int]:
        if ready.asked is None:
            lost = sum(len(self.writer.fitted(it).tokens) < len(it.tokens) for it in ready.prompts)
            return ready.task, samples.generation(ready.items, self.writer.write(ready.prompts, report=self.tell)), lost
        nats = self.reader.nats(ready.asked.rows, ready.asked.requests, self.tell)
        form = samples.rolling if ready.task.kind == "rolling" else samples.choice
        return ready.task, form(ready.items, nats.tolist()), ready.asked.truncated

    def tell(self, rows: int) -> None:
        self.done += rows
        if self.report:
            self.report(self.done, self.total)
