"""prepare, sweep, choose, train, assess, promote or refuse, and the arms asked for: what ratoon exists for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow
from prefect.states import Cancelled, Completed, State

from flows.arms import arms
from flows.assess import assess
from flows.prepare import prepare
from flows.sweep import sweep
from flows.train import train
from ratoon.config import Ask
from ratoon.records import Refresh, read
from tasks import announce, tracking
from tasks.arms import check_arms
from tasks.assess import build_suite
from tasks.catch_up import given_way
from tasks.concluding import Begun, begin, cut_short, end, registered, verdict_in
from tasks.declared import FLOW, left_for_later
from tasks.history import look_back, look_closer, remember
from tasks.intact import check_intact
from tasks.job import Job, alone, latest_folder, question_answered
from tasks.live import warn
from tasks.origin import benchmarks_since, keep_origin, record_pointers
from tasks.orphans import crash
from tasks.prepare import open_job
from tasks.promote import conclude, headline, link_of, register
from tasks.room import check_sweep, check_train
from tasks.texts import BeingRead
from tasks.zombies import bury

DEFAULT = Ask()


@flow(name="refresh", **FLOW)
def refresh(ask: Ask = DEFAULT) -> State:
    """One whole refresh. Ends Completed with "nothing new" where text and parameters are those of the last one.
    One of the same text and parameters that was cut short after its verdict is ended in place of another.

    Where a run under way reads a source that has new text, a deployment ends Cancelled, as prepare does.
    """
    from tasks.estimate import check_budget  # with torch: the page hears that a run began before that is loaded

    if why := given_way():
        return Cancelled(message=why)
    started, seconds = datetime.now(UTC), dict[str, float]()
    with timed(seconds, "prepare"):
        try:
            prepare(ask)
        except BeingRead as error:
            return left_for_later(error)
        job = open_job(Path.cwd(), ask)
    begun = cut_short(job)
    if begun is not None:
        job, started = begun.reopened(job), begun.started
        warn("the last refresh was cut short after its verdict: it is recorded now, and nothing is trained for it")
    elif question_answered(job) and not ask.force and (last := latest_folder(job.layout, job.line)):
        return Completed(message=nothing_new(job, last))
    else:
        check_budget(job)  # before the sweep too: what cannot end is not worth one
        check_sweep(job)
        check_train(job)
        check_arms(job)
        check_intact(job)
        keep_origin(job)
    bury()
    crash(job.layout.root)
    with alone(job), tracking.run(job.line, f"refresh {started:%Y-%m-%d %H:%M}", kind="refresh") as run:
        tracking.lay_out(job.line, {name: corpus.role for name, corpus in job.corpora.items()})
        run.params(job.params)
        done = settle(job, begun or judged(job, ask, started, seconds, run.id), run)
    announce.verdict(done, link_of(done, job.folder / "report.html"))
    if job.params.arms.asked and done.verdict.comparisons:  # none: what could not be scored is held against nothing
        measure_arms(ask, run.id)
    said = tracking.SAID[done.verdict.decision]
    return Completed(message=f"{job.line} version {done.version} {said}: {done.verdict.reasons[0]}")


def judged(job: Job, ask: Ask, started: datetime, seconds: dict[str, float], run_id: str) -> Begun:
    """All up to the verdict."""
    build_suite(job)
    with timed(seconds, "sweep"):
        sweep(ask, run_id)
    with timed(seconds, "train"):
        trained = train(ask, run_id)
    with timed(seconds, "assess"):
        assess(ask, run_id)
        look_back(job, Path(trained["model"]), started.isoformat(timespec="seconds"))
        look_closer(job, Path(trained["model"]))
    return begin(job, started, seconds, trained["run"])


def settle(job: Job, begun: Begun, run: tracking.Run) -> Refresh:
    """What the verdict asks for, and the record. Cut short, the next refresh does it again, and it is done once."""
    verdict = verdict_in(job.folder)
    version = begun.version or register(job, verdict, begun.train_run)
    begun = registered(job, begun, version)
    remember(job, version, verdict.promoted, run.id)
    runs = {"refresh": run.id, "train": begun.train_run}
    record_pointers(job, version)
    done = conclude(job, started=begun.started, seconds=begun.seconds, runs=runs, version=version)
    run.artifact(job.folder / "report.html")
    run.artifact(job.folder / "refresh.json")
    run.artifact(job.folder / "model-card.md")
    run.metrics(headline(done))
    run.verdict(done.verdict, version)
    end(job)
    return done


def measure_arms(ask: Ask, parent_run: str) -> None:
    """The refresh has come to its verdict: what becomes of an arm is told, and changes nothing of it."""
    state: State = arms(ask, parent_run=parent_run, return_state=True)
    if not state.is_completed():
        why = state.result(raise_on_failure=False)
        warn(f"the verdict stands, and not all arms were measured; `ratoon arms` goes on with them: {why}")


def nothing_new(job: Job, last: Path) -> str:
    said = f"nothing new for {job.line} since {read(last / 'refresh.json', Refresh).name}: same text, same parameters"
    if not (changed := benchmarks_since(job.layout, last)):
        return said
    # Forced after a promotion, a refresh continues the champion on the text it was made of.
    how = "`ratoon refresh --force` judges" if job.folder == last else "`ratoon assess` scores"
    files = ", ".join(changed)
    return (
        f"{said}\n  {files}: new or changed since, and asked of no model; {how} the same candidate, and trains nothing"
    )


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - begun, 1)
