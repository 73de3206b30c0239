"""Paired differences with their intervals, the gate's limits and what could have been seen at all."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ratoon.config import Role
from ratoon.evaluation.sentences import unseen
from ratoon.records import Comparison, Demand, Interval
from ratoon.report import drawing, wording
from ratoon.report.drawing import Panel
from ratoon.report.wording import known

ROW = 46  # units of height
CHARS = 38  # of a name that fits beside its number
LABELS = {"bits_per_byte": "change of bits per byte; left of 0 is better", "accuracy": "points; right of 0 is better"}


def limits(
    items: Sequence[Comparison], demands: Sequence[Demand], by_role: Mapping[Role, float]
) -> dict[tuple[str | None, str | None], float]:
    """Benchmark and source -> the change that the gate's test is about; by role in records older than demands."""
    if not demands:
        return {(item.benchmark, item.source): by_role[item.role] for item in items if item.role in by_role}
    return {(d.benchmark, d.source): d.limit for d in demands if d.limit is not None}


def shown(item: Comparison) -> Interval:
    return item.relative or item.difference


def plot(items: Sequence[Comparison], at: dict[tuple[str | None, str | None], float], name: str) -> Markup:
    """One row for each comparison of one metric, on one scale."""
    found = [x for item in items for x in (shown(item).low, shown(item).high) if known(x)]
    reach = [sign * min(item.detectable, 1.0) for item in items if known(item.detectable) for sign in (-1, 1)]
    asked = [x for item in items if (x := at.get((item.benchmark, item.source))) is not None]
    height = 40 + ROW * len(items) + 44
    panel = Panel(drawing.padded([0.0, *found, *reach, *asked], 0.05), (0, 1), name, 440, height, 14, 14, 8, 44)
    unit = " pp" if items[0].metric == "accuracy" else "%"
    marks = drawing.ticks(*panel.x, wanted=5)
    across = {x: wording.change(x, 0 if marks[1] - marks[0] >= 0.01 else 1).replace("%", unit) for x in marks}
    body = [grid(panel, across, LABELS[items[0].metric])]
    for number, item in enumerate(items):
        body.append(row(panel, item, at.get((item.benchmark, item.source)), 34.0 + ROW * number))
    title = "Paired differences in " + ("accuracy" if unit == " pp" else "bits per byte")
    return drawing.svg(
        panel, title, " ".join(said(item, at.get((item.benchmark, item.source))) for item in items), body
    )


def grid(panel: Panel, marks: dict[float, str], label: str) -> Markup:
    parts = []
    for value, words in marks.items():
        x, _ = panel.at(value, 0)
        # A word at the edge would leave the drawing.
        anchor = "start" if x < panel.left + 14 else "end" if x > panel.edge - 14 else "middle"
        parts += [drawing.line([(x, panel.floor), (x, panel.floor + 4)], "axis")]
        parts += [drawing.text((x, panel.floor + 17), words, "tick", anchor)]
    parts += [drawing.line([(panel.left, panel.floor), (panel.edge, panel.floor)], "axis")]
    parts += [drawing.text(((panel.left + panel.edge) / 2, panel.height - 6), label, "label", "middle")]
    return Markup().join(parts)


def row(panel: Panel, item: Comparison, limit: float | None, y: float) -> Markup:
    """Its name above; below, what cannot be told from nothing, the interval, and the gate's limit."""
    change, body = shown(item), []
    zero = panel.at(0, 0)[0]  # a row at a time: it must not cross the words
    body.append(drawing.line([(zero, y - 9), (zero, y + 9)], "zero"))
    name = f"{item.source}, {item.benchmark}"
    name = name if len(name) <= CHARS else f"{name[: CHARS - 1]}…"
    body += [drawing.text((panel.left, y - 12), name, "strong")]
    body += [drawing.text((panel.edge, y - 12), number(item, change.value), "", "end")]
    if known(item.detectable):
        least = min(item.detectable, 1.0)
        ends = (panel.at(-least, 0)[0], panel.at(least, 0)[0])
        body.append(drawing.box((ends[0], y - 7), (ends[1], y + 7), "unseen"))
    if known(change.low) and known(change.high):
        body.append(drawing.line([(panel.at(change.low, 0)[0], y), (panel.at(change.high, 0)[0], y)], "range"))
    if known(change.value):
        body.append(drawing.dot((panel.at(change.value, 0)[0], y), "point", number(item, change.value)))
    if limit is not None:
        x = panel.at(limit, 0)[0]
        body.append(drawing.line([(x, y - 9), (x, y + 9)], "ceiling"))
    return Markup('<g class="{}">{}</g>').format(item.role, Markup().join(body))


def number(item: Comparison, x: float | None) -> str:
    digits = wording.digits_for(shown(item))
    return wording.points(x, digits) if item.metric == "accuracy" else wording.change(x, digits)


def said(item: Comparison, limit: float | None) -> str:
    change = shown(item)
    words = f"{item.benchmark} on {item.source}: {number(item, change.value)}, {number(item, change.low)} to "
    words += number(item, change.high)
    words += f", the gate's limit {number(item, limit)}" if limit is not None else ""
    least = f", least change that would be seen {number(item, item.detectable)}" if known(item.detectable) else ""
    least = ", no change could be seen" if unseen(item) else least
    return f"{words}{least}, {item.outcome}."
