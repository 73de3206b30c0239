"""Runs: what was asked, read, measured and made. An outage stops none of them and loses no metric."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ratoon.config import ConfigError, Role
from ratoon.records import Verdict
from tasks import owner, reach
from tasks.reach import TrackingUnavailable, shown
from tasks.tracking import models, spool
from tasks.tracking.connection import LONGEST_PARAM, LONGEST_TAG, ask, store
from tasks.tracking.experiments import TRAINING, experiment_of, page
from tasks.tracking.naming import SAID, flat, noted, telling
from tasks.tracking.spool import Metrics, Outbox, milliseconds, points_of


class Run:
    """An open run. Metrics and tags are written down at once and sent by a thread; the rest waits for its answer."""

    def __init__(self, run_id: str, line: str) -> None:
        self.id = run_id
        self.line = line
        self.outbox = Outbox(run_id)
        self._newest: dict[str, tuple[int, float]] = {}  # name -> step and value

    def params(self, values: BaseModel | Mapping[str, Any]) -> None:
        """What was asked for; sections become dotted names. Of a whole record what tells, and all of it as a file."""
        if isinstance(values, BaseModel):
            ask("log_dict", self.id, values.model_dump(mode="json"), "params.json")
            values = telling(values)
        log_params(self.id, values)

    def metrics(self, values: Metrics, step: int = 0, tokens: int | None = None, at: float | None = None) -> None:
        """At a step, measured at the time `at` (None: now). None is not measured, and is left out.

        tokens   becomes a metric of its own: a chart may have it as its axis
        """
        found = {key: float(value) for key, value in {**values, "tokens": tokens}.items() if value is not None}
        # A step's tokens come with its training line and its evaluation; an axis of the page wants them once.
        fresh = {key: value for key, value in found.items() if self._newest.get(key) != (step, value)}
        self._newest |= {key: (step, value) for key, value in fresh.items()}
        if fresh:
            self.outbox.add({"metrics": points_of(fresh, step, milliseconds(at))})

    def flush(self) -> None:
        """Write what waits. Raises TrackingUnavailable, and keeps it, if the store does not answer."""
        self.outbox.send()

    def tags(self, values: Mapping[str, Any]) -> None:
        self.outbox.add({"tags": {key: str(value)[:LONGEST_TAG] for key, value in values.items()}})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file or a folder, copied beside the run."""
        if not path.exists():
            raise ConfigError(f"{path}: not found, so it cannot be kept with run {self.id}")
        method = "log_artifacts" if path.is_dir() else "log_artifact"
        ask(method, self.id, str(path), folder)

    def html(self, page: str, name: str = "report.html") -> None:
        """A page, shown by MLflow under Artifacts."""
        ask("log_text", self.id, page, name)

    def note(self, markdown: str) -> None:
        """The description on the run's page."""
        self.tags({"mlflow.note.content": markdown})

    def dataset(
        self, name: str, digest: str | None, path: str, *, context: str = "training", role: Role | None = None
    ) -> None:
        """What was read: `digest` is DVC's hash, `path` relative to the project, `context` training or evaluation."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": path})
        # MLflow keeps 36 characters: an md5 with DVC's ".dir" just fits. Unknown is said, not made up.
        data = Dataset(name=name, digest=(digest or "unknown")[:36], source_type="local", source=source)
        tags = [InputTag("mlflow.data.context", context), InputTag("dvc", digest or "unknown")]
        tags += [InputTag("role", role)] if role else []
        ask("log_inputs", self.id, datasets=[DatasetInput(data, tags)])
        self.tags({f"dvc.md5.{path}": digest or "unknown"})

    def checkpoint(self, model: Path, step: int, metrics: Metrics, params: Mapping[str, Any]) -> str:
        """A logged model of MLflow's: what was measured at that step, and where it lies. Its id."""
        return models.log_checkpoint(self.id, self.line, model, step, metrics, params)

    def about(self, model: Path, metrics: Metrics) -> None:
        """Measured of a checkpoint after its training: of this run, and shown with the checkpoint where it is known."""
        logged = models.logged_model(self.line, model)
        if logged is None:
            self.metrics(metrics)
        else:
            models.attach(self.id, logged, metrics)

    def finish(self, tokens_per_second: float, model: Path) -> None:
        """What a training left: its rate over the whole run, and where its weights are."""
        self.metrics({"train/mean_tokens_per_second": tokens_per_second})
        self.tags({"model": str(model)})

    def verdict(self, verdict: Verdict, version: int | None = None) -> None:
        said = SAID[verdict.decision]
        self.tags({"verdict": said, "reasons": "\n".join(verdict.reasons)} | ({"version": version} if version else {}))
        self.note(f"**{said}**\n\n" + "\n".join(f"- {reason}" for reason in verdict.reasons))


def log_params(run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    given = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in flat(values)]
    for begin in range(0, len(given), 100):
        ask("log_batch", run_id, params=given[begin : begin + 100])


# ---------------------------------------------------------------- begin and end


@contextmanager
def run(
    line: str,
    name: str,
    *,
    kind: str,
    parent_run_id: str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """A run of `kind` (refresh, sweep, train, assess) in the experiment of the model line, ended with the block.

    A block that fails leaves a failed run with its message. Raises TrackingUnavailable if the store does not answer
    when a run begins; when it ends, what could not be sent is kept for the next run.
    """
    opened = Run(create(experiment_of(line), name, kind, parent_run_id, tags), line)
    try:
        send_left()
        if params:
            opened.params(params)
        yield opened
        end(opened, "FINISHED")
    except BaseException as error:
        _end_failed(opened, error)
        raise
    finally:
        opened.outbox.close()


def create(experiment: str, name: str, kind: str, parent_run_id: str | None, tags: Mapping[str, Any] | None) -> str:
    known = {"ratoon.kind": kind, "mlflow.source.name": "ratoon", "mlflow.source.type": "LOCAL", **owner.tag()}
    if said := noted(kind):
        known["mlflow.note.content"] = said
    if parent_run_id:
        known["mlflow.parentRunId"] = parent_run_id
    given = {key: str(value)[:LONGEST_TAG] for key, value in (tags or {}).items()}
    made = ask("create_run", experiment, run_name=name, tags={**known, **given})
    return str(made.info.run_id)


def end(opened: Run, status: str) -> None:
    """Everything, then the status. A store that is away does not undo the work: what waits is kept in a file."""
    box = opened.outbox
    box.add({"end": status, "at": milliseconds()}, later=False)
    try:
        box.send()
    except TrackingUnavailable:
        if box.path is None:
            raise
        points = sum(len(record.get("metrics", ())) for record in box.waiting)
        spool.said.warning(
            "MLflow at %s does not answer; %d metrics of run %s are kept in %s for the next run or `ratoon sync`",
            *(shown(store()), points, opened.id, box.path),
        )


def send_left() -> None:
    """What earlier runs could not send. A store that is away again is no reason not to begin."""
    try:
        left = spool.recover()
    except TrackingUnavailable:
        return
    if left.points:
        spool.said.warning("MLflow took %d metrics of %d earlier runs that were kept for it", left.points, left.runs)


def _end_failed(opened: Run, error: BaseException) -> None:
    """The reason of a failure is worth more than its record: what goes wrong here must not hide it."""
    status = "FAILED" if isinstance(error, Exception) else "KILLED"
    box = opened.outbox
    last: list[spool.Record] = [{"tags": {"error": str(error)[:LONGEST_TAG]}}, {"end": status, "at": milliseconds()}]
    try:
        box.last(last)
    except Exception as unsaid:
        kept = f"; it is kept in {box.path} for the next run" if box.path else ""
        error.add_note(f"run {opened.id} could not be marked as failed in MLflow{kept}: {shown(str(unsaid))}")


def log_run(
    name: str,
    *,
    line: str,
    parent_run_id: str | None,
    params: Mapping[str, Any],
    metrics_by_step: Mapping[int, Metrics],
    tags: Mapping[str, Any] | None = None,
) -> str:
    """A finished run in a few requests; its kind is `proxy` unless the tag ratoon.kind says otherwise. Its id."""
    return write_runs(line, parent_run_id, [(name, params, metrics_by_step)], tags)[0]


def write_runs(
    line: str,
    parent_run_id: str | None,
    runs: Sequence[tuple[str, Mapping[str, Any], Mapping[int, Metrics]]],
    tags: Mapping[str, Any] | None = None,
) -> list[str]:
    """Finished runs, each (name, parameters, metrics by step), in three requests each. Their ids."""
    from mlflow.entities import Metric, Param

    experiment, written = experiment_of(line), []
    for name, params, metrics_by_step in runs:
        run_id = create(experiment, name, "proxy", parent_run_id, tags)
        now = milliseconds(time.time())
        points = [Metric(*point) for step, at in sorted(metrics_by_step.items()) for point in points_of(at, step, now)]
        given = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in flat(params)]
        for begin in range(0, max(len(points), 1), spool.BATCH):
            ask("log_batch", run_id, points[begin : begin + spool.BATCH], params=given if begin == 0 else ())
        ask("set_terminated", run_id, "FINISHED")
        written.append(run_id)
    return written


def link(run_id: str) -> str | None:
    """The run's page, where MLflow is a server; None for a file."""
    if not reach.served(store()):
        return None
    experiment = ask("get_run", run_id).info.experiment_id
    return page(f"/experiments/{experiment}/runs/{run_id}?{TRAINING}")
