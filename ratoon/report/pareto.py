"""What each refresh of a line gained against what it forgot, both against the parent it was continued from."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from markupsafe import Markup

from ratoon.config import Role
from ratoon.evaluation.arms import Arms
from ratoon.records import Comparison, Decision, Interval, Refresh
from ratoon.report import drawing, facts, wording
from ratoon.report.drawing import Panel
from ratoon.report.wording import known


class Place(NamedTuple):
    """gain     fall of domain bits per byte, relative: more is better
    lost     rise of general bits per byte, relative: less is better
    """

    name: str
    gain: Interval
    lost: Interval
    decision: Decision | None  # None: an arm, which nobody judges
    here: bool = False


def place(refresh: Refresh, *, here: bool = False) -> Place | None:
    found = {role: change(facts.headline(refresh, role)) for role in facts.ROLES}
    domain, general = found["domain"], found["general"]
    if domain is None or general is None:
        return None
    name = f"v{refresh.version}" if refresh.version else "not registered"
    return Place(name, turned(domain), general, refresh.verdict.decision, here)


def change(items: Sequence[Comparison]) -> Interval | None:
    """Of one source as it was measured; of several their plain mean, whose interval is not known."""
    found = [item.relative for item in items if item.relative and known(item.relative.value)]
    if not found or len(found) < len(items):
        return None
    if len(found) == 1:
        return found[0]
    mean = fmean(it.value for it in found)
    return Interval(value=mean, low=mean, high=mean, confidence=found[0].confidence)


def turned(item: Interval) -> Interval:
    return Interval(value=-item.value, low=-item.high, high=-item.low, confidence=item.confidence)


def arms(found: Arms) -> list[Place]:
    """Where cheaper ways ended, against the same parent; without intervals: those are of the candidate against them."""
    start = {(c.benchmark, c.source): c.parent.value for c in found.against_parent if c.metric == "bits_per_byte"}
    made = []
    for arm in found.arms:
        moved: dict[Role, list[float]] = {"general": [], "domain": []}
        for item in arm.comparisons:
            parent = start.get((item.benchmark, item.source))
            if item.metric == "bits_per_byte" and parent:
                moved[item.role].append(item.parent.value / parent - 1)
        if all(moved.values()):
            gain, lost = -fmean(moved["domain"]), fmean(moved["general"])
            points = (Interval(value=x, low=x, high=x, confidence=0.95) for x in (gain, lost))
            made.append(Place(arm.name, next(points), next(points), None))
    return made


def front(places: Sequence[Place]) -> list[Place]:
    """Those that no other equals or betters in both, by what they lost."""
    kept: list[Place] = []
    for it in sorted(places, key=lambda p: (p.lost.value, -p.gain.value)):
        if not kept or it.gain.value > kept[-1].gain.value:
            kept.append(it)
    return kept


def picture(places: Sequence[Place], max_loss: float | None, min_gain: float | None) -> Markup:
    """Up is learned, right is forgotten; the gate's limits are dashed."""
    across = [x for p in places for x in (p.lost.low, p.lost.high)] + [0.0] + ([max_loss] if max_loss else [])
    up = [x for p in places for x in (p.gain.low, p.gain.high)] + [0.0] + ([min_gain] if min_gain else [])
    panel = Panel(drawing.padded(across, 0.12), drawing.padded(up, 0.12), "pareto", 440, 320, 52, 16, 34, 46)
    labels = ("rise of bits per byte of general text", "fall of bits per byte of domain text")
    body = [drawing.frame(panel, marks(panel.x, 5), marks(panel.y, 6), labels), *axes(panel)]
    body += gate(panel, max_loss, min_gain)
    judged = [p for p in places if p.decision]
    best = front(judged)
    if len(best) > 1:
        body.append(drawing.line([panel.at(p.lost.value, p.gain.value) for p in best], "parent"))
    taken: list[tuple[float, float]] = []
    for it in places:
        body.append(mark(panel, it, taken))
    said = " ".join(words(p) for p in places)
    return drawing.svg(panel, "Gain on domain text against forgetting of general text", said, body)


def marks(span: tuple[float, float], wanted: int) -> dict[float, str]:
    values = drawing.ticks(*span, wanted=wanted)
    step = values[1] - values[0] if len(values) > 1 else 0.01
    digits = 0 if step >= 0.01 else 1 if step >= 0.001 else 2
    return {x: wording.change(x, digits) for x in values}


def axes(panel: Panel) -> list[Markup]:
    x, y = panel.at(0, 0)
    return [
        drawing.line([(x, panel.top), (x, panel.floor)], "zero"),
        drawing.line([(panel.left, y), (panel.edge, y)], "zero"),
    ]


def gate(panel: Panel, max_loss: float | None, min_gain: float | None) -> list[Markup]:
    body = []
    if max_loss:
        x, _ = panel.at(max_loss, 0)
        body += [drawing.line([(x, panel.top), (x, panel.floor)], "ceiling")]
        body += [drawing.text((x - 5, panel.floor - 8), f"limit {wording.change(max_loss)}", "alert", "end")]
    if min_gain:
        _, y = panel.at(0, min_gain)
        body += [drawing.line([(panel.left, y), (panel.edge, y)], "ceiling")]
        body += [drawing.text((panel.edge, y - 6), f"asked {wording.change(min_gain)}", "alert", "end")]
    return body


def mark(panel: Panel, it: Place, taken: list[tuple[float, float]]) -> Markup:
    """Full: promoted; hollow: refused; half: asks; small and grey: an arm."""
    x, y = panel.at(it.lost.value, it.gain.value)
    body = []
    if it.lost.high > it.lost.low:
        body.append(
            drawing.line([panel.at(it.lost.low, it.gain.value), panel.at(it.lost.high, it.gain.value)], "reach")
        )
    if it.gain.high > it.gain.low:
        body.append(
            drawing.line([panel.at(it.lost.value, it.gain.low), panel.at(it.lost.value, it.gain.high)], "reach")
        )
    css = {"promote": "point", "refuse": "proxy small", "ask": "proxy asking", None: "arm"}[it.decision]
    body.append(drawing.diamond((x, y), "measured", words(it)) if it.here else drawing.dot((x, y), css, words(it)))
    right = x < panel.edge - 90
    place = (x + 11 if right else x - 11, y - 9)
    while any(abs(place[0] - a) < 110 and abs(place[1] - b) < 14 for a, b in taken):
        place = (place[0], place[1] + 15)
    taken.append(place)
    name = f"{it.name}, this one" if it.here else it.name
    body.append(drawing.text(place, name, "strong" if it.here else "", "start" if right else "end"))
    return Markup('<g class="domain">{}</g>').format(Markup().join(body))


def words(it: Place) -> str:
    said = {"promote": "promoted", "refuse": "refused", "ask": "asks", None: "an arm"}[it.decision]
    return (
        f"{it.name}, {said}: domain text {wording.change(it.gain.value)} gained, "
        f"general text {wording.change(it.lost.value)}."
    )
