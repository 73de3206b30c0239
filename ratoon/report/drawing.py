"""SVG by hand: small enough to read, and coloured by the page's style sheet, so that figures follow dark mode.

Shapes carry class names, never colours. Text is escaped by Markup.format.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

XY = tuple[float, float]


class Panel(NamedTuple):
    """A plot area in a drawing of width x height, and the data ranges it shows."""

    x: XY
    y: XY
    name: str
    width: int = 440
    height: int = 310
    left: int = 46
    right: int = 16
    top: int = 40
    bottom: int = 44

    def at(self, x: float, y: float) -> XY:
        """Data to drawing."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        inner_width = self.width - self.left - self.right
        inner_height = self.height - self.top - self.bottom
        return self.left + across * inner_width, self.height - self.bottom - up * inner_height

    @property
    def floor(self) -> float:
        return self.height - self.bottom

    @property
    def edge(self) -> float:
        return self.width - self.right


def padded(values: Iterable[float], by: float = 0.07) -> XY:
    """A range that holds all values with some air; never empty."""
    found = list(values)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    air = by * (high - low) or by * abs(high) or 1.0
    return low - air, high + air


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers inside a range, about `wanted` of them."""
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def number(x: float) -> str:
    """A coordinate with one decimal: enough for a screen, and the same text on every machine."""
    return f"{x:.1f}".replace("-0.0", "0.0")


def _path(places: Sequence[XY]) -> str:
    return "M" + "L".join(f"{number(x)},{number(y)}" for x, y in places)


def line(places: Sequence[XY], css: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(css, _path(places)) if len(places) > 1 else Markup()


def area(upper: Sequence[XY], lower: Sequence[XY], css: str) -> Markup:
    if len(upper) < 2:
        return Markup()
    return Markup('<path class="{}" d="{}Z"/>').format(css, _path([*upper, *reversed(lower)]))


def box(corner: XY, opposite: XY, css: str) -> Markup:
    (x0, y0), (x1, y1) = corner, opposite
    left, top, width, height = min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        css, number(left), number(top), number(width), number(height)
    )


def dot(place: XY, css: str, said: str, opacity: float = 1.0) -> Markup:
    """A circle that says its numbers when pointed at."""
    x, y = place
    return Markup('<circle class="{}" cx="{}" cy="{}" r="3.2" opacity="{}"><title>{}</title></circle>').format(
        css, number(x), number(y), f"{opacity:.2f}", said
    )


def diamond(place: XY, css: str, said: str, reach: float = 6.5) -> Markup:
    x, y = place
    corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)]
    return Markup('<path class="{}" d="{}Z"><title>{}</title></path>').format(css, _path(corners), said)


def text(place: XY, words: str, css: str = "", anchor: str = "start") -> Markup:
    x, y = place
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
        number(x), number(y), css, anchor, words
    )


def frame(panel: Panel, x_ticks: dict[float, str], y_ticks: dict[float, str], labels: tuple[str, str]) -> Markup:
    """Grid, tick labels and the two axis labels; `labels` is (x, y), y standing above its axis."""
    parts = [text((2, 14), labels[1], "label")]
    for value, words in y_ticks.items():
        x, y = panel.at(panel.x[0], value)
        parts += [line([(x, y), (panel.edge, y)], "grid"), text((panel.left - 8, y + 4), words, "tick", "end")]
    for value, words in x_ticks.items():
        x, _ = panel.at(value, panel.y[0])
        parts += [line([(x, panel.floor), (x, panel.floor + 4)], "axis")]
        parts += [text((x, panel.floor + 18), words, "tick", "middle")]
    parts += [line([(panel.left, panel.floor), (panel.edge, panel.floor)], "axis")]
    parts += [text(((panel.left + panel.edge) / 2, panel.height - 6), labels[0], "label", "middle")]
    return Markup().join(parts)


def clipped(panel: Panel, body: Iterable[Markup]) -> Markup:
    """Shapes that may leave the plot area, cut at its edges."""
    corner = box((panel.left, panel.top), (panel.edge, panel.floor), "")
    return Markup('<clipPath id="{0}-c">{1}</clipPath><g clip-path="url(#{0}-c)">{2}</g>').format(
        panel.name, corner, Markup().join(body)
    )


def svg(panel: Panel, title: str, description: str, body: Iterable[Markup]) -> Markup:
    """The whole drawing, with a title and a description for those who do not see it."""
    head = Markup('<title id="{0}-t">{1}</title><desc id="{0}-d">{2}</desc>').format(panel.name, title, description)
    return Markup('<svg class="figure" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">{}{}</svg>').format(
        panel.width, panel.height, panel.name, panel.name, head, Markup().join(body)
    )
