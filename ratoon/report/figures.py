"""The page's figures: loss against ratio, held-out loss along the run, changes as small range bars."""

from typing import NamedTuple

from markupsafe import Markup

from ratoon.config import Role
from ratoon.records import Choice, Comparison, Interval, RatioPoint, Refresh
from ratoon.report import drawing, facts, wording
from ratoon.report.drawing import Panel
from ratoon.report.facts import Curve, Point
from ratoon.report.wording import known


class Scale(NamedTuple):
    """What the change bars of one table share, so that their lengths compare."""

    low: float
    high: float
    limits: dict[Role, float]


# ---------------------------------------------------------------- loss against ratio


def ratio_panel(refresh: Refresh, role: Role) -> Markup:
    """Proxies, the fitted law at the target, the choice and where the target run ended; nats per token."""
    choice, proxies = refresh.choice, facts.proxies(refresh, role)
    end = facts.end_of_run(refresh, role)
    parent = choice.parent_general_nats if role == "general" else choice.parent_domain_nats
    law = [(point.share, _interval(point, role)) for point in choice.curve]
    law = [(share, i) for share, i in law if known(i.value) and known(i.low) and known(i.high)]
    # The range follows what was measured; a law that runs away at its ends is cut, not allowed to flatten the rest.
    seen = [p.nats for p in proxies] + [x for x in (parent, end) if known(x)]
    seen += [choice.ceiling_nats] if role == "general" else []
    low, high = drawing.padded(seen)
    reach = [i.value for _, i in law if low - (high - low) / 2 <= i.value <= high + (high - low) / 2]
    panel = Panel((0.0, 1.0), drawing.padded([*seen, *reach]), f"ratio-{role}")

    body = [_choice_band(panel, choice), _frame(panel, "domain share of training tokens", "nats per token")]
    band = drawing.area([panel.at(s, i.high) for s, i in law], [panel.at(s, i.low) for s, i in law], "band")
    curve = drawing.line([panel.at(s, i.value) for s, i in law], "law")
    body += [drawing.clipped(panel, [band, *_proxy_lines(panel, proxies), curve]), *_proxy_dots(panel, proxies)]
    body += _levels(panel, choice, role, parent)
    body += [_chosen_line(panel, choice)]
    if known(end):
        said = f"target run, measured: {wording.loss(end)} nats at share {wording.share(choice.share)}"
        body.append(drawing.diamond(panel.at(choice.share, end), "measured", said))
    title = f"{role.capitalize()} loss against the domain share of training tokens"
    return drawing.svg(panel, title, _said(refresh, role, proxies, end), body)


def _interval(point: RatioPoint, role: Role) -> Interval:
    return point.general if role == "general" else point.domain


def _frame(panel: Panel, x_label: str, y_label: str) -> Markup:
    across = {x: wording.share(x) for x in (0, 0.25, 0.5, 0.75, 1.0)}
    return drawing.frame(panel, across, _y_ticks(panel), (x_label, y_label))


def _y_ticks(panel: Panel) -> dict[float, str]:
    values = drawing.ticks(*panel.y)
    step = values[1] - values[0] if len(values) > 1 else 1.0
    decimals = next((d for d in range(6) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 6)
    return {y: f"{y:.{decimals}f}" for y in values}


def _choice_band(panel: Panel, choice: Choice) -> Markup:
    if not (known(choice.interval.low) and known(choice.interval.high)):
        return Markup()
    left, _ = panel.at(max(choice.interval.low, 0), panel.y[0])
    right, _ = panel.at(min(choice.interval.high, 1), panel.y[0])
    return drawing.box((left, panel.top), (right, panel.floor), "choice-band")


def _chosen_line(panel: Panel, choice: Choice) -> Markup:
    x, _ = panel.at(choice.share, panel.y[0])
    words = drawing.text(
        (min(max(x, panel.left + 40), panel.edge - 40), panel.top - 8),
        f"chosen {wording.share(choice.share)}",
        "strong",
        "middle",
    )
    return drawing.line([(x, panel.top), (x, panel.floor)], "choice") + words


def _levels(panel: Panel, choice: Choice, role: Role, parent: float) -> list[Markup]:
    """The parent's loss and, for general text, the ceiling; named at the right, where the curves have left."""
    body = []
    if known(parent):
        x, y = panel.at(panel.x[0], parent)
        name = f"parent {wording.loss(parent)}"
        # Below its line for general text, where the ceiling's name stands just above.
        below = y + 15 if role == "general" else y - 6
        body += [drawing.line([(x, y), (panel.edge, y)], "parent"), drawing.text((panel.edge, below), name, "", "end")]
    if role == "general" and known(choice.ceiling_nats):
        x, y = panel.at(panel.x[0], choice.ceiling_nats)
        name = f"ceiling {wording.loss(choice.ceiling_nats)}"
        body += [drawing.line([(x, y), (panel.edge, y)], "ceiling")]
        body += [drawing.text((panel.edge, y - 6), name, "alert", "end")]
    return body


def _faintness(proxies: tuple[Point, ...]) -> dict[int, float]:
    """Tokens -> opacity: the longest runs stand out."""
    lengths = sorted({p.tokens for p in proxies})
    return {tokens: 0.3 + 0.7 * (k + 1) / len(lengths) for k, tokens in enumerate(lengths)}


def _proxy_lines(panel: Panel, proxies: tuple[Point, ...]) -> list[Markup]:
    """One thin line through the runs that differ in nothing but their ratio."""
    groups: dict[tuple[str, int, int], list[Point]] = {}
    for p in proxies:
        groups.setdefault((p.model, p.params, p.tokens), []).append(p)
    lines = [sorted(group, key=lambda p: p.share) for group in groups.values()]
    return [drawing.line([panel.at(p.share, p.nats) for p in group], "proxies") for group in lines]


def _proxy_dots(panel: Panel, proxies: tuple[Point, ...]) -> list[Markup]:
    largest, opacity = max((p.params for p in proxies), default=0), _faintness(proxies)
    # Short runs first: where dots meet, the longest lies on top.
    ordered = sorted(proxies, key=lambda p: (p.tokens, p.params, p.share))
    return [
        drawing.dot(
            panel.at(p.share, p.nats),
            "proxy" if p.params == largest else "proxy small",
            f"{wording.compact(p.params)} parameters, {wording.compact(p.tokens)} tokens, "
            f"share {wording.share(p.share)}: {wording.loss(p.nats)} nats",
            opacity[p.tokens],
        )
        for p in ordered
    ]


def _said(refresh: Refresh, role: Role, proxies: tuple[Point, ...], end: float | None) -> str:
    choice = refresh.choice
    words = [f"{len(proxies)} proxy evaluations." if proxies else "No proxy evaluations were recorded."]
    if choice.curve:
        first, last = choice.curve[0], choice.curve[-1]
        ends = [f"{wording.loss(_interval(p, role).value)} at {wording.share(p.share)}" for p in (first, last)]
        words.append(f"The fitted law at the target goes from {ends[0]} to {ends[1]}, in nats per token.")
    if role == "general":
        words.append(f"The ceiling is {wording.loss(choice.ceiling_nats)}.")
    words.append(f"The chosen share is {wording.share(choice.share)}; the target run ended at {wording.loss(end)}.")
    return " ".join(words)


# ---------------------------------------------------------------- along the run


def training_panel(curve: Curve, number: int) -> Markup:
    """Bits per byte of one source against tokens seen, the parent's level dashed. Needs at least one point."""
    values = [bits for _, bits in curve.points]
    most = max(tokens for tokens, _ in curve.points) or 1
    # At least two percent of the level from edge to edge: a flat line must look flat.
    span = drawing.padded([*values, 0.993 * values[0], 1.007 * values[0]], 0.22)
    panel = Panel((0.0, float(most)), span, f"run-{number}", height=250, top=30, right=20)
    across = {x: wording.compact(x) for x in drawing.ticks(*panel.x, wanted=4)}
    body = [drawing.frame(panel, across, _y_ticks(panel), ("tokens seen", "bits per byte"))]
    last_tokens, last = curve.points[-1]
    if curve.parent is not None:
        x, y = panel.at(0, curve.parent)
        # The name stands on the side of the dashed line that the curve leaves free.
        side = -7 if last <= curve.parent else 16
        words = f"parent {wording.loss(curve.parent)}"
        body += [drawing.line([(x, y), (panel.edge, y)], "parent")]
        body += [drawing.text((panel.edge, y + side), words, "", "end")]
    places = [panel.at(tokens, bits) for tokens, bits in curve.points]
    body.append(drawing.line(places, "law"))
    for place, (tokens, bits) in zip(places, curve.points, strict=True):
        body.append(drawing.dot(place, "proxy", f"{wording.compact(tokens)} tokens: {wording.loss(bits)}"))
    moved = f" ({wording.change(last / curve.parent - 1)})" if curve.parent else ""
    x, y = panel.at(last_tokens, last)
    under = curve.parent is None or last <= curve.parent
    body.append(drawing.text((panel.edge, y + 18 if under else y - 10), wording.loss(last) + moved, "strong", "end"))
    said = f"From {wording.loss(values[0])} to {wording.loss(last)} bits per byte over {wording.compact(most)} tokens."
    return drawing.svg(panel, f"Held-out bits per byte of {curve.source} along the target run", said, body)


# ---------------------------------------------------------------- changes


def shown_change(comparison: Comparison) -> Interval:
    """What the bar shows: relative where the record has it, else the plain difference."""
    return comparison.relative or comparison.difference


def scale(comparisons: list[Comparison], limits: dict[Role, float]) -> Scale:
    """One range for all bars of a table, with zero and the gate's limits always in it."""
    shown = [shown_change(c) for c in comparisons]
    found = [x for i in shown for x in (i.low, i.value, i.high) if known(x)]
    used = [limits[c.role] for c in comparisons if c.role in limits]
    low, high = drawing.padded([0.0, *found, *used], 0.1)
    return Scale(low, high, limits)


def change_bar(comparison: Comparison, by: Scale, number: int) -> Markup:
    """The interval of a change as a bar around zero, with the gate's limit as a dashed line."""
    panel = Panel((by.low, by.high), (0, 1), f"change-{number}", 200, 26, 3, 3, 0, 0)
    change, middle = shown_change(comparison), 0.5
    zero = panel.at(0, 0)[0]
    body = [drawing.line([(3, 13), (197, 13)], "grid"), drawing.line([(zero, 2), (zero, 24)], "zero")]
    limit = by.limits.get(comparison.role)
    if limit:
        x = panel.at(limit, 0)[0]
        body.append(drawing.line([(x, 3), (x, 23)], "ceiling"))
    if known(change.low) and known(change.high):
        body.append(drawing.line([panel.at(change.low, middle), panel.at(change.high, middle)], "range"))
    if known(change.value):
        body.append(drawing.dot(panel.at(change.value, middle), "point", wording.change(change.value, 2)))
    title = f"{comparison.benchmark} on {comparison.source}: {wording.change(change.value)}"
    said = (
        f"Between {wording.change(change.low)} and {wording.change(change.high)}; the dashed line is the gate's limit."
    )
    return drawing.svg(panel, title, said if limit else said.split(";")[0] + ".", body)
