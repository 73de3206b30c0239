"""Whether a model can be asked a suite at all: looked at before hours of training, and told with the item's line.

What is too long or empty is so in tokens, so the tokenizer is asked; the weights are not.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon.config import Benchmark, ConfigError, LmEval, unknown
from ratoon.corpus.decontaminate.questions import place_of
from ratoon.evaluation import asked, harness
from ratoon.evaluation.asked import Item, Unfit
from ratoon.evaluation.flips import Pinned
from ratoon.evaluation.suite import DEVELOPMENT, PROMPTS, Task, load
from ratoon.evaluation.taskfile import lines_of
from ratoon.lm.load import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check(suite: Path, benchmarks: Iterable[Benchmark], root: Path, model: Path, row_tokens: int) -> None:
    """Every item of the suite, in every prompt. Raises ConfigError for the first that could not be asked."""
    declared = {benchmark.name: benchmark for benchmark in benchmarks}
    tokenizer = load_tokenizer(model)
    harness.begins(tokenizer, model)
    for folder, task in tasks_of(suite):
        benchmark = declared[task.benchmark]
        items = asked.items_of(folder / f"{task.name}.jsonl")
        try:
            if task.kind == "generation":
                leaves_room(benchmark, items, row_tokens)
            elif task.kind == "choice":
                asked.choice(items, tokenizer, row_tokens)
            else:
                not_empty(items, tokenizer)
        except Unfit as error:
            at = place_of(benchmark, root, error.id) if benchmark.items else f"benchmark {benchmark.name!r}"
            raise ConfigError(f"{at}: {error}") from None


def tasks_of(suite: Path) -> Iterator[tuple[Path, Task]]:
    for folder in (suite, suite / DEVELOPMENT, suite / PROMPTS):
        if folder.exists():
            yield from ((folder, task) for task in load(folder).tasks)


def leaves_room(benchmark: Benchmark, items: list[Item], row_tokens: int) -> None:
    """A prompt loses its beginning to what is written; where that takes the whole row, nothing is left to answer."""
    most = max(int(item["max_tokens"]) for item in items)
    if most < row_tokens:
        return
    todo = (
        f"leave out {benchmark.form.task}, which asks for so many, or take a base with longer rows"
        if isinstance(benchmark.form, LmEval)
        else "lower form.max_tokens, or take a base with longer rows"
    )
    raise ConfigError(
        f"benchmark {benchmark.name!r}: max_tokens is {most}, and the model reads {row_tokens} at once, prompt and "
        f"answer together: nothing would be left of the prompt\n  {todo} (row_tokens)"
    )


def not_empty(items: list[Item], tokenizer: "PreTrainedTokenizerBase") -> None:
    for item, tokens in zip(items, asked.encode(tokenizer, [item["text"] for item in items]), strict=True):
        if not tokens:
            raise Unfit(item, "its text is empty, so there is nothing to count bits of\n  leave the item out")


def check_golden(pinned: Pinned, suite: Path) -> None:
    """Raises ConfigError where an item is pinned that is not asked: a promise that nobody could check."""
    ids: dict[str, set[str]] = {}
    for task in load(suite).tasks:
        if task.metric == "accuracy":
            ids.setdefault(task.benchmark, set()).update(it["id"] for it in lines_of(suite / f"{task.name}.jsonl"))
    for name, wanted in pinned.items():
        if name not in ids:
            what = unknown("benchmark with right and wrong answers", name, sorted(ids))
            raise ConfigError(f"params.yaml: promote.golden: {what}")
        if wanted != "all" and (absent := [one for one in wanted if one not in ids[name]]):
            raise ConfigError(
                f"params.yaml: promote.golden.{name}: {len(absent)} of {len(wanted)} are not among the items asked: "
                f"{', '.join(absent[:3])}\n  the ids are in {suite}/{name}*.jsonl; development items and those that "
                f"form.most leaves out are not asked"
            )
