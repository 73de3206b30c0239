"""The closer looks at a new model, each of which left a record: sections of the page."""

from collections.abc import Iterator

from markupsafe import Markup

from ratoon.evaluation.forgetting import Matrix
from ratoon.evaluation.judges import Judges
from ratoon.evaluation.noise import Sensitivity
from ratoon.evaluation.periods import Periods
from ratoon.evaluation.probe import Probes
from ratoon.evaluation.quality import TaskQuality
from ratoon.evaluation.shift import Moved, Shift
from ratoon.evaluation.trajectory import Curve, Trajectory
from ratoon.report import drawing, heat, history, wording
from ratoon.report.axes import labelled
from ratoon.report.drawing import Panel
from ratoon.report.sections import Figure, Section, Table, in_points, signed, with_ends


def matrix(found: Matrix) -> Iterator[Section]:
    figures = tuple(Figure(source, role, drawn) for source, role, drawn in heat.maps(found))
    groups = [group for group in ("general", "domain", "watched") if group in found.figures]
    rows = tuple(
        (said, *(with_ends(found.figures[group].get(key)) for group in groups))
        for key, said in history.SAID.items()
        if any(found.figures[group].get(key) for group in groups)
    )
    gains = "Gains in bits per byte; more is better, but for what was lost"
    tables = (Table(gains, ("", *groups), rows),) if rows else ()
    lead = (
        "Every model of the line on the held-out text that each refresh (r1, r2, ...) brought: bits per byte, shaded "
        "by the change against the oldest model asked: green fewer, red more. * text the model had not read yet."
    )
    yield Section("matrix", "Over the refreshes", lead, "matrix.json", figures, tables, found.notes)


def shift(found: Shift) -> Iterator[Section]:
    if found.total.distance is None:
        return
    rows = tuple((each.name, f"{each.numbers:,}", *far(each)) for each in (found.total, *found.kinds))
    movers = tuple((each.name, f"{each.numbers:,}", *far(each)) for each in found.movers[:5])
    head = ("", "Weights", "Distance", "Cosine")
    notes = [f"{x.rows} new rows in {x.tensor}, {x.norm:.2f} times as long as the parent's." for x in found.new_tokens]
    for names, what in ((found.only_parent, "only in the parent"), (found.reshaped, "of another shape")):
        notes += [f"{len(names)} tensors {what}: {', '.join(names[:3])}."] if names else []
    lead = "How far the weights are from the parent's, as a share of their length."
    tables = [Table("By kind", head, rows)] + ([Table("Single tensors, the farthest", head, movers)] if movers else [])
    layers = [each for each in found.layers if each.distance is not None]
    figures = (Figure("By layer", "domain", by_layer(layers)),) if len(layers) > 1 else ()
    yield Section("shift", "How far it moved", lead, "shift.json", figures, tuple(tables), tuple(notes))


def far(item: Moved) -> tuple[str, str]:
    return (
        wording.ABSENT if item.distance is None else wording.share(item.distance),
        wording.ABSENT if item.cosine is None else f"{item.cosine:.4f}",
    )


def by_layer(layers: list[Moved]) -> Markup:
    values = [each.distance or 0.0 for each in layers]
    panel = Panel((-0.5, len(layers) - 0.5), (0.0, 1.12 * max(values) or 1.0), "layers", height=230, left=52, top=32)
    step = -(-len(layers) // 8)
    across = {float(k): each.name for k, each in enumerate(layers) if k % step == 0}
    up = {y: wording.share(y) for y in drawing.ticks(*panel.y, wanted=4)}
    body = [drawing.frame(panel, across, up, ("layer", "distance"))]
    for k, value in enumerate(values):
        body.append(drawing.box(panel.at(k - 0.35, 0), panel.at(k + 0.35, value), "column"))
    said = ", ".join(f"{each.name}: {wording.share(each.distance)}" for each in layers)
    return drawing.svg(panel, "Distance from the parent by layer", f"{said}.", body)


def probes(found: Probes) -> Iterator[Section]:
    rows = [
        (
            "Nats per token saved on a second copy",
            with_ends(found.parent.induction),
            with_ends(found.candidate.induction),
            with_ends(found.induction),
        )
    ]
    old, new = found.parent.few_shot, found.candidate.few_shot
    if old and new:
        shown = "one solved item" if old.shots == 1 else f"{old.shots} solved items"
        name = f"Accuracy gained by {shown} in front, {old.items:,} items"
        rows.append((name, in_points(old.gain), in_points(new.gain), in_points(found.few_shot)))
    lead = "What a model makes of what stands before: a skill that continued training may wear away."
    table = Table("", ("", "Parent", "Candidate", "Change"), tuple(rows))
    yield Section("probes", "Learning in context", lead, "probes.json", tables=(table,))


def noise(found: Sensitivity) -> Iterator[Section]:
    rows = tuple(
        (
            f"{each.scale:g}",
            with_ends(each.parent),
            with_ends(each.candidate),
            "–" if each.ratio is None else f"{each.ratio.value:.2f} ({each.ratio.low:.2f} to {each.ratio.high:.2f})",
        )
        for each in found.rises
    )
    head = ("Noise, of the weights' spread", "Rise, parent", "Rise, candidate", "Ratio")
    lead = f"By how much the loss rises when noise is added to the weights, {found.draws} draws on {found.documents} "
    lead += "documents. It rises more, the longer a model was trained, and then the next training may harm it more; an "
    lead += "alarm says where it rises far more than the parent's. No ratio: the parent's rise is too unsure."
    table = Table("Rise in bits per byte", head, rows)
    said = (f"{found.said[:1].upper()}{found.said[1:]}.",)
    alarms, notes = (said, ()) if found.alarm else ((), said)
    yield Section("noise", "Noise on the weights", lead, "noise.json", tables=(table,), notes=notes, alarms=alarms)


def trajectory(found: Trajectory) -> Iterator[Section]:
    figures = tuple(
        Figure(f"{each.task}", each.role, along(found.steps, each, k)) for k, each in enumerate(found.curves)
    )
    tables = (worth(found.qualities),) if found.qualities else ()
    lead = "Checkpoints of the target run, from the parent (step 0), on a fixed part of the suite."
    alarms = tuple(each.said for each in found.alarms)
    yield Section("trajectory", "On the way", lead, "trajectory.json", figures, tables, (), alarms)


def judges(found: Judges) -> Iterator[Section]:
    lead = f"The training again under other seeds, {len(found.runs)} runs from one parent ({', '.join(found.runs)}): a "
    lead += "task that scatters as much as it moves, or moves both ways, should decide nothing."
    yield Section("judges", "Which tasks may judge", lead, "judges.json", tables=(worth(found.qualities),))


def worth(found: tuple[TaskQuality, ...]) -> Table:
    rows = tuple(
        (
            each.task,
            "may gate" if each.use == "gate" else "shows only",
            "–" if each.snr is None else f"{each.snr:.1f}",
            "–" if each.spearman is None else f"{signed(each.spearman, 2)}",
            each.why,
        )
        for each in found
    )
    head = ("Task", "Use", "Signal to noise", "Grows with steps", "Why")
    return Table("What each task is worth as a judge", head, rows)


def along(steps: tuple[int, ...], curve: Curve, number: int) -> Markup:
    values = curve.values
    wide = (0.99 * values[0], 1.01 * values[0])
    panel = Panel((0.0, float(steps[-1]) or 1.0), drawing.padded([*values, *wide], 0.15), f"along-{number}", height=230)
    across = {x: wording.compact(x) for x in drawing.ticks(*panel.x, wanted=4)}
    label = "accuracy" if curve.metric == "accuracy" else "bits per byte"
    body = [drawing.frame(panel, across, labelled(drawing.ticks(*panel.y, wanted=5)), ("step", label))]
    places = [panel.at(step, value) for step, value in zip(steps, values, strict=True)]
    body.append(drawing.line(places, "law"))
    for at, step, value in zip(places, steps, values, strict=True):
        body.append(drawing.dot(at, "proxy", f"step {step:,}: {wording.loss(value)}"))
    said = ", ".join(f"{step:,}: {wording.loss(value)}" for step, value in zip(steps, values, strict=True))
    return drawing.svg(panel, f"{curve.task}, {label} along the run", f"By step, {said}.", body)


def periods(found: Periods) -> Iterator[Section]:
    models = list(dict.fromkeys(name for each in found.scores for name in each.scores))
    rows = tuple(
        (
            f"{each.source}, {each.period}",
            f"{each.documents:,}",
            *(wording.loss(each.scores.get(model)) for model in models),
        )
        for each in found.scores
    )
    slopes = tuple(
        (f"{each.source}, {each.model}", f"{each.documents:,}", with_ends(each.per_year)) for each in found.slopes
    )
    tables = [Table("Bits per byte by date of the text", ("Text", "Documents", *models), rows)] if rows else []
    tables += [Table("Change per year after the cut-off", ("", "Documents", "Bits per byte"), slopes)] if slopes else []
    notes = [f"Too few documents: {', '.join(found.scarce)}."] if found.scarce else []
    undated = {name: count for name, count in found.undated.items() if count}
    notes += [f"Without a date: {', '.join(f'{k} {v:,}' for k, v in undated.items())} documents."] if undated else []
    lead = f"By the date of the text; the base's cut-off is {found.cutoff or 'not declared'}."
    if tables:
        yield Section("periods", "By date", lead, "periods.json", tables=tuple(tables), notes=tuple(notes))
