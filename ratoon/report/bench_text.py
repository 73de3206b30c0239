"""Benchmarks as plain text of at most 80 columns."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ratoon.config import Benchmark, Items, LmEval
from ratoon.evaluation.building.build import Made, Report
from ratoon.report.corpus_text import WIDTH, table

TAIL = 400  # characters of a context that are shown: what is nearest to the answer


def listed(found: Sequence[Benchmark], counts: Mapping[str, int | None]) -> str:
    rows = [("benchmark", "version", "asked as", "items")]
    for item in found:
        form = item.form
        asked = item.asks or ("by lm-eval's task" if isinstance(form, LmEval) else "not asked")
        here = counts[item.name]
        made = "of every source" if item.items is None else f"{here:,}" if here is not None else "not there"
        rows.append((item.name, str(item.version), asked, made))
    return "\n".join(table(rows, 0))


# ---------------------------------------------------------------- items


def items(benchmark: Benchmark, total: int, shown: Sequence[Mapping[str, Any]]) -> str:
    form = benchmark.form
    prompts = f", prompts {', '.join(p.name for p in form.prompts)}" if isinstance(form, Items) and form.picks else ""
    lines = [f"{benchmark.name} version {benchmark.version}: {total:,} items{prompts}"]
    for item in shown:
        kind = f"{item['kind']} " if item["kind"] else ""
        lines += ["", f"--- {kind}{item['id']}"[:WIDTH], *wrapped(item["question"])]
        for place, choice in enumerate(item["choices"]):
            mark = "*" if place == item["gold"] else " "
            lines.append(_cut(f"{mark} {chr(ord('A') + place % 26)}: {one_line(choice)}"))
        if not item["choices"] and item["answers"]:
            lines += [_cut(f"* {one_line(answer)}") for answer in item["answers"]]
    return "\n".join(lines)


def wrapped(text: str) -> list[str]:
    """The end of a text, with its own lines, folded at the page's edge."""
    tail = text if len(text) <= TAIL else f"...{text[-TAIL:]}"
    return [
        part
        for line in tail.split("\n")
        for part in textwrap.wrap(line, WIDTH - 2, drop_whitespace=False, replace_whitespace=False) or [""]
    ]


def one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t").strip(" ")


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


# ---------------------------------------------------------------- what was built


def built(benchmark: Benchmark, report: Report, former: Benchmark | None) -> str:
    changed = "new" if former is None else "unchanged" if former.version == benchmark.version else "other items"
    total = sum(made.items for made in kept(report).values())
    lines = [
        f"{benchmark.name} version {benchmark.version} ({changed}): {total:,} items, digest {report.digest[:12]}",
        f"  from {report.held_out_documents:,} held-out documents of {report.recipe.source}; clear of "
        f"{report.training_documents:,} training documents",
        "",
    ]
    rows: list[tuple[str, ...]] = [("kind", "items", "documents", "best blind", "p", "context", "open book")]
    rows += [figures(kind, made) for kind, made in kept(report).items()]
    lines += table(rows)
    lines.append(f"  blind: sees the choices alone; guessing gives {1 / report.recipe.choices:.0%}")
    for kind, made in report.kinds.items():
        said = "; ".join(f"{count:,} {reason}" for reason, count in made.dropped.items())
        lines += ["", *folded(f"{kind}: of {made.candidates:,} candidates went: {said or 'none'}")]
    for kind, reason in report.left_out.items():
        lines += folded(f"{kind}: left out: {reason}")
    return "\n".join(lines)


def kept(report: Report) -> dict[str, Made]:
    return {kind: made for kind, made in report.kinds.items() if kind not in report.left_out}


def figures(kind: str, made: Made) -> tuple[str, ...]:
    best = max(made.blind, key=lambda one: one.accuracy)
    least = min(one.p for one in made.blind)
    context = f"{made.context.accuracy:.0%}" if made.context else "-"
    book = f"{made.open_book:.0%}" if made.open_book is not None else "-"
    return kind, f"{made.items:,}", f"{made.documents:,}", f"{best.accuracy:.0%}", f"{least:.2f}", context, book


def folded(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
