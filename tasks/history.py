"""Beside the gate: what was forgotten over all refreshes, and what else a new model is asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config
from ratoon.config import Source
from ratoon.corpus.portions import shares
from ratoon.evaluation import forgetting, harness, history, noise, periods, probe, shift, slices, suite, trajectory
from ratoon.evaluation.held_out import held_out_documents
from ratoon.evaluation.history import History, Row
from ratoon.evaluation.slices import Place, Score
from ratoon.layout import Layout
from ratoon.records import read, write
from ratoon.training.request import Request, Result
from tasks import tracking
from tasks.assess import unscored
from tasks.job import Job
from tasks.live import stage
from tasks.prepare import path_of


@task(task_run_name="what {job.line} forgot", cache_policy=NO_CACHE)
def look_back(job: Job, candidate: Path, started: str) -> None:
    """Keep what this refresh brought of held-out text, and score the candidate on what all refreshes brought.

    The parent and the base are asked about the new text alone. What was scored before is kept.
    """
    if job.params.assess.history is None or unscored(job):
        return
    folder = job.layout.history(job.line)
    share = job.params.prepare.held_out.share
    found = history.load(folder, job.line)
    base, parent = base_row(job, found), parent_row(job, found)
    found = history.gather(folder, found, places(job), job.folder.name, job.params.assess, share)
    waiting = history.waiting(folder, found, places(job), job.folder.name)
    spoiled = set(history.spoiled(folder, found, share))
    everything = [each.name for each in found.slices]
    fresh = [each.name for each in found.slices if each.refresh == job.folder.name]
    asked = [name for name in everything if name not in spoiled]
    own = Row(
        name=job.folder.name,
        label="candidate",
        parent=parent.name,
        started=started,
        slices=tuple(everything),
        spoiled=tuple(sorted(spoiled)),
        waiting=waiting,
    )
    models = [(own, candidate, asked), (parent, job.parent, fresh)]
    models += [(base, path_of(job.base, job.layout.root), fresh)] if base.name != parent.name else []
    with stage("history", "models", len(models), job.line) as shown:
        for number, (row, model, names) in enumerate(models):
            shown.update(number, note=row.label)
            found = found.with_row(ask(job, folder, found, row, model, names))
            history.save(folder, found)
        shown.update(len(models), note=f"{', '.join(row.label for row, _, _ in models)} on {len(everything)} texts")


def base_row(job: Job, found: History) -> Row:
    return found.row(job.base.name) or Row(name=job.base.name, label="base")


def parent_row(job: Job, found: History) -> Row:
    """Of the model that is continued; one that was made before there was a history begins it beside the base."""
    if job.parent_version is None:
        return base_row(job, found)
    known = next((row for row in found.rows if row.version == job.parent_version), None)
    name = f"v{job.parent_version}"
    return known or Row(name=name, label=name, version=job.parent_version, parent=job.base.name, promoted=True)


def ask(job: Job, folder: Path, found: History, row: Row, model: Path, names: list[str]) -> Row:
    """`row` with the scores of `model` on those slices."""
    of = {each.name: (each.role, folder / "slices" / each.name) for each in found.slices if each.name in names}
    if not of:
        return row
    out = job.folder / "history"
    place = out / history.safe(row.name)
    tests = slices.suite_of(of, job.params.assess, place / "suite")
    scores = scorer(job)(model, place / "suite", place / "scores")
    settings = {"row_tokens": scores.settings.row_tokens, "precision": scores.settings.precision}
    if row.settings and row.settings != settings:
        row = row.model_copy(update={"scores": {}})
    row = row.model_copy(update={"settings": settings})
    return history.record(folder, row, place / "scores", {task.name: task.source for task in tests.tasks})


@task(cache_policy=NO_CACHE)
def look_closer(job: Job, candidate: Path) -> None:
    """Shift of the weights, learning in context, noise, checkpoints and periods: each leaves a record of its own."""
    asked = job.params.assess
    if unscored(job):
        return
    steps: list[tuple[str, Callable[[], object | None]]] = [
        ("shift", lambda: shift.shift(job.parent, candidate)),
        ("probes", lambda: probes(job, candidate) if asked.probe else None),
        ("noise", lambda: shaken(job, candidate) if asked.noise else None),
        ("trajectory", lambda: along(job) if asked.trajectory else None),
        ("periods", lambda: by_period(job, candidate) if asked.periods else None),
    ]
    with stage("closer", "looks", len(steps), job.line) as shown:
        made = []
        for number, (name, look) in enumerate(steps):
            shown.update(number, note=name)
            found = look()
            made += [name] if found is not None else []
            path = job.folder / f"{name}.json"
            if found is None:
                path.unlink(missing_ok=True)  # of an earlier run that asked for it
            else:
                write(path, found)  # type: ignore[arg-type]
        shown.update(len(steps), note=", ".join(made))


def probes(job: Job, candidate: Path) -> probe.Probes:
    asked = job.params.assess
    assert asked.probe is not None
    tests = job.folder / "assess" / "suite"
    return probe.compare(
        job.parent, candidate, tests, asked.probe, job.base.row_tokens, job.params.train.device, asked.confidence
    )


def shaken(job: Job, candidate: Path) -> noise.Sensitivity:
    asked = job.params.assess
    assert asked.noise is not None
    texts: dict[str, str] = {}
    for source, place in sorted(places(job).items()):
        kept = slices.chosen(held_out_documents(place.clean), asked.noise.documents, asked.seed)
        texts |= {f"{source} {document.id}": suite.cut(document.text, asked.max_bytes) for document in kept}
    return noise.sensitivity(job.parent, candidate, texts, asked, job.base.row_tokens, job.params.train.device)


def along(job: Job) -> trajectory.Trajectory:
    return followed(job, job.folder, job.folder.name)


def followed(job: Job, folder: Path, run: str) -> trajectory.Trajectory:
    """Of the training in `folder` the checkpoints whose weights were kept, from the parent to the model it made."""
    asked = job.params.assess
    assert asked.trajectory is not None
    models = {0: job.parent, **kept_models(folder / "train")}
    tests, out = job.folder / "assess" / "suite", folder / "trajectory"
    request, score = read(folder / "train" / "request.json", Request), scorer(job)
    each = asked.probe if asked.trajectory.probe else None
    rows, device, confidence = job.base.row_tokens, job.params.train.device, asked.confidence

    def scored(model: Path, part: Path, to: Path) -> harness.Scores:
        with as_model(model, request) as whole:
            return score(whole, part, to)

    def looked(model: Path) -> probe.Probe:
        assert each is not None
        with as_model(model, request) as whole:
            return probe.one(whole, tests, each, rows, device, confidence)

    return trajectory.follow(run, models, tests, out, asked.trajectory, scored, looked if each else None)


@contextmanager
def as_model(saved: Path, request: Request) -> Iterator[Path]:
    """What was kept of a run as a model: as it is, or for the while what an adapter makes of the parent. The parts of
    several ranks are put together for good, which takes a third of their room."""
    from ratoon.training import shards  # with torch: the page hears that a run began before that is loaded
    from ratoon.training.release import put_together

    if shards.has_parts(saved):
        yield put_together(request, saved, saved)
    elif any(saved.glob("model*.safetensors")):
        yield saved
    else:
        with TemporaryDirectory(prefix=".", dir=saved.parent) as folder:
            yield put_together(request, saved, Path(folder) / saved.name)


def kept_models(run: Path) -> dict[int, Path]:
    """step -> model, of a run that has ended: those whose weights are there."""
    result = read(run / "result.json", Result)
    models = {int(kept.name.removeprefix("step-")): kept for kept in (run / trajectory.KEPT).glob("step-*")}
    return models | ({result.steps: Path(result.model)} if Path(result.model).is_dir() else {})


def by_period(job: Job, candidate: Path) -> periods.Periods | None:
    found = history.load(job.layout.history(job.line), job.line)
    former = [row.started for row in found.chain(parent_row(job, found).name) if row.started]
    spans = periods.between(job.base.cutoff, former)
    models = {"base": path_of(job.base, job.layout.root), "parent": job.parent, "candidate": candidate}
    if not spans:
        return None
    out = job.folder / "periods"
    return periods.measure(places(job), spans, job.base.cutoff, models, out, job.params.assess, scorer(job))


@task(cache_policy=NO_CACHE)
def remember(job: Job, version: int | None, promoted: bool, run_id: str | None) -> None:
    """What the candidate became, in the history; its matrix beside the other records of the refresh."""
    folder = job.layout.history(job.line)
    found = history.load(folder, job.line)
    row = found.row(job.folder.name)
    if row is None:  # assess.history is off
        return
    label = f"v{version}" if version else "candidate"
    found = found.with_row(row.model_copy(update={"version": version, "label": label, "promoted": promoted}))
    history.save(folder, found)
    made = forgetting.matrix_of(folder, found, row.name, job.params.assess)
    write(job.folder / "matrix.json", made)
    with tracking.run(job.line, "history", kind="history", parent_run_id=run_id) as run:
        for group, figures in made.figures.items():
            run.metrics({f"{group}/{name}": value.value if value else None for name, value in figures.items()})
        run.artifact(job.folder / "matrix.json")


def scorer(job: Job) -> Score:
    """Under the settings by which the gate's models are scored."""
    recipe = job.params.train

    def score(model: Path, tests: Path, out: Path) -> harness.Scores:
        return harness.score(
            model,
            tests,
            out,
            row_tokens=job.base.row_tokens,
            device=recipe.device,
            precision="fp32" if recipe.precision == "fp32" else "bf16",
            threads=recipe.threads,
        )

    return score


def places(job: Job) -> dict[str, Place]:
    """Where each source and portion is held out; those that are watched too."""
    found = dict(of_sources(job.layout, job.sources, watched=False))
    return found | of_sources(job.layout, watched_sources(job), watched=True)


def watched_sources(job: Job) -> tuple[Source, ...]:
    return tuple(config.source(job.layout.root, name) for name in job.params.refresh.watch)


def of_sources(layout: Layout, sources: tuple[Source, ...], *, watched: bool) -> dict[str, Place]:
    return {
        share.name: Place(layout.clean(source.name) / share.folder, source.role, watched)
        for source in sources
        for share in shares(source, layout.clean(source.name))
    }
