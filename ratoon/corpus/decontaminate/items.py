"""What is looked for: the items of declared benchmarks."""

from pathlib import Path
from typing import NamedTuple

from ratoon.config import Benchmark
from ratoon.corpus.decontaminate.questions import questions


class Item(NamedTuple):
    """`answer` is text: of a choice its words, not its number."""

    id: str
    question: str
    answer: str = ""


class Target(NamedTuple):
    """Items that are looked for together."""

    name: str
    items: tuple[Item, ...]
    coverage: float
    least: int  # items of fewer words are not looked for
    # or held_out: documents that only other documents must not hold; built: items made of such documents
    kind: str = "benchmark"


def read(benchmark: Benchmark, root: Path) -> tuple[Item, ...]:
    """The items of a benchmark that has them, in the order of its file; one that has several answers, once for each.

    Raises ConfigError with the line of the first record that is not what the declaration says.
    """
    return tuple(
        Item(asked.id if place == 0 else f"{asked.id}/{place + 1}", asked.question, answer)
        for asked in questions(benchmark, root)
        for place, answer in enumerate(asked.answers or ("",))
    )
