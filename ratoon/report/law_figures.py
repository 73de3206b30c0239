"""Figures of the decision: loss against ratio, contours over ratio and tokens, domain against general loss."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ratoon.config import Role
from ratoon.laws.decision.believe import Believed
from ratoon.laws.decision.study import Study
from ratoon.laws.form import Array
from ratoon.records import Choice, Interval
from ratoon.report import drawing, wording
from ratoon.report.axes import NATS, SHARES, axis, labelled, y_ticks
from ratoon.report.drawing import Panel

SHARE = "domain share of training tokens"
APART = 34.0  # of a label from another, or from the choice
STEPS = 61  # of a curve
LINES = 10  # contours of a figure, about


# ---------------------------------------------------------------- loss against ratio


def ratio(study: Study, role: Role) -> Markup:
    """The believed law at the target with its 90% band, the runs, and for general loss the ceiling."""
    believed = _both(study)
    table, choice = believed.tables[role], study.choice
    curve = [(p.share, p.general if role == "general" else p.domain) for p in believed.curve()]
    seen = [*table.runs.loss.tolist(), *(i.value for _, i in curve)]
    seen += [choice.ceiling_nats] if choice and role == "general" else []
    panel = Panel((0.0, 1.0), drawing.padded(seen), f"ratio-{role}")
    body = [_interval_of(panel, choice), drawing.frame(panel, SHARES, y_ticks(panel), (SHARE, NATS))]
    band = drawing.area([panel.at(s, i.high) for s, i in curve], [panel.at(s, i.low) for s, i in curve], "band")
    law = drawing.line([panel.at(s, i.value) for s, i in curve], "law")
    body += [drawing.clipped(panel, [band, law]), *_runs(panel, believed, role)]
    if choice:
        body += [*_levels(panel, choice, role), _chosen(panel, choice)]
        value = choice.predicted_general if role == "general" else choice.predicted_domain
        body.append(drawing.diamond(panel.at(choice.share, value.value), "measured", f"predicted: {_span(value)}"))
    title = f"{role.capitalize()} loss against the domain share, at {_target(study)}"
    ends = " to ".join(f"{wording.loss(i.value)} at {wording.share(s)}" for s, i in (curve[0], curve[-1]))
    return drawing.svg(panel, title, f"{believed.law}: from {ends}, {NATS}; {len(table.runs)} runs.", body)


def _both(study: Study) -> Believed:
    assert study.believed is not None
    return study.believed


def _span(interval: Interval) -> str:
    return f"{wording.loss(interval.value)} [{wording.loss(interval.low)}, {wording.loss(interval.high)}] nats"


def _target(study: Study) -> str:
    believed = _both(study)
    return f"{wording.compact(believed.params)} parameters and {wording.compact(believed.tokens)} tokens"


def _runs(panel: Panel, believed: Believed, role: Role) -> list[Markup]:
    """The longest runs darkest; those of another size than the one nearest the target hollow."""
    table = believed.tables[role]
    lengths = sorted(set(table.runs.tokens.tolist()))
    near = set(table.near_size(believed.params).runs.params.tolist())
    order = np.lexsort((table.share, table.runs.params, table.runs.tokens))
    return [
        drawing.dot(
            panel.at(table.share[k], table.runs.loss[k]),
            "proxy" if table.runs.params[k] in near else "proxy small",
            f"{wording.compact(table.runs.params[k])} parameters, {wording.compact(table.runs.tokens[k])} tokens, "
            f"share {wording.share(table.share[k])}: {wording.loss(table.runs.loss[k])} nats",
            0.3 + 0.7 * (lengths.index(table.runs.tokens[k]) + 1) / len(lengths),
        )
        for k in order
    ]


def decided(choice: Choice) -> Interval:
    """Of what the choice rests on: the best share under a weighted goal, the largest under the ceiling otherwise."""
    return choice.best or choice.interval


def _interval_of(panel: Panel, choice: Choice | None) -> Markup:
    if choice is None:
        return Markup()
    band = decided(choice)
    left, _ = panel.at(max(band.low, 0), panel.y[0])
    right, _ = panel.at(min(band.high, 1), panel.y[0])
    return drawing.box((left, panel.top), (right, panel.floor), "choice-band")


def _chosen(panel: Panel, choice: Choice) -> Markup:
    x, _ = panel.at(choice.share, panel.y[0])
    at = (min(max(x, panel.left + 40), panel.edge - 40), panel.top - 8)
    words = drawing.text(at, f"chosen {wording.share(choice.share)}", "strong", "middle")
    return drawing.line([(x, panel.top), (x, panel.floor)], "choice") + words


def _levels(panel: Panel, choice: Choice, role: Role) -> list[Markup]:
    parent = choice.parent_general_nats if role == "general" else choice.parent_domain_nats
    body: list[Markup] = []
    levels = [(parent, "parent", "", 15 if role == "general" else -6)]
    levels += [(choice.ceiling_nats, "ceiling", "alert", -6)] if role == "general" else []
    for value, name, css, below in levels:
        if not panel.y[0] <= value <= panel.y[1]:
            continue
        x, y = panel.at(panel.x[0], value)
        body.append(drawing.line([(x, y), (panel.edge, y)], name))
        body.append(drawing.text((panel.edge, y + below), f"{name} {wording.loss(value)}", css, "end"))
    return body


# ---------------------------------------------------------------- over ratio and tokens


def contours(study: Study, role: Role) -> Markup:
    """Lines of equal predicted loss over share and tokens, the runs, and for general loss where it is too high."""
    believed, choice = _both(study), study.choice
    table = believed.tables[role]
    tokens = np.geomspace(table.runs.tokens.min(), max(believed.tokens, table.runs.tokens.max()), STEPS)
    shares = np.linspace(believed.smallest, float(believed.tables["general"].share.max()), STEPS)
    losses = np.stack([believed.best(role, shares, tokens=np.full(STEPS, D)) for D in tokens])  # (tokens, shares)
    up = axis(tokens, "tokens")
    panel = Panel((0.0, 1.0), up.span, f"contours-{role}", left=52)
    body = [drawing.frame(panel, SHARES, up.ticks, (SHARE, f"tokens; lines: {NATS}"))]
    inside: list[Markup] = []
    if choice and role == "general":
        edge = _level(shares, losses, choice.ceiling_nats)
        places = [panel.at(x, y) for x, y in zip(edge, up.places, strict=True)]
        inside.append(drawing.area(places, [(panel.at(shares[-1], 0)[0], y) for _, y in places], "forbidden"))
        inside.append(drawing.line(places, "ceiling"))
    lines = [(level, _level(shares, losses, level)) for level in drawing.ticks(losses.min(), losses.max(), LINES)]
    for _, at in lines:
        kept = [panel.at(x, y) for x, y in zip(at, up.places, strict=True) if shares[0] < x < shares[-1]]
        inside.append(drawing.line(kept, "contour"))
    body += [drawing.clipped(panel, inside), *_tried(panel, believed, role), *_labels(panel, shares, lines, up.places)]
    y = panel.at(0, float(np.log10(believed.tokens)))[1]
    body.append(drawing.line([(panel.left, y), (panel.edge, y)], "parent"))
    if choice:
        said = f"chosen: {wording.share(choice.share)} of {wording.compact(believed.tokens)} tokens"
        body += [_chosen_here(panel, choice, y), drawing.diamond((panel.at(choice.share, 0)[0], y), "measured", said)]
    title = f"Predicted {role} loss over the domain share and tokens, at {wording.compact(believed.params)} parameters"
    said = f"From {wording.loss(losses.min())} to {wording.loss(losses.max())} {NATS}."
    return drawing.svg(panel, title, said, body)


def _chosen_here(panel: Panel, choice: Choice, y: float) -> Markup:
    low, high = (panel.at(min(max(x, 0), 1), 0)[0] for x in (decided(choice).low, decided(choice).high))
    return drawing.line([(low, y), (high, y)], "range ink")


def _level(shares: Array, losses: Array, level: float) -> Array:
    """(tokens,) the share at which each row of `losses` is at `level`: rows rise or fall with the share, as laws do."""
    rising = losses[:, -1] >= losses[:, 0]
    return np.array(
        [
            np.interp(level, row, shares) if up else np.interp(level, row[::-1], shares[::-1])
            for row, up in zip(losses, rising, strict=True)
        ]
    )


def _labels(panel: Panel, shares: Array, lines: Sequence[tuple[float, Array]], heights: Array) -> list[Markup]:
    """Each line's loss, where the line is well inside."""
    found: list[Markup] = []
    spots: list[tuple[float, float]] = []
    names = labelled([level for level, _ in lines])
    for k, (level, at) in enumerate(lines):
        inside = np.flatnonzero((at > shares[0] + 0.04) & (at < shares[-1] - 0.04))
        if len(inside) < 4:
            continue
        spot = inside[int(len(inside) * (0.35 + 0.3 * (k % 2)))]
        x, y = panel.at(at[spot], heights[spot])
        if any(math.dist((x, y), other) < APART for other in spots):
            continue
        spots.append((x, y))
        half = 4 * len(names[level])
        found += [drawing.box((x - half, y - 7), (x + half, y + 7), "paper")]
        found += [drawing.text((x, y + 4), names[level], "tick", "middle")]
    return found


def _tried(panel: Panel, believed: Believed, role: Role) -> list[Markup]:
    table = believed.tables[role]
    places = sorted({(float(s), float(np.log10(D))) for s, D in zip(table.share, table.runs.tokens, strict=True)})
    return [drawing.dot(panel.at(x, y), "tried", f"a run at share {wording.share(x)}") for x, y in places]


# ---------------------------------------------------------------- domain against general


def pareto(study: Study) -> Markup:
    """What the target would lose and learn along the ratio: both losses, the shares on the way, the choice."""
    believed, choice = _both(study), study.choice
    shares = np.linspace(believed.smallest, float(believed.tables["general"].share.max()), STEPS)
    general, domain = believed.best("general", shares), believed.best("domain", shares)
    x_seen, y_seen = general.tolist(), domain.tolist()
    if choice:
        x_seen += [choice.ceiling_nats, choice.predicted_general.low, choice.predicted_general.high]
        y_seen += [choice.predicted_domain.low, choice.predicted_domain.high]
    panel = Panel(drawing.padded(x_seen, 0.12), drawing.padded(y_seen), "pareto", left=52)
    across = labelled(drawing.ticks(*panel.x, wanted=6))
    body = [drawing.frame(panel, across, y_ticks(panel), (f"general loss, {NATS}", f"domain loss, {NATS}"))]
    if choice:
        x = panel.at(choice.ceiling_nats, 0)[0]
        body.append(drawing.box((x, panel.top), (panel.edge, panel.floor), "forbidden"))
        body.append(drawing.line([(x, panel.top), (x, panel.floor)], "ceiling"))
        words = f"ceiling {wording.loss(choice.ceiling_nats)}"
        body.append(drawing.text((x + 5, panel.top + 14), words, "alert"))
    body.append(drawing.line([panel.at(x, y) for x, y in zip(general, domain, strict=True)], "law"))
    crossed = [panel.at(choice.predicted_general.value, choice.predicted_domain.value)] if choice else []
    for share in (s for s in np.arange(0, 1.01, 0.1) if shares[0] - 1e-9 <= s <= shares[-1] + 1e-9):
        place = panel.at(float(np.interp(share, shares, general)), float(np.interp(share, shares, domain)))
        body.append(drawing.dot(place, "proxy", f"share {wording.share(share)}"))
        if all(math.dist(place, other) > APART for other in crossed):
            body.append(drawing.text((place[0] - 7, place[1] + 14), wording.share(share), "tick", "end"))
    if choice:
        body += _cross(panel, choice)
    title = f"Domain against general loss along the ratio, at {_target(study)}"
    said = f"General loss from {wording.loss(min(general))} to {wording.loss(max(general))}, domain loss from "
    return drawing.svg(panel, title, f"{said}{wording.loss(max(domain))} to {wording.loss(min(domain))} {NATS}.", body)


def _cross(panel: Panel, choice: Choice) -> list[Markup]:
    """The choice with the interval of either loss."""
    g, d = choice.predicted_general, choice.predicted_domain
    return [
        drawing.line([panel.at(g.low, d.value), panel.at(g.high, d.value)], "choice"),
        drawing.line([panel.at(g.value, d.low), panel.at(g.value, d.high)], "choice"),
        drawing.diamond(panel.at(g.value, d.value), "measured", f"chosen {wording.share(choice.share)}"),
    ]
