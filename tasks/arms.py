"""Cheaper ways to the same end, measured against a refresh that has ended. Nothing of the refresh is touched."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config, records
from ratoon.config import ArmsConfig, Ask, ConfigError, Params, TrainConfig
from ratoon.config.arms import FewShot, Retrieved, Seeded, Trained
from ratoon.corpus.portions import shares
from ratoon.evaluation import harness, suite
from ratoon.evaluation.arms import Arm, Arms, Cost, compare, digest_of, keep, standing
from ratoon.evaluation.contexts import Context, Library, Nothing
from ratoon.evaluation.harness import Scores
from ratoon.evaluation.prompted import Plan, Planner, Reader, Room, encode, form_of, room
from ratoon.evaluation.suite import Task
from ratoon.layout import Layout
from ratoon.lm.load import check_weights
from ratoon.records import Refresh
from ratoon.training.controls import SHARES, control, same_request
from ratoon.training.request import Request, Result
from ratoon.training.schedules import learning_rate
from tasks import tracking, versions
from tasks.assess import score_one
from tasks.job import Job, latest, resolve
from tasks.live import stage
from tasks.retry import healing
from tasks.room import room_for_run
from tasks.train import carry_out, chosen_share, request_of

RECORD = "arms.json"
VERSION = 2  # raise it when the same arm would be scored otherwise


@dataclass(frozen=True)
class Study:
    """A refresh that has ended, and the arms that are asked for."""

    job: Job
    refresh: Refresh
    asked: ArmsConfig

    @property
    def suite(self) -> Path:
        return self.job.folder / "assess" / "suite"

    @property
    def asked_of_parent(self) -> Path:
        """The same items in the prompts the parent chose."""
        picked = any(task.prompts for task in self.tasks)
        return self.scores("parent-prompts") / "suite" if picked else self.suite

    @property
    def candidate(self) -> Path:
        return Path(self.refresh.verdict.candidate)

    def scores(self, which: str) -> Path:
        return self.job.folder / "assess" / which

    def folder(self, name: str) -> Path:
        """By what is asked of the arm: parent, text and recipe are those of the refresh's own folder."""
        asked = getattr(self.asked, name)
        return self.job.folder / "arms" / f"{name}-{asked.digest()}"

    @property
    def ground(self) -> str:
        """Of what else its scores depend on; of other items or settings it is scored again, and not trained again."""
        found = records.read(self.scores("parent") / "scores.json", Scores)
        settings = found.settings.model_dump(mode="json")
        return digest_of({"parent": found.weights, "suite": found.suite, "settings": settings, "version": VERSION})

    def measured(self, name: str) -> Arm | None:
        path = self.folder(name) / "arm.json"
        arm = records.read(path, Arm) if path.exists() else None
        return arm if arm and arm.asked == self.ground else None

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in self.asked.asked if self.measured(name) is None)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return suite.load(self.suite).tasks

    @property
    def library(self) -> Library:
        """Text to show, on the tasks that can be asked with something in front."""
        editions: dict[str, list[Path]] = {}
        domain: list[str] = []
        for source in self.job.sources:
            clean = self.job.layout.clean(source.name)
            for share in shares(source, clean):
                editions[share.name] = [clean / share.folder]
                domain += [share.name] if source.role == "domain" else []
        tasks = tuple(task for task in self.tasks if form_of(task) != "other")
        return Library(editions, domain, self.suite, tasks)


def check_arms(job: Job) -> None:
    """Before a refresh that is to be held against arms: what is known to be wrong by then.

    An arm that is trained follows the recipe of its refresh, and none could be put right once that has ended.
    """
    check_shown(job, job.params.arms)
    for name in job.params.arms.asked:
        asked = getattr(job.params.arms, name)
        if isinstance(asked, Trained):
            target = request_of(job, SHARES.get(name, 0.5))  # no share changes what is looked at here
            if name == "second_seed":
                control(name, asked, target, job.params.train, job.folder)
            check_steps(name, asked, target, job.params.train)


def check_shown(job: Job, arms: ArmsConfig) -> None:
    """Whether the parent has room for what it is to be shown. Raises ConfigError where it has not."""
    for name in arms.asked:
        asked = getattr(arms, name)
        if isinstance(asked, FewShot | Retrieved):
            room(job.parent, job.base.row_tokens, asked.tokens, name)


def check_steps(name: str, asked: Trained, target: Request, recipe: TrainConfig) -> None:
    """Whether a run of the arm's own length has room for the schedule. Raises ConfigError where it has not."""
    if asked.tokens == "same":
        return
    used = recipe if name == "scratch" and target.trunk else target.recipe  # random weights have no trunk to go on from
    steps = asked.tokens // target.step_tokens
    where = f"params.yaml: arms.{name}.tokens: {asked.tokens:,}"
    if not steps:
        raise ConfigError(f"{where}: less than one step of {target.step_tokens:,} tokens; give more, or `same`")
    try:
        learning_rate(used.schedule, used.learning_rate, steps, target.step_tokens)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: steps of {target.step_tokens:,} tokens: {steps}, and the arm follows the refresh's own recipe; "
            f"give more, or `same`\n  {error}"
        ) from error


@task(cache_policy=NO_CACHE)
def open_study(root: Path, ask: Ask, names: tuple[str, ...]) -> Study:
    """Of the arms of these names, or those asked for. Raises ConfigError where there is none, or a model is gone."""
    now, *_ = resolve(root, ask)
    study = study_of(root, ask, now, now.arms.only(names), "its arms")
    if not (study.candidate / "config.json").exists():
        raise ConfigError(
            f"{study.refresh.name}: the weights of its candidate, which arms are held against, are not at "
            f"{study.candidate} any more; `ratoon gc` takes those of a version that was not promoted\n"
            f"  with that refresh's text and parameters `ratoon train` makes them again"
        )
    check_weights(study.candidate)
    check_shown(study.job, study.asked)  # before the first is measured: it may take hours
    return study


def study_of(root: Path, ask: Ask, now: Params, asked: ArmsConfig, what: str) -> Study:
    """The last refresh of the line as a job again: its parameters, text and parent, not those of today.

    Raises ConfigError where nothing has ended yet, or the text that `what` would be trained on or the parent is gone.
    """
    layout = Layout(root)
    refresh = latest(layout, now.refresh.line)
    if refresh is None:
        raise ConfigError(f"no refresh of {now.refresh.line} has come to a verdict yet; run `ratoon refresh`")
    params = config.parse(Params, {**refresh.params, "arms": {}}, "refresh.json: params")
    pointer = json.loads(layout.latest(now.refresh.line).read_text(encoding="utf-8"))
    hashes = versions.hashes(root)
    changed = sorted(path for path, md5 in refresh.lineage.editions.items() if hashes.get(path) != md5)
    if changed:
        raise ConfigError(
            f"{changed[0]}: the text has changed since {refresh.name}, and {what} would be trained on another; "
            f"run `ratoon refresh` first, or bring that text and its config back: `ratoon restore "
            f"{refresh.version or 'VERSION'} --into .` (with --force where the present ones are kept nowhere else)"
        )
    job = Job(
        layout=layout,
        ask=ask,
        params=params,
        base=config.base(root, params.refresh.base),
        sources=tuple(config.source(root, name) for name in params.refresh.sources),
        parent=Path(refresh.verdict.parent),
        parent_version=None,
        editions=refresh.lineage.editions,
        folder=layout.refreshes(now.refresh.line) / pointer["folder"],
    )
    check_weights(job.parent)
    return Study(job, refresh, asked)


@healing("arm {name} of {study.job.line}")
def measure(study: Study, name: str, parent_run: str | None) -> Arm:
    """One arm, scored and kept. One that is there is read back; one that was killed goes on where it was."""
    if (found := study.measured(name)) is not None:
        return found
    asked, folder = getattr(study.asked, name), study.folder(name)
    with tracking.run(study.job.line, name, kind="arm", parent_run_id=parent_run) as run:
        run.params({"arm": name, **asked.model_dump(mode="json")})
        arm = (
            ask_shown(study, name, asked, folder)
            if isinstance(asked, FewShot | Retrieved)
            else train_and_ask(study, name, asked, folder, run.id)
        )
        records.write(folder / "arm.json", arm)
        run.metrics({f"cost/{key}": value for key, value in arm.cost.model_dump().items()})
        for item in arm.comparisons:
            for key in ("parent", "candidate", "difference"):
                said = "arm" if key == "parent" else key
                run.metrics({f"{item.benchmark}/{item.source}/{said}": getattr(item, key).value})
        for file in sorted((folder / "scores").glob("*.parquet")):
            run.artifact(file, "scores")
        run.tags({"standing": arm.standing})
    return arm


# ---------------------------------------------------------------- the parent, shown something


def ask_shown(study: Study, name: str, asked: FewShot | Retrieved, folder: Path) -> Arm:
    job, library, begun = study.job, study.library, time.monotonic()
    reader = reader_of(study, job.parent)
    place = room(job.parent, job.base.row_tokens, asked.tokens, name)

    def words(text: str) -> list[int]:
        return encode(reader.tokenizer, [text])[0]

    context: Context = (
        library.nearest(asked, place.shown, words)
        if isinstance(asked, Retrieved)
        else library.drawn(asked, place.shown, words)
    )
    plan = Planner(reader.tokenizer, context, place).plan(study.asked_of_parent, library.tasks)
    with stage("arms", "rows", len(plan.every), job.line) as shown, harness.at_most(job.params.train.threads):
        logliks = reader.logliks(plan.of(library.tasks), lambda done, total: shown.update(done, total, note=name))
    keep(plan, logliks, library.tasks, study.scores("parent"), folder / "scores")
    cost = reading(study, reader, plan).model_copy(update={"scoring_seconds": time.monotonic() - begun})
    return arm_of(study, name, job.parent, cost, folder).model_copy(update={"told": plan.told})


def reader_of(study: Study, model: Path) -> Reader:
    recipe = study.job.params.train
    return Reader(model, device=recipe.device, precision="fp32" if recipe.precision == "fp32" else "bf16")


def plain(study: Study, reader: Reader) -> Plan:
    """What a model reads that is shown nothing."""
    place = Room(study.job.base.row_tokens, study.job.base.row_tokens, 0)
    return Planner(reader.tokenizer, Nothing(), place).plan(study.suite, study.library.tasks)


def reading(study: Study, reader: Reader, plan: Plan) -> Cost:
    """Of the held-out texts: what a model reads there, it reads wherever it is used."""
    texts = [task for task in study.library.tasks if form_of(task) == "rolling"]
    return Cost(reading_flops=reader.cost(plan.of(texts)), reading_bytes=study.library.num_bytes(texts))


# ---------------------------------------------------------------- a model trained otherwise


def train_and_ask(study: Study, name: str, asked: Trained, folder: Path, run_id: str) -> Arm:
    job, recipe = study.job, study.job.params.train
    target = request_of(job, SHARES.get(name, chosen_share(job)))
    check_steps(name, asked, target, recipe)
    request = control(name, asked, target, recipe, folder)
    twin = same_request(request, [job.folder / "train", *sorted(job.folder.glob("arms/*/train"))])
    if twin is None:
        room_for_run(job, folder, name)
        result, _ = carry_out(job, request, f"{name} {request.domain_share:.0%}", run_id)
    else:
        result = records.read(twin / "result.json", Result)
    begun = time.monotonic()
    with stage("arms", "rows", None, job.line) as shown:
        # As the candidate was: in its own prompts, by the same runner.
        score_one(
            job,
            Path(result.model),
            study.suite,
            folder / "scores",
            lambda done, total: shown.update(done, total, note=name),
        )
    seconds = time.monotonic() - begun
    reader = reader_of(study, Path(result.model))
    cost = reading(study, reader, plain(study, reader)).model_copy(update={"scoring_seconds": seconds})
    arm = arm_of(study, name, Path(result.model), trained(cost, reader, request, result), folder)
    return arm.model_copy(update={"notes": notes_of(name, asked, request, twin)})


def trained(cost: Cost, reader: Reader, request: Request, result: Result) -> Cost:
    spent = float(reader.flops.training(request.row_tokens)) * result.tokens
    return cost.model_copy(
        update={"training_tokens": result.tokens, "training_flops": spent, "training_seconds": result.seconds}
    )


def notes_of(name: str, asked: Trained, request: Request, twin: Path | None) -> tuple[str, ...]:
    found = []
    if name in ("scratch", "second_seed") and isinstance(asked, Seeded):
        found.append(f"seed {asked.seed}")
    if twin is not None and str(twin) != request.out:
        own = twin.name == "train" and twin.parent.parent.name != "arms"
        found.append(f"the same request as {'the candidate' if own else twin.parent.name}: not trained again")
    return tuple(found)


# ---------------------------------------------------------------- together


def arm_of(study: Study, name: str, model: Path, cost: Cost, folder: Path) -> Arm:
    comparisons = compare(folder / "scores", study.scores("candidate"), study.suite, study.job.params.assess)
    return Arm(
        name=name,
        asked=study.ground,
        model=str(model),
        cost=cost,
        comparisons=comparisons,
        standing=standing(comparisons),
    )


@task(cache_policy=NO_CACHE)
def conclude_arms(study: Study, measured: list[Arm]) -> Arms:
    """The record of them all, beside that of the refresh. Arms measured before on the same items stay in it."""
    job = study.job
    path = job.folder / RECORD
    before = records.read(path, Arms).arms if path.exists() else ()
    former = {arm.name: arm for arm in before if arm.asked == study.ground}
    now = former | {arm.name: arm for arm in measured}
    result = records.read(job.folder / "train" / "result.json", Result)
    request = records.read(job.folder / "train" / "request.json", Request)
    reader = reader_of(study, study.candidate)
    parent = reader_of(study, job.parent)
    found = Arms(
        refresh=study.refresh.name,
        line=job.line,
        parent=str(job.parent),
        candidate=str(study.candidate),
        cost=trained(reading(study, reader, plain(study, reader)), reader, request, result),
        parent_cost=reading(study, parent, plain(study, parent)),
        against_parent=study.refresh.verdict.comparisons,
        arms=tuple(now[name] for name in ArmsConfig.model_fields if name in now),
    )
    records.write(path, found)
    return found
