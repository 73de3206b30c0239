"""The matrix of a model line and what stands beside it as plain text: at most 80 columns, ASCII."""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ratoon import records
from ratoon.evaluation.drift import Drift
from ratoon.evaluation.forgetting import Matrix
from ratoon.evaluation.history import Row, Slice
from ratoon.evaluation.judges import Judges
from ratoon.evaluation.noise import Sensitivity
from ratoon.evaluation.periods import Periods
from ratoon.evaluation.probe import Probe, Probes
from ratoon.evaluation.shift import Shift
from ratoon.evaluation.trajectory import Trajectory
from ratoon.records import Interval
from ratoon.report.terminal import WIDTH, _entry

KINDS: Mapping[str, type[records.Record]] = {
    "shift": Shift,
    "probes": Probes,
    "noise": Sensitivity,
    "trajectory": Trajectory,
    "judges": Judges,
    "periods": Periods,
}
LABEL, CELL = 12, 8
SAID = {
    "step": "this refresh",
    "total": "since the base",
    "bwt": "older text, since it was new",
    "forgetting": "lost of the best",
    "fwt": "newer text, before it was read",
    "plasticity": "its own new text",
}


def beside(folder: Path) -> dict[str, Any]:
    """What else the refresh in `folder` left: name -> record."""
    return {
        name: records.read(folder / f"{name}.json", kind)
        for name, kind in KINDS.items()
        if (folder / f"{name}.json").exists()
    }


def text(matrix: Matrix, found: Mapping[str, Any]) -> str:
    """The table of each source, the figures, and what the closer looks say."""
    lines = [f"{matrix.line}: bits per byte on the held-out text of each refresh"[:WIDTH], "* not read yet", ""]
    for source in sorted({each.source for each in matrix.slices}):
        lines += [*table(matrix, source), ""]
    lines += [*figures(matrix), ""]
    for name, record in found.items():
        lines += _entry(name, *SAYERS[name](record))
    lines += _entry("notes" if matrix.notes else "", *matrix.notes)
    return "\n".join(lines).rstrip()


def table(matrix: Matrix, source: str) -> list[str]:
    """Rows are models, columns the refreshes that brought text; the newest ones where not all fit."""
    columns = [k for k, each in enumerate(matrix.slices) if each.source == source]
    room = (WIDTH - LABEL) // CELL
    shown = columns[-room:]
    first = matrix.slices[shown[0]]
    what = "watched" if first.watched else first.role
    more = f", {len(columns) - len(shown)} earlier refreshes not shown" if len(shown) < len(columns) else ""
    heads = [head(matrix.slices[k]) for k in shown]
    lines = [f"{source} ({what}{more})"[:WIDTH], " " * LABEL + "".join(f"{each:>{CELL}}" for each in heads)]
    labels = [*(row.label for row in matrix.models[:-1]), name(matrix.models[-1])]
    for number, label in enumerate(labels):
        cells = [cell(matrix, number, k) for k in shown]
        lines.append(f"{label[: LABEL - 1]:<{LABEL}}" + "".join(f"{each:>{CELL}}" for each in cells))
    return lines


def head(each: Slice) -> str:
    return f"r{each.number}"


def name(row: Row) -> str:
    """Models before the newest were continued, so they were champions, whoever promoted them."""
    return f"{row.label} (not yet)" if row.promoted is False else row.label


def cell(matrix: Matrix, row: int, column: int) -> str:
    value = matrix.scores[row][column]
    if value is None:
        return "-"
    unread = row < matrix.born[column] and not matrix.slices[column].watched
    return f"{value:.3f}{'*' if unread else ' '}"


def figures(matrix: Matrix) -> list[str]:
    """More is better, but for what was lost; in bits per byte."""
    groups = [group for group in ("general", "domain", "watched") if group in matrix.figures]
    lines = [f"{'gain in bits per byte':<32}" + "".join(f"{group:>16}" for group in groups)]
    for key, said in SAID.items():
        found = [matrix.figures[group].get(key) for group in groups]
        if any(found):
            lines.append(f"{said:<32}" + "".join(f"{signed(value):>16}" for value in found))
            lines.append(" " * 32 + "".join(f"{ends(value):>16}" for value in found))
    return lines


def signed(value: Interval | None) -> str:
    return "-" if value is None else number(value.value)


def ends(value: Interval | None) -> str:
    return "" if value is None else f"[{number(value.low)},{number(value.high)}]"


def number(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no -0.000


# ---------------------------------------------------------------- closer looks


def shift_said(found: Shift) -> Iterator[str]:
    if found.total.distance is None:
        return
    far = max((each for each in found.kinds if each.distance), key=lambda each: each.distance or 0, default=None)
    also = f"; farthest: {far.name} {far.distance:.1%}" if far and far.distance else ""
    yield f"weights moved {found.total.distance:.1%} of their length from the parent's{also}"
    if found.movers and found.movers[0].distance:
        yield f"top tensor {found.movers[0].name}: {found.movers[0].distance:.1%}"
    for each in found.new_tokens:
        yield f"{each.rows} new rows in {each.tensor}, {each.norm:.2f} times as long as the parent's"


def probes_said(found: Probes) -> Iterator[str]:
    old, new = found.parent, found.candidate
    yield f"in context: {induction(old)} -> {induction(new)} nats per token saved on a second copy"
    if old.few_shot and new.few_shot:
        a, b = old.few_shot, new.few_shot
        yield (
            f"{a.shots} shots: accuracy {a.zero:.1%} -> {a.few:.1%} of the parent, {b.zero:.1%} -> {b.few:.1%} of the "
            f"candidate, {a.items} items"
        )


def induction(probe: Probe) -> str:
    value = probe.induction
    return "-" if value is None else f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def noise_said(found: Sensitivity) -> Iterator[str]:
    yield f"{'ALARM: ' if found.alarm else ''}{found.said}"


def trajectory_said(found: Trajectory) -> Iterator[str]:
    yield f"{len(found.steps) - 1} checkpoints scored, steps {', '.join(f'{step:,}' for step in found.steps)}"
    yield from (f"ALARM: {each.said}" for each in found.alarms)
    for each in found.qualities:
        snr = "-" if each.snr is None else f"{each.snr:.1f}"
        yield f"{each.task}: {each.use}, signal to noise {snr} ({each.why})"


def judges_said(found: Judges) -> Iterator[str]:
    yield f"on {len(found.runs)} runs from one parent these tasks may gate: {', '.join(found.gating) or 'none'}"


def periods_said(found: Periods) -> Iterator[str]:
    for each in found.scores:
        scores = ", ".join(f"{model} {value:.3f}" for model, value in each.scores.items())
        yield f"{each.source}, {each.period}: {scores} ({each.documents} documents)"
    for slope in found.slopes:
        per = slope.per_year
        ends = f"[{per.low:+.3f}, {per.high:+.3f}]"
        yield f"{slope.source}, {slope.model}: {per.value:+.3f} {ends} a year after the cut-off"


SAYERS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "shift": shift_said,
    "probes": probes_said,
    "noise": noise_said,
    "trajectory": trajectory_said,
    "judges": judges_said,
    "periods": periods_said,
}


def drift_text(found: Drift) -> str:
    """The answer first."""
    said = "DRIFTED: a refresh is due" if found.drifted else "no drift"
    new = "came since" if found.by == "arrival" else "is dated after"
    lines = [*textwrap.wrap(f"{said}  {found.line} {found.champion}, new is what {new} {found.since}", WIDTH), ""]
    for each in found.sources:
        # Of a name that is cut, portions would look alike.
        whole = "" if len(each.source) < LABEL else f"{each.source}, "
        lines += _entry(each.source[: LABEL - 1], f"{whole}{each.role}: {each.said}")
    return "\n".join(lines)
