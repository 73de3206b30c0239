"""The target run."""

from functools import partial
from pathlib import Path

from ratoon import records
from ratoon.config import ConfigError, Schedule, TrainConfig
from ratoon.evaluation.trajectory import CHECKPOINTS, KEPT, keep_weights
from ratoon.records import Choice
from ratoon.report import wording
from ratoon.training.disk import discard
from ratoon.training.request import Request, Result, Trunk, ended
from ratoon.training.supervise import supervise
from ratoon.training.sweep import portions
from ratoon.training.trunk import go_on, trunk_of
from tasks import tracking
from tasks.job import Job
from tasks.live import stage
from tasks.names import named
from tasks.retry import healing
from tasks.sampling import Sampler


def request_of(job: Job, share: float) -> Request:
    recipe, trunk = recipe_of(job)
    return Request(
        name=job.folder.name,
        label=job.base.name,
        model=str(job.parent),
        portions=portions(job.corpora, share, job.params.train.mixture.temperature),
        recipe=recipe,
        trunk=trunk,
        out=str(job.folder / "train"),
        **job.common,
    )


def recipe_of(job: Job) -> tuple[TrainConfig, Trunk | None]:
    """That of params.yaml: at the rate and schedule its sweep chose, or on from the trunk the parent's run kept."""
    recipe, kept = job.params.train, job.folder / "choice.json"
    if (trunk := parent_trunk(job, job.parent)) is not None:
        return go_on(recipe, trunk), trunk
    if not kept.exists():
        return recipe, None
    choice = records.read(kept, Choice)
    schedule = None if choice.schedule is None else Schedule.model_validate(choice.schedule)
    chosen = {"learning_rate": choice.learning_rate, "schedule": schedule}
    return recipe.model_copy(update={key: value for key, value in chosen.items() if value is not None}), None


def parent_trunk(job: Job, model: Path) -> Trunk | None:
    """The trunk to continue in place of `model`; None: it is not asked for, or the run of `model` kept none."""
    return trunk_of(model) if job.params.train.trunk == "continue" else None


def chosen_share(job: Job) -> float:
    """The ratio the sweep of this job chose; without a sweep, the one asked for."""
    if (job.folder / "choice.json").exists():
        return records.read(job.folder / "choice.json", Choice).share
    if job.params.choose.ratio is not None:
        return job.params.choose.ratio
    raise ConfigError("no ratio was chosen for this text and these parameters; run `ratoon sweep`, or pass --ratio")


@healing(named(lambda given: run_words(given["job"], given["share"])))
def train_target(job: Job, share: float, parent_run: str | None) -> tuple[Result, str]:
    """Train in a process of its own and forward its metrics. A retry resumes from the last checkpoint."""
    return carry_out(job, request_of(job, share), f"train {share:.0%}", parent_run)


def run_words(job: Job, share: float) -> str:
    """What a run of the page is called: line, share, tokens, and what is continued."""
    parent = f"version {job.parent_version}" if job.parent_version else job.base.name
    return f"train {job.line} at {wording.share(share)}, {wording.compact(job.params.train.tokens)} tokens, on {parent}"


def carry_out(job: Job, request: Request, name: str, parent_run: str | None) -> tuple[Result, str]:
    """A training request, and its MLflow run. One that ended is read back, or made again where its weights are gone."""
    out = Path(request.out)
    clear(out)
    with (
        tracking.run(job.line, name, kind="train", parent_run_id=parent_run) as run,
        stage(name.split()[0], "tokens", request.steps * request.step_tokens, job.line) as shown,
    ):
        run.params(request)
        sampler = Sampler(out / "pid")
        keep = partial(keep_weights, out / CHECKPOINTS, out / KEPT) if job.params.assess.trajectory else lambda: None
        for source, portion in request.portions.items():
            path = str(Path(portion.rows).relative_to(job.layout.root))
            context = "training" if portion.share else "evaluation"
            run.dataset(source, job.edition_of(Path(path)), path, context=context, role=portion.role)

        def on_line(line: dict) -> None:
            loss = line["metrics"].get("train/loss_nats")
            shown.update(line["tokens"], note="" if loss is None else f"loss {loss:.3f}")
            measured = {**line["metrics"], **sampler.sample()}
            run.metrics(measured, step=line["step"], tokens=line["tokens"], at=line.get("time"))
            keep()

        supervise("run", request, out, on_line=on_line)
        keep()
        result = records.read(out / "result.json", Result)
        log_checkpoints(run, request, result, out / CHECKPOINTS)
        run.finish(result.tokens_per_second, Path(result.model))
        return result, run.id


def clear(run: Path) -> None:
    """Of a run that ended and whose weights are gone nothing stays: what it left says that it need not be made.

    Raises ConfigError where they are in `run`, and its record has another place for them: then they are not gone.
    """
    if not (run / "result.json").exists() or ended(run) is not None:
        return
    model = Path(records.read(run / "result.json", Result).model)
    if found := next((at for at in (run / Path(*model.parts[-2:]), run / model.name) if at.is_dir()), None):
        raise ConfigError(
            f"{found}: these weights are recorded as {model}; was the project's folder moved?\n"
            f"  move it back, or make a backup there and restore it here (`ratoon backup`); nothing was touched"
        )
    discard(run)


def log_checkpoints(run: tracking.Run, request: Request, result: Result, folder: Path) -> None:
    """Those that are kept, each with the held-out losses measured at its step."""
    recipe = request.recipe
    params = {"domain_share": request.domain_share, "tokens": recipe.tokens, "learning_rate": recipe.learning_rate}
    for model in sorted({*folder.glob("step-*"), Path(result.model)}):
        step = step_of(model)
        at = [item for item in result.observations if item.step == step]
        # Not the name of the curve: there each step has one point.
        losses = {f"checkpoint/{item.evaluated}/loss_nats": item.loss_nats for item in at}
        run.checkpoint(model, result.steps if step is None else step, losses, params)


def step_of(model: Path) -> int | None:
    """By its name; None: it is no checkpoint."""
    number = model.name.removeprefix("step-")
    return int(number) if number.isdigit() else None
