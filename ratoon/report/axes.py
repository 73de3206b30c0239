"""Axes of the law figures: ranges, tick labels, linear or logarithmic; and a role's colour."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from ratoon.laws.form import Array
from ratoon.report import drawing, wording
from ratoon.report.drawing import Panel

NATS = "nats per token"
SHARES = {x: wording.share(x) for x in (0.0, 0.25, 0.5, 0.75, 1.0)}
WIDE = 5.0  # a column whose largest value is this many times its smallest is shown on a log scale


class Axis(NamedTuple):
    """Values as they are drawn, with the range and tick labels of that drawing."""

    places: Array
    span: tuple[float, float]
    ticks: dict[float, str]
    label: str


def axis(values: Iterable[float], label: str, *, shares: bool = False) -> Axis:
    """Linear or, where the values span a wide range, logarithmic; counts are labelled 1.2M, shares 25%."""
    found = np.asarray(list(values), dtype=float)
    if shares:
        return Axis(found, (-0.04, 1.04), SHARES, label)
    if found.min() > 0 and found.max() > WIDE * found.min():
        span = drawing.padded(np.log10(found))
        exponents = np.arange(np.floor(span[0]), np.ceil(span[1]) + 1)
        steps = (1, 2, 5) if span[1] - span[0] < 2 else (1, 3) if span[1] - span[0] < 3.5 else (1,)
        marks = [m * 10.0**e for e in exponents for m in steps]
        shown = {float(np.log10(x)): wording.compact(x) for x in marks if span[0] <= np.log10(x) <= span[1]}
        return Axis(np.log10(found), span, _thinned(shown), label)
    span = drawing.padded(found)
    marks = drawing.ticks(*span, wanted=5)
    return Axis(found, span, labelled(marks) if span[1] < 1000 else {x: wording.compact(x) for x in marks}, label)


def _thinned(marks: dict[float, str], most: int = 6) -> dict[float, str]:
    step = -(-len(marks) // most)
    return dict(list(marks.items())[::step])


def y_ticks(panel: Panel, wanted: int = 6) -> dict[float, str]:
    return labelled(drawing.ticks(*panel.y, wanted=wanted))


def labelled(values: Sequence[float]) -> dict[float, str]:
    """Evenly spaced values with as many decimals as their step needs."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    decimals = next((d for d in range(6) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 6)
    return {y: f"{y:.{decimals}f}" for y in values}


def of_role(role: str, body: Iterable[Markup]) -> Markup:
    """Shapes in the colour of a role."""
    return Markup('<g class="{}">{}</g>').format(role, Markup().join(body))


def legend(panel: Panel, losses: Sequence[str]) -> Markup:
    """Which colour is which loss, above the plot, where there are two."""
    if len(losses) < 2:
        return Markup()
    names, right = [], panel.edge
    for loss in reversed(losses):
        names.append(of_role(loss, [drawing.text((right, 14), loss, "role-name", "end")]))
        right -= 8 * len(loss) + 8
    return Markup().join(names)
