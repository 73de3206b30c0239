"""Which tasks may judge, as text: at most 80 columns, ASCII."""

import textwrap
from collections.abc import Iterator

from ratoon.evaluation.judges import Judges
from ratoon.evaluation.quality import TaskQuality
from ratoon.report.terminal import WIDTH

NAME = 30
HEAD = f"{'':<{NAME}}{'use':<6}{'s/n':>7}{'noise':>8}{'spearman':>10}{'least':>9}"


def text(found: Judges) -> str:
    lines = [f"{found.refresh}: which tasks may judge?"[:WIDTH], "", HEAD]
    lines += [row(each) for each in found.qualities]
    lines.append("")
    for each in found.qualities:
        if each.use == "show":
            lines += textwrap.wrap(f"{each.task} only shows: {each.why}.", WIDTH, subsequent_indent="  ")
    lines += said(found)
    return "\n".join(lines)


def row(each: TaskQuality) -> str:
    least = "-" if each.mde is None else f"{100 * each.mde:.1f}p" if each.metric == "accuracy" else f"{each.mde:.4f}"
    noise = "-" if each.noise is None else f"{each.noise:.2%}"
    numbers = ("-" if x is None else f"{x:.{digits}f}" for x, digits in ((each.snr, 1), (each.spearman, 2)))
    ratio, way = numbers
    return f"{each.task[: NAME - 1]:<{NAME}}{each.use:<6}{ratio:>7}{noise:>8}{way:>10}{least:>9}"


def said(found: Judges) -> Iterator[str]:
    gating = ", ".join(found.gating) or "none"
    told = f"Of {len(found.qualities)} tasks may gate: {gating}. Measured on {len(found.runs)} runs from one parent: "
    told += f"{', '.join(found.runs)}."
    yield from textwrap.wrap(told, WIDTH)
