"""A learning-rate schedule before anything is trained: in the terminal, 80 columns of ASCII, and as an SVG."""

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from ratoon import records
from ratoon.config import Schedule
from ratoon.report import drawing, wording
from ratoon.report.drawing import XY, Panel
from ratoon.report.terminal import WIDTH
from ratoon.training.schedules import Phase, learning_rate, phases

MARGIN = 11  # columns left of the plot
ROWS = 13
LEVELS = ".-'"  # of one character, from below
SAMPLES = 600  # of a drawing, about


class Run(NamedTuple):
    """A schedule with what it needs to be drawn."""

    schedule: Schedule
    peak: float
    steps: int
    step_tokens: int

    def phases(self) -> tuple[Phase, ...]:
        return phases(self.schedule, self.peak, self.steps, self.step_tokens)

    def points(self, wanted: int) -> list[XY]:
        """(updates done, rate): about `wanted`, evenly, and both ends of every phase."""
        at = learning_rate(self.schedule, self.peak, self.steps, self.step_tokens)
        every = max(1, self.steps // wanted)
        marks = {self.steps, *range(1, self.steps + 1, every)}
        marks |= {mark for phase in self.phases() for mark in (phase.start + 1, phase.end)}
        return [(mark, at(mark - 1)) for mark in sorted(marks)]

    def facts(self) -> dict[str, Any]:
        """What --json says."""
        found = self.phases()
        return {
            "schedule": self.schedule.model_dump(mode="json"),
            "learning_rate": self.peak,
            "steps": self.steps,
            "step_tokens": self.step_tokens,
            "trunk": self.schedule.no_trunk is None,
            "no_trunk": self.schedule.no_trunk,
            "phases": [
                {"name": p.name, "first": p.start + 1, "last": p.end, "from": p.rate(p.start + 1), "to": p.rate(p.end)}
                for p in found
            ],
        }


def text(run: Run) -> str:
    """The curve, and its phases with the updates they span."""
    tokens = wording.compact(run.steps * run.step_tokens)
    lines = [
        f"{run.schedule.name}: {run.steps:,} updates of {run.step_tokens:,} tokens, {tokens} in all",
        "",
        *plot(run),
        "",
        f"{'phase':<{MARGIN}}{'updates':<22}{'tokens':>9}   learning rate",
    ]
    for phase in run.phases():
        updates = f"{phase.start + 1:,} to {phase.end:,}"
        read = wording.compact((phase.end - phase.start) * run.step_tokens)
        ends = dict.fromkeys(f"{phase.rate(t):.4g}" for t in (phase.start + 1, phase.end))
        lines.append(f"{phase.name:<{MARGIN}}{updates:<22}{read:>9}   {' to '.join(ends)}")
    why = run.schedule.no_trunk
    said = f"no: {why}" if why else "yes, run lengths branch off one trunk before their decay"
    return "\n".join([*lines, "", *_wrapped("sweep", said)])


def _wrapped(name: str, said: str) -> list[str]:
    lines = textwrap.wrap(said, WIDTH - MARGIN)
    return [f"{name if k == 0 else '':<{MARGIN}}{line}" for k, line in enumerate(lines)]


def plot(run: Run) -> list[str]:
    """Rate against updates; within a character in three heights, and a bar where a column rises or falls by more."""
    width = min(WIDTH - MARGIN - 1, run.steps)
    columns: list[list[int]] = [[] for _ in range(width)]
    points = run.points(8 * width)
    top = max(rate for _, rate in points)
    for done, rate in points:
        height = round(rate / top * (ROWS * len(LEVELS) - 1))
        columns[int((done - 1) * width / run.steps)].append(height)
    grid = [[" "] * width for _ in range(ROWS)]
    for column, heights in enumerate(columns):
        low, high = min(heights) // len(LEVELS), max(heights) // len(LEVELS)
        for row in range(low, high + 1):
            grid[row][column] = "|" if high - low > 1 else LEVELS[_within(heights, row)]
    labels = {ROWS - 1: f"{top:.3g}", ROWS // 2: f"{top * (ROWS // 2 + 0.5) / ROWS:.3g}"}
    drawn = [f"{labels.get(row, ''):>{MARGIN - 2}} |{''.join(grid[row]).rstrip()}" for row in reversed(range(ROWS))]
    middle, end = f"{run.steps // 2:,}", f"{run.steps:,}"
    axis = f"0{middle:>{width // 2 - 1}}{end:>{width - width // 2}}" if width > 40 else f"0 to {end}"
    return [*drawn, f"{'0':>{MARGIN - 2}} +{'-' * width}", f"{'':{MARGIN}}{axis}"]


def _within(heights: list[int], row: int) -> int:
    """Level of a column's part of a row."""
    inside = [height % len(LEVELS) for height in heights if height // len(LEVELS) == row]
    return round(sum(inside) / len(inside)) if inside else 1


def figure(run: Run) -> Markup:
    """The curve with the ends of its phases; colours and text follow the page or, by `laws.standalone`, the viewer."""
    points = run.points(SAMPLES)
    top = max(rate for _, rate in points)
    panel = Panel((0.0, float(run.steps)), (0.0, 1.06 * top), "schedule", width=640, height=320, left=64)
    x_ticks = {x: wording.compact(x) for x in drawing.ticks(*panel.x, wanted=6)}
    y_ticks = {top * k / 4: f"{top * k / 4:.3g}" for k in range(5)}
    body = [drawing.frame(panel, x_ticks, y_ticks, ("updates", "learning rate"))]
    body.append(drawing.line([panel.at(done, rate) for done, rate in points], "law"))
    for phase in run.phases():
        said = f"{phase.name} ends at update {phase.end:,}: {phase.rate(phase.end):.4g}"
        body.append(drawing.dot(panel.at(phase.end, phase.rate(phase.end)), "proxy", said))
    title = f"{run.schedule.name}: learning rate over {run.steps:,} updates"
    described = "; ".join(
        f"{phase.name} to update {phase.end:,}, ending at {phase.rate(phase.end):.4g}" for phase in run.phases()
    )
    return drawing.svg(panel, title, described, body)


def write(run: Run, path: Path) -> None:
    """The figure as a file of its own, whole or not at all."""
    # Imported here: the terminal's drawing needs none of the laws' code.
    from ratoon.report.laws import standalone

    records.write_text(path, standalone(figure(run)))
