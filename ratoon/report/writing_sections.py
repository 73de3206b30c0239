"""How the models write, how sure they are, and what cheaper ways would have given: sections of the page."""

from collections.abc import Iterator

from markupsafe import Markup

from ratoon.evaluation.arms import Arms
from ratoon.evaluation.calibration import Calibrated, Calibration
from ratoon.evaluation.health import Health, Measured
from ratoon.report import arms as arms_text
from ratoon.report import drawing, wording
from ratoon.report.drawing import Panel
from ratoon.report.health import SAID
from ratoon.report.sections import Figure, Section, Table, in_points, signed, with_ends


def health(found: Health) -> Iterator[Section]:
    if found.writing or found.valid:
        yield writing(found)
    if found.calibration:
        yield calibration(found)


def writing(found: Health) -> Section:
    tables = []
    for each in found.writing:
        known = [m for m in each.measures if m.name in SAID and (m.parent is not None or m.candidate is not None)]
        rows = tuple(measured(item, each.prompts) for item in known)
        head = ("Measure", "Parent", "Candidate", "The text itself", "Change")
        tables.append(Table(f"{each.source}, {each.prompts} prompts", head, rows))
    if found.valid:
        rows = tuple((f"{v.benchmark} on {v.source}", *map(wording.rate, (v.parent, v.candidate))) for v in found.valid)
        tables.append(Table("Outputs in the form that was asked for", ("Benchmark", "Parent", "Candidate"), rows))
    said = f"Both models continued the same held-out texts, {found.tokens} tokens each." if found.tokens else ""
    lead = f"{said} A change whose range holds 0 may be chance; it is over the prompts where both have a value.".strip()
    return Section("health", "How it writes", lead, "health.json", tables=tuple(tables))


def measured(item: Measured, prompts: int) -> tuple[str, ...]:
    name = SAID[item.name] + (f" (change: {item.prompts} prompts)" if 0 < item.prompts < prompts else "")
    if item.name == "length":
        values = [wording.ABSENT if x is None else f"{x:.1f}" for x in (item.parent, item.candidate, item.text)]
        return (name, *values, with_ends(item.difference, 1))
    values = [wording.rate(x) for x in (item.parent, item.candidate)]
    return (
        name,
        *values,
        "–" if item.text is None else wording.rate(item.text),
        in_points(item.difference),
    )


def calibration(found: Health) -> Section:
    rows = tuple(
        (
            f"{c.benchmark} on {c.source}",
            f"{c.items:,}",
            f"{c.parent.ece:.3f}",
            f"{c.candidate.ece:.3f}",
            f"{c.candidate.by_chance:.3f}",
            f"{signed(100 * c.candidate.overconfidence, 1)} pp",
        )
        for c in found.calibration
    )
    head = ("Benchmark", "Items", "Error, parent", "Error, candidate", "Error by chance", "Overconfident by")
    figures = tuple(
        Figure(f"{c.benchmark} on {c.source}", "domain", reliability(c, k)) for k, c in enumerate(found.calibration)
    )
    lead = "A model that is 80% sure should be right eight times in ten. Error: by how much it is off on average;"
    lead += " one that deserves its confidence would still show the error by chance. Filled: candidate; hollow: parent."
    return Section("calibration", "How sure it is", lead, "health.json", figures, (Table("", head, rows),))


def reliability(found: Calibration, number: int) -> Markup:
    """Right answers against confidence; on the diagonal where confidence is deserved."""
    panel = Panel((0.0, 1.0), (0.0, 1.0), f"sure-{number}", left=52)
    across = {x: wording.share(x) for x in (0.0, 0.25, 0.5, 0.75, 1.0)}
    body = [drawing.frame(panel, across, across, ("how sure", "how often right"))]
    body.append(drawing.line([panel.at(0, 0), panel.at(1, 1)], "parent"))
    models: tuple[tuple[str, Calibrated, str], ...] = (
        ("parent", found.parent, "proxy small"),
        ("candidate", found.candidate, "proxy"),
    )
    for name, model, css in models:
        for each in model.bins:
            said = f"{name}: {each.items} items, {wording.share(each.confidence)} sure"
            said += f", {wording.share(each.accuracy)} right"
            body.append(drawing.dot(panel.at(each.confidence, each.accuracy), css, said))
    said = f"Calibration error {found.parent.ece:.3f} of the parent, {found.candidate.ece:.3f} of the candidate."
    return drawing.svg(panel, f"Confidence and right answers, {found.benchmark} on {found.source}", said, body)


# ---------------------------------------------------------------- arms


def arms(found: Arms) -> Iterator[Section]:
    every = [("parent", found.against_parent), *((arm.name, arm.comparisons) for arm in found.arms)]
    rows = []
    for name, comparisons in every:
        for item in comparisons:
            percent = item.relative is not None
            value = wording.loss(item.parent.value) if percent else wording.share(item.parent.value)
            change = item.relative or item.difference
            digits = wording.digits_for(change)
            words = wording.change if percent else wording.points
            ends = wording.span(words(change.low, digits), words(change.high, digits))
            what = f"{item.source}, {item.benchmark}"
            rows.append((name, what, value, f"{words(change.value, digits)} ({ends})", item.outcome))
    costs = []
    for name, cost in [("refresh", found.cost), *((arm.name, arm.cost) for arm in found.arms)]:
        tokens = wording.compact(cost.training_tokens) if cost.training_tokens else "none"
        flops = wording.compact(cost.training_flops) if cost.training_tokens else "none"
        reads = f"{arms_text.times(cost, found.cost):.2f}x" if found.cost.reading_flops else wording.ABSENT
        costs.append((name, tokens, flops, wording.duration(cost.training_seconds), reads))
    head = ("Against", "On", "It scored", "The refresh against it", "Outcome")
    made = ("", "Trained on, tokens", "Operations", "Time", "Cost of reading")
    yield Section(
        "arms",
        "Was it worth it?",
        " ".join(arms_text.sentences(found)),
        "arms.json",
        tables=(Table("Scores", head, tuple(rows)), Table("Costs", made, tuple(costs))),
    )
