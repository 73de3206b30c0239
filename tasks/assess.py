"""Candidate and parent on the same items."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ratoon import config
from ratoon.config import ConfigError
from ratoon.corpus.portions import shares
from ratoon.corpus.tokenizer import tokenizer_digest
from ratoon.evaluation import askable, flips, harness, prompts, replay, suite
from ratoon.evaluation.replay import Arm, Question
from ratoon.records import Refresh, Verdict, write_text
from ratoon.records import read as read_record
from ratoon.records import write as write_record
from ratoon.training.request import Result, ended
from tasks import tracking
from tasks.job import Job, latest_folder, question_answered
from tasks.live import stage
from tasks.retry import healing

LATER = "verdict-later.json"
Report = Callable[[int, int], None]


class Scored(NamedTuple):
    """Score folders by arm; and why there is none of the candidate, where it could not be scored."""

    folders: dict[str, Path]
    models: dict[str, Path]
    fault: str | None


@healing("score parent and candidate of {job.line}")
def score_both(job: Job, candidate: Path) -> Scored:
    """Build the suite from held-out text and score parent and candidate on it. Scores already there are kept.

    And the champion, where it is another model than those two: its users are who an answer flips for.
    """
    out = job.folder / "assess"
    build_suite(job)
    models = {"parent": job.parent, "candidate": candidate}
    champion = tracking.champion(job.line)
    if champion is not None and champion.path.resolve() not in (job.parent.resolve(), candidate.resolve()):
        models["champion"] = champion.path
    folders, fault = dict[str, Path](), None
    with stage("assess", "rows", None, job.line) as shown:
        for number, (name, model) in enumerate(models.items()):

            def report(done: int, total: int, name: str = name, number: int = number) -> None:
                shown.update(number * total + done, len(models) * total, note=name)

            try:
                score_one(job, model, out / "suite", out / name, report)
                folders[name] = out / name
            except ConfigError as error:
                # The parent was scored under the same settings: what is wrong is the candidate's, and a reason.
                if name != "candidate":
                    raise
                fault = str(error)
    return Scored(folders, models, fault)


def build_suite(job: Job) -> None:
    """What both will be asked, from held-out text. Raises ConfigError where a source has too little of it, an item
    cannot be asked of such a model, or one is pinned that is not there.

    A refresh does this before its sweep too: hours of training are a high price for learning that there is nothing
    to score.
    """
    benchmarks = [config.benchmark(job.layout.root, path.stem) for path in declared(job)]
    sources = {
        share.name: (s.role, job.layout.clean(s.name) / share.folder)
        for s in job.sources
        for share in shares(s, job.layout.clean(s.name))
    }
    out = job.folder / "assess" / "suite"
    suite.build(benchmarks, sources, job.params.assess, out, job.layout.root)
    askable.check_golden(job.params.promote.golden, out)
    askable.check(out, benchmarks, job.layout.root, job.parent, job.base.row_tokens)


def score_one(job: Job, model: Path, asked: Path, out: Path, report: Report) -> None:
    """Into `out`, on the suite `asked`, each benchmark in the prompt that suits the model."""
    recipe = job.params.train

    def score(tests: Path, into: Path) -> dict[str, float]:
        scores = harness.score(
            model,
            tests,
            into,
            row_tokens=job.base.row_tokens,
            device=recipe.device,
            precision="fp32" if recipe.precision == "fp32" else "bf16",
            threads=recipe.threads,
            report=report,
            runner=job.params.assess.runner,
            cache=job.layout.score_cache,
        )
        return {task.task: task.value for task in scores.tasks}

    score(prompts.settle(asked, out.parent / f"{out.name}-prompts", score), out)


def last_judged(job: Job) -> Job:
    """This job; where its text and parameters were answered by the last refresh, and it was promoted, that one's."""
    trained = (job.folder / "train" / "result.json").exists()
    if trained or not question_answered(job) or (last := latest_folder(job.layout, job.line)) is None:
        return job
    parent = Path(read_record(last / "refresh.json", Refresh).verdict.parent)
    return replace(job, folder=last, parent=parent, parent_version=None)


def candidate_of(job: Job) -> Path:
    """The model the training of this job left.

    Raises ConfigError where there is none: one that is gone says nothing of the candidate, and no verdict is due.
    """
    run = job.folder / "train"
    if not (run / "result.json").exists():
        raise ConfigError("nothing was trained for this text and these parameters yet; run `ratoon train` first")
    if (found := ended(run)) is None:
        raise ConfigError(
            f"{run}: the weights that were trained for this text and these parameters are gone (`ratoon gc` takes "
            f"those of versions that were not promoted)\n"
            f"  `ratoon gate {job.folder}` judges their scores again; `ratoon train` makes the weights anew"
        )
    return Path(found.model)


def declared(job: Job) -> list[Path]:
    return sorted((job.layout.root / "data" / "benchmarks").glob("*.yaml"))


def question(job: Job, scored: Scored) -> Question:
    """What the gate is told beside the scores."""
    arms = {name: Arm(model=str(model), tokenizer=tokenizer_of(model)) for name, model in scored.models.items()}
    result = read_record(job.folder / "train" / "result.json", Result)
    known = {"step": step_of(scored.models["candidate"]), "steps": result.steps, "fault": scored.fault}
    arms["candidate"] = arms["candidate"].model_copy(update=known)
    return Question(policy=job.params.promote, assess=job.params.assess, **arms)


def unscored(job: Job) -> str | None:
    """Why the candidate could not be scored: then the gate refuses it, and no more is asked of it."""
    kept = job.folder / "assess" / replay.QUESTION
    return read_record(kept, Question).candidate.fault if kept.exists() else None


def tokenizer_of(model: Path) -> str | None:
    try:
        return tokenizer_digest(model)
    except ConfigError:
        return None


def step_of(model: Path) -> int | None:
    """Where in its training a checkpoint was saved; None: the directory does not say, as one that was released."""
    progress = model / "state" / "progress.json"
    return json.loads(progress.read_text(encoding="utf-8"))["step"] if progress.exists() else None


def is_later(job: Job, parent_run: str | None) -> bool:
    """Whether a refresh has ended here, and none is under way."""
    return parent_run is None and (job.folder / "refresh.json").exists()


@healing("judge the candidate of {job.line}")
def judge(job: Job, scored: Scored, parent_run: str | None) -> Verdict:
    """The gate's verdict on the scores; it, what it was decided by and every item's score are kept with the run.

    One that comes after the refresh's own is written beside it: that one is what the registry and the page go by.
    """
    out, later = job.folder / "assess", job.folder / LATER
    written = later if is_later(job, parent_run) else job.folder / "verdict.json"
    later.unlink(missing_ok=True)
    write_record(out / replay.QUESTION, question(job, scored))
    verdict, listed = replay.decide(out)
    write_text(out / replay.LISTED, flips.lines(listed))
    write_record(written, verdict)
    with tracking.run(job.line, "assess", kind="assess", parent_run_id=parent_run) as run:
        run.params(job.params.assess)
        for s in job.sources:
            held_out = str(job.layout.clean(s.name).relative_to(job.layout.root))
            run.dataset(s.name, job.editions.get(held_out), held_out, context="evaluation", role=s.role)
        measured = {
            f"{item.benchmark}/{item.source}/{arm}": getattr(item, arm).value
            for item in verdict.comparisons
            for arm in ("parent", "candidate", "difference")
        }
        its = {name: value for name, value in measured.items() if name.endswith("/candidate")}
        run.metrics({name: value for name, value in measured.items() if name not in its})
        run.about(scored.models["candidate"], its)
        run.verdict(verdict)
        for folder in scored.folders.values():
            for file in sorted(folder.glob("*.parquet")):
                run.artifact(file, folder.name)
        for file in (out / replay.QUESTION, out / replay.LISTED, written):
            run.artifact(file)
    return verdict
