"""What a run or a sweep would cost, for the terminal: at most 80 columns of ASCII."""

import textwrap
from collections.abc import Iterator

from ratoon.report import wording
from ratoon.report.terminal import WIDTH
from ratoon.training.estimate import Estimate, SweepEstimate

MARGIN = 16
NUMBER = 14
PARTS = (
    ("process", "Python and packages, other models"),
    ("weights", ""),
    ("gradients", ""),
    ("optimizer", "its state"),
    ("methods", "their state"),
    ("activations", "of {rows} rows at once"),
)
PEAKS = (
    ("training", "a step, which holds"),
    ("evaluation", ""),
    ("checkpoint", "the state is copied and written"),
)


def text(found: Estimate, refused: str | None = None) -> str:
    """refused  the letter of the budget's guard; None: nothing is passed"""
    where = f"{found.device}, threads: {found.threads}" if found.device == "CPU" else found.device
    lines = [
        f"{wording.compact(found.params_non_embedding)} parameters without embeddings, on {where}",
        f"{found.steps:,} steps of {found.step_tokens:,} tokens, {wording.compact(found.tokens)} in all",
        *([f"shared by {found.processes} processes, memory is of each"] if found.processes > 1 else []),
        "",
        *times(found),
        "",
        *entry("operations", f"{found.flops:.3g}", "of training, by formula"),
        *entry("", f"{found.evaluation_flops:.3g}", "of evaluation"),
        "",
        *memories(found),
        "",
        *entry("disk", wording.size(found.disk_bytes), kept(found)),
        *entry("money", *price(found.money)),
    ]
    if found.extrapolated:
        said = f"{found.micro_rows} rows at once were more than there was time to try: a straight line leads there"
        lines += ["", *entry("note", "", said)]
    return "\n".join([*lines, *(["", *refusal(refused)] if refused else [])])


def times(found: Estimate) -> Iterator[str]:
    spent = found.seconds
    yield from entry("time", wording.duration(spent.total), f"at {found.tokens_per_second:,.0f} tokens/s of training")
    yield from entry("  start", wording.duration(spent.start))
    yield from entry("  train", wording.duration(spent.train))
    yield from entry("  evaluate", wording.duration(spent.evaluate))
    yield from entry("  save", wording.duration(spent.save))


def memories(found: Estimate) -> Iterator[str]:
    used = found.memory
    yield from entry("memory", wording.size(used.peak), f"of {wording.size(found.device_bytes)}: the highest peak")
    for name, what in PEAKS:
        yield from entry(f"  {name}", wording.size(getattr(used, name)), what)
        for part, its in PARTS if name == "training" else ():
            yield from entry(f"    {part}", wording.size(getattr(used, part)), its.format(rows=found.micro_rows))


def kept(found: Estimate) -> str:
    free = wording.size(found.disk_free_bytes)
    return f"at most at once, a checkpoint is {wording.size(found.checkpoint_bytes)}; {free} free"


def price(money: float | None) -> tuple[str, str]:
    return (f"{money:,.4g}", "") if money is not None else ("not known", "train.budget.price says what an hour costs")


def sweep_text(most: SweepEstimate, first: SweepEstimate | None = None) -> str:
    """first  of a sweep that grows: the runs it begins with"""
    return "\n\n".join(
        "\n".join(sweep_lines(found, said))
        for found, said in ((first, "to begin with"), (most, "at most" if first else "in all"))
        if found is not None
    )


def sweep_lines(found: SweepEstimate, said: str) -> Iterator[str]:
    branched = f"{found.branched} on trunks of their own, " if found.branched else ""
    apart = found.groups - found.branched
    repeated = f"{apart} as separate runs, " if apart else ""
    stacked = f"{found.stacked} in stacks" if found.stacked else ""
    words = f"of {found.runs} run lengths: {branched}{repeated}{stacked}".rstrip(", ")
    yield from entry(said, f"{found.groups} groups", words)
    yield from entry("  tokens", wording.compact(found.tokens))
    yield from entry("  operations", f"{found.flops:.3g}")
    yield from entry("  time", wording.duration(found.seconds), f"with {found.workers} at once")
    yield from entry("  memory", wording.size(found.memory_bytes), "of all at once")
    yield from entry("  money", *price(found.money))


def refusal(letter: str) -> list[str]:
    return [line for part in letter.split("\n") for line in textwrap.wrap(part, WIDTH, subsequent_indent="    ")]


def entry(name: str, number: str, said: str = "") -> Iterator[str]:
    """A name, a number and what it is, wrapped."""
    head = f"{name:<{MARGIN}}{number:>{NUMBER}}"
    lines = textwrap.wrap(said, WIDTH - MARGIN - NUMBER - 3) or [""]
    for count, line in enumerate(lines):
        yield (f"{head if count == 0 else '':<{MARGIN + NUMBER}}   {line}").rstrip()
