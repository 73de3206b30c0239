"""Figures of fitted laws: measured against predicted, residuals, and how runs that were left out were foretold."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from ratoon.laws.decision.evidence import Evidence, HeldOutPoint
from ratoon.laws.form import Array
from ratoon.report import drawing, wording
from ratoon.report.axes import NATS, SHARES, axis, labelled, legend, of_role, y_ticks
from ratoon.report.drawing import Panel

CURVE = 41  # points of one


def agreement(found: Sequence[Evidence]) -> Markup:
    """Measured against predicted, the diagonal where they are the same."""
    every = np.concatenate([np.concatenate([one.predicted, one.runs.loss]) for one in found])
    span = drawing.padded(every)
    marks = labelled(drawing.ticks(*span))
    panel = Panel(span, span, "agreement", left=52)
    body = [legend(panel, [one.on for one in found])]
    body.append(drawing.frame(panel, marks, marks, (f"predicted, {NATS}", f"measured, {NATS}")))
    body.append(drawing.line([panel.at(span[0], span[0]), panel.at(span[1], span[1])], "parent"))
    for one in found:
        dots = [
            drawing.dot(panel.at(x, y), "proxy", f"predicted {wording.loss(x)}, measured {wording.loss(y)}", 0.75)
            for x, y in zip(one.predicted, one.runs.loss, strict=True)
        ]
        body.append(of_role(one.on, dots))
    said = f"{len(every) // 2} observations between {wording.loss(every.min())} and {wording.loss(every.max())} {NATS}."
    return drawing.svg(panel, "Measured against predicted", said, body)


def residuals(found: Sequence[Evidence], inputs: Mapping[str, str]) -> list[Markup]:
    """Measured less predicted, relative, against the prediction and each input (name -> label); a colour per loss."""
    away = [np.asarray(one.runs.loss / one.predicted - 1) for one in found]
    reach = 1.15 * max(float(np.abs(x).max()) for x in away) * 100 or 1.0
    axes = [axis(np.concatenate([one.predicted for one in found]), f"predicted, {NATS}")]
    for name, label in inputs.items():
        axes.append(axis(np.concatenate([_shown(one, name) for one in found]), label, shares=name in ("share", "r")))
    drawn = []
    for number, across in enumerate(axes):
        panel = Panel(across.span, (-reach, reach), f"residuals-{number}", width=330, height=250, left=44)
        body = [drawing.frame(panel, across.ticks, y_ticks(panel, 5), (across.label, "measured less predicted, %"))]
        body.append(legend(panel, [one.on for one in found]))
        zero = panel.at(panel.x[0], 0)[1]
        body.append(drawing.line([(panel.left, zero), (panel.edge, zero)], "zero"))
        begin = 0
        for one, off in zip(found, away, strict=True):
            places = across.places[begin : begin + len(off)]
            begin += len(off)
            dots = [
                drawing.dot(panel.at(x, 100 * y), "proxy", f"{one.on}: {wording.change(y, 2)}", 0.75)
                for x, y in zip(places, off, strict=True)
            ]
            body.append(of_role(one.on, dots))
        title = f"Residuals against {across.label.split(',')[0]}"
        said = f"The largest is {wording.error(max(float(np.abs(x).max()) for x in away))} of the loss."
        drawn.append(drawing.svg(panel, title, said, body))
    return drawn


def _shown(one: Evidence, name: str) -> Array:
    """An input as the figure shows it: the domain's share for either loss."""
    values = one.runs.inputs["r" if name == "share" else name]
    return 1 - values if name == "share" and one.on == "general" else values


def held_out(points: Mapping[str, Sequence[HeldOutPoint]]) -> Markup:
    """Each run left out: measured, against what was foretold, with the interval it was foretold with."""
    every = [point for found in points.values() for point in found]
    off = [100 * (x / p.predicted - 1) for p in every for x in (p.measured, p.low, p.high)]
    across = axis([p.predicted for p in every], f"predicted without it, {NATS}")
    panel = Panel(across.span, drawing.padded([0.0, *off]), "held-out")
    body = [drawing.frame(panel, across.ticks, y_ticks(panel), (across.label, "measured less predicted, %"))]
    body.append(legend(panel, list(points)))
    zero = panel.at(panel.x[0], 0)[1]
    body.append(drawing.line([(panel.left, zero), (panel.edge, zero)], "zero"))
    places = iter(across.places)
    for on, found in points.items():
        shapes = []
        for point in found:
            x = next(places)
            bar = [panel.at(x, 100 * (y / point.predicted - 1)) for y in (point.low, point.high)]
            said = f"{point.split}: measured {wording.loss(point.measured)}, foretold {wording.loss(point.predicted)}"
            shapes.append(drawing.line(bar, "reach"))
            at = panel.at(x, 100 * (point.measured / point.predicted - 1))
            shapes.append(drawing.dot(at, "proxy" if point.inside else "proxy missed", said))
        body.append(of_role(on, shapes))
    inside = sum(point.inside for point in every)
    said = f"{inside} of {len(every)} lie inside their 90% intervals."
    return drawing.svg(panel, "Runs left out, measured against foretold", said, body)


def coverage(points: Mapping[str, Sequence[HeldOutPoint]]) -> Markup:
    """Share of the runs left out inside the central interval of each confidence: on the diagonal where it is honest."""
    panel = Panel((0.0, 1.0), (0.0, 1.0), "coverage", left=52)
    labels = ("confidence of the interval", "share of runs left out that lie inside")
    body = [drawing.frame(panel, SHARES, SHARES, labels), legend(panel, list(points))]
    body.append(drawing.line([panel.at(0, 0), panel.at(1, 1)], "parent"))
    said = []
    for on, found in points.items():
        distance = np.sort(2 * np.abs(np.array([point.rank for point in found]) - 0.5))
        steps = [panel.at(0, 0)]
        for k, x in enumerate(distance):
            steps += [panel.at(x, k / len(found)), panel.at(x, (k + 1) / len(found))]
        steps.append(panel.at(1, 1))
        body.append(of_role(on, [drawing.line(steps, "law")]))
        at_ninety = sum(point.inside for point in found) / len(found)
        said.append(f"{on}: {wording.share(at_ninety)} inside the 90% interval.")
    return drawing.svg(panel, "Calibration of the intervals", " ".join(said), body)


# ---------------------------------------------------------------- along one input


def along(one: Evidence, labels: Mapping[str, str], target: Mapping[str, float]) -> Markup | None:
    """The law and its 90% bands along the input that varies most, at a few levels of the next; None for mixtures."""
    inputs = {name: values for name, values in one.runs.inputs.items() if name in labels and np.ptp(values) > 0}
    if not inputs:
        return None
    first, *others = sorted(inputs, key=lambda name: -len(np.unique(inputs[name])))
    if "D" in inputs:  # where there are tokens, loss is thought of along them
        first, others = "D", [name for name in inputs if name != "D"]
    across = axis([*inputs[first], target.get(first, inputs[first][0])], labels[first], shares=first == "r")
    log = across.places[0] != inputs[first][0]
    steps = np.linspace(across.places.min(), across.places.max(), CURVE)
    panel = Panel(across.span, drawing.padded(one.runs.loss), f"along-{one.on}", right=54)
    body = [drawing.frame(panel, across.ticks, y_ticks(panel), (across.label, NATS))]
    dots = [
        drawing.dot(panel.at(x, y), "proxy", f"{wording.loss(y)} nats", 0.6)
        for x, y in zip(across.places, one.runs.loss, strict=False)
    ]
    inside, names = [], []
    for level in _levels(inputs[others[0]]) if others else [None]:
        at = {name: target.get(name, float(np.median(values))) for name, values in one.runs.inputs.items()}
        at |= {} if level is None else {others[0]: level}
        drawn = one.draws({**{name: np.full(CURVE, x) for name, x in at.items()}, first: 10**steps if log else steps})
        low, middle, high = np.quantile(drawn, (0.05, 0.5, 0.95), axis=0)
        places = [[panel.at(x, y) for x, y in zip(steps, line, strict=True)] for line in (low, middle, high)]
        inside += [drawing.area(places[2], places[0], "band faint"), drawing.line(places[1], "law thin")]
        end = places[1][-1]
        if level is not None and panel.top < end[1] < panel.floor:
            names.append(drawing.text((panel.edge + 4, end[1] + 4), wording.compact(level), "tick"))
    body += [of_role(one.on, [drawing.clipped(panel, inside), *dots]), *names]
    by = f", lines at levels of {labels[others[0]]}" if others else ""
    title = f"{one.law}: loss against {labels[first]}{by}"
    return drawing.svg(panel, title, f"{len(one.runs)} observations and the fitted law with its 90% band.", body)


def _levels(values: Array) -> list[float]:
    """At most four among those tried, evenly through them by ratio."""
    tried = np.unique(values)
    wanted = np.geomspace(tried[0], tried[-1], 4) if tried[0] > 0 else np.linspace(tried[0], tried[-1], 4)
    return sorted({float(tried[np.abs(tried - x).argmin()]) for x in wanted})
