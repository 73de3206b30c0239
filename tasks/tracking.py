"""The one door to MLflow: what was measured, and which model came of what.

Runs of one model line share an experiment of its name: refresh > sweep > proxy runs; train; assess. The registry
holds pointers: weights stay where training left them, and a version says where, with the digest of each file.
`champion` is the version in use, `previous` the one before, `challenger` one that waits for a person; a move is written
into a tag before the alias moves.
"""

import difflib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ratoon.config import ConfigError, Role
from ratoon.records import Decision, Observation, Verdict
from tasks import reach
from tasks.reach import TrackingUnavailable, patiently, shown

__all__ = ["Run", "TrackingUnavailable", "Version", "champion", "promote", "register", "rollback", "run"]

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
SAID: dict[Decision, str] = {"promote": "promoted", "refuse": "refused", "ask": "asks"}
CARD = "README.md"  # in a model's directory
BATCH = 900  # MLflow takes 1000 metrics, parameters and tags in one request
FLUSH_SECONDS = 2.0
PAUSE_SECONDS = 15.0  # between looks at a store that did not answer while a run went on
LONGEST_PARAM, LONGEST_TAG = 6000, 5000
Metrics = Mapping[str, float | None]


# ---------------------------------------------------------------- the store


def store() -> str:
    """Where MLflow writes, as tasks.environment or a person has set it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigError("MLFLOW_TRACKING_URI is not set; call tasks.environment.apply(root) before tracking anything")
    return uri


def client() -> Any:
    """MLflow's client of the store, looked for once. Raises TrackingUnavailable within seconds if none answers."""
    return _client(store())


@lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    with reach.opened(uri):
        import logging

        from mlflow import MlflowClient

        # Making the tables of a new store is no news to anyone.
        for name in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        found = MlflowClient(tracking_uri=uri, registry_uri=uri)
        patiently(uri, found.search_experiments, max_results=1)
    return found


def _ask(method: str, *args: Any, **kwargs: Any) -> Any:
    """One call of the client; a store that is away for a moment is asked again."""
    return patiently(store(), getattr(client(), method), *args, **kwargs)


def _or_none(method: str, *args: Any) -> Any:
    """The same where not being there is an answer."""
    from mlflow.exceptions import MlflowException

    try:
        return _ask(method, *args)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "not found" in str(error):
            return None
        raise


def _experiment(line: str) -> str:
    from mlflow.exceptions import MlflowException

    found = _ask("get_experiment_by_name", line)
    if found is None:
        try:
            # Without a kind the page opens on its views for agents and traces.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return _ask("create_experiment", line, artifact_location=reach.artifacts(store()), tags=kind)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = _ask("get_experiment_by_name", line)  # another run made it in the meantime
    if found.lifecycle_stage == "deleted":
        raise ConfigError(
            f"MLflow at {shown(store())}: experiment {line!r} was deleted; "
            f"`mlflow experiments restore -x {found.experiment_id}` brings it back, or name another refresh.model"
        )
    return found.experiment_id


# ---------------------------------------------------------------- runs


class Run:
    """An open run. Metrics gather here and are written every two seconds; an outage meanwhile loses none of them."""

    def __init__(self, run_id: str, line: str) -> None:
        self.id = run_id
        self.line = line
        self._waiting: list[Any] = []
        self._next_flush = time.monotonic() + FLUSH_SECONDS

    def params(self, values: Mapping[str, Any]) -> None:
        """What was asked for; sections become dotted names."""
        from mlflow.entities import Param

        flat = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in _flat(values)]
        for begin in range(0, len(flat), 100):
            _ask("log_batch", self.id, params=flat[begin : begin + 100])

    def metrics(self, values: Metrics, step: int = 0, tokens: int | None = None) -> None:
        """At a step. None is not measured, and is left out. A store that is away does not stop the work."""
        now = int(time.time() * 1000)
        self._waiting += _points({**values, "tokens": tokens}, step, now)
        if time.monotonic() >= self._next_flush:
            try:
                self.flush(patient=False)
                self._next_flush = time.monotonic() + FLUSH_SECONDS
            except TrackingUnavailable:
                self._next_flush = time.monotonic() + PAUSE_SECONDS

    def flush(self, *, patient: bool = True) -> None:
        """Write what waits. Raises TrackingUnavailable, and keeps it, if the store does not answer."""
        while self._waiting:
            batch = self._waiting[:BATCH]
            waits = reach.WAITS_SECONDS if patient else ()
            patiently(store(), client().log_batch, self.id, metrics=batch, waits=waits)
            del self._waiting[: len(batch)]

    def tags(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            _ask("set_tag", self.id, key, str(value)[:LONGEST_TAG])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file or a folder, copied beside the run."""
        if not path.exists():
            raise ConfigError(f"{path}: not found, so it cannot be kept with run {self.id}")
        method = "log_artifacts" if path.is_dir() else "log_artifact"
        _ask(method, self.id, str(path), folder)

    def html(self, page: str, name: str = "report.html") -> None:
        """A page, shown by MLflow under Artifacts."""
        _ask("log_text", self.id, page, name)

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
        _ask("log_inputs", self.id, datasets=[DatasetInput(data, tags)])

    def finish(self, tokens_per_second: float, model: Path) -> None:
        """What a training left: its rate over the whole run, and where its weights are."""
        self.metrics({"train/mean_tokens_per_second": tokens_per_second})
        self.tags({"model": str(model)})

    def verdict(self, verdict: Verdict, version: int | None = None) -> None:
        said = SAID[verdict.decision]
        self.tags({"verdict": said, "reasons": "\n".join(verdict.reasons), "version": version})
        self.note(f"**{said}**\n\n" + "\n".join(f"- {reason}" for reason in verdict.reasons))


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _points(values: Metrics, step: int, milliseconds: int) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(key, float(value), milliseconds, step) for key, value in values.items() if value is not None]


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

    A block that fails leaves a failed run with its message. Raises TrackingUnavailable if the store does not answer.
    """
    opened = Run(_create(_experiment(line), name, kind, parent_run_id, tags), line)
    try:
        if params:
            opened.params(params)
        yield opened
        opened.flush()
    except BaseException as error:
        _end_failed(opened, error)
        raise
    _ask("set_terminated", opened.id, "FINISHED")


def _create(experiment: str, name: str, kind: str, parent_run_id: str | None, tags: Mapping[str, Any] | None) -> str:
    known = {"ratoon.kind": kind, "mlflow.source.name": "ratoon", "mlflow.source.type": "LOCAL"}
    if parent_run_id:
        known["mlflow.parentRunId"] = parent_run_id
    given = {key: str(value)[:LONGEST_TAG] for key, value in (tags or {}).items()}
    return _ask("create_run", experiment, run_name=name, tags={**known, **given}).info.run_id


def _end_failed(opened: Run, error: BaseException) -> None:
    """The reason of a failure is worth more than its record: what goes wrong here must not hide it."""
    status = "FAILED" if isinstance(error, Exception) else "KILLED"
    try:
        opened.flush(patient=False)
        patiently(store(), client().set_tag, opened.id, "error", str(error)[:LONGEST_TAG], waits=())
        patiently(store(), client().set_terminated, opened.id, status, waits=())
    except Exception as unsaid:
        error.add_note(f"run {opened.id} could not be marked as failed in MLflow: {shown(str(unsaid))}")


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
    with run(line, name, kind="proxy", parent_run_id=parent_run_id, tags=tags, params=params) as child:
        now = int(time.time() * 1000)
        for step, values in sorted(metrics_by_step.items()):
            child._waiting += _points(values, step, now)
    return child.id


def log_sweep(
    line: str, name: str, observations: Sequence[Observation], out: Path, parent_run_id: str | None = None
) -> str:
    """A sweep: one run for it and a child for each proxy run, with all its losses. `out` holds observations.csv."""
    proxies: dict[str, list[Observation]] = {}
    for item in observations:
        proxies.setdefault(item.run, []).append(item)
    with run(line, f"sweep {name}", kind="sweep", parent_run_id=parent_run_id) as sweep:
        sweep.params({"proxies": len(proxies), "shares": sorted({item.share for item in observations})})
        for proxy, items in proxies.items():
            first = items[0]
            params = first.model_dump(include={"model", "params_non_embedding", "share", "learning_rate", "group"})
            losses: dict[int, dict[str, float | None]] = {}
            for item in items:
                at = losses.setdefault(item.step, {"tokens": item.tokens})
                at[f"held_out/{item.evaluated}/loss_nats"] = item.loss_nats
                at[f"held_out/{item.evaluated}/bits_per_byte"] = item.bits_per_byte
            log_run(proxy, line=line, parent_run_id=sweep.id, params=params, metrics_by_step=losses)
        if (out / "observations.csv").exists():
            sweep.artifact(out / "observations.csv")
    return sweep.id


def link(run_id: str) -> str | None:
    """The run's page, where MLflow is a server; None for a file."""
    uri = store()
    if not uri.startswith(("http://", "https://")):
        return None
    experiment = _ask("get_run", run_id).info.experiment_id
    return f"{shown(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


# ---------------------------------------------------------------- anybody's experiment, as a table


def finished_runs(experiment: str) -> list[dict[str, Any]]:
    """One row per finished run: `run`, its parameters, and the last value of each of its metrics.

    A name that is both a parameter and a metric becomes params.NAME and metrics.NAME. Of an experiment of ours these
    are the proxies of the newest sweep: sweeps before it were measured on other editions of the text.
    """
    known = {found.name: found.experiment_id for found in _ask("search_experiments")}
    if experiment not in known:
        near = [f"; did you mean {name!r}?" for name in difflib.get_close_matches(experiment, known, n=1)]
        raise ConfigError(
            f"MLflow at {shown(store())}: no experiment {experiment!r}{''.join(near)}; "
            f"there are {', '.join(sorted(known)) or 'none'}"
        )
    found = _search(known[experiment])
    if proxies := [run for run in found if run.data.tags.get("ratoon.kind") == "proxy"]:
        newest = max(proxies, key=lambda run: run.info.start_time).data.tags.get("mlflow.parentRunId")
        found = [run for run in proxies if run.data.tags.get("mlflow.parentRunId") == newest]
    if not found:
        raise ConfigError(f"MLflow at {shown(store())}: experiment {experiment!r} has no finished run")
    names = [run.info.run_name or run.info.run_id for run in found]
    return [
        {"run": name if names.count(name) == 1 else f"{name} {run.info.run_id[:8]}", **_measured(run.data)}
        for name, run in zip(names, found, strict=True)
    ]


def _search(experiment_id: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = _ask("search_runs", [experiment_id], "attributes.status = 'FINISHED'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found[::-1]  # as they were made: MLflow gives the newest first


def _measured(data: Any) -> dict[str, Any]:
    both = set(data.params) & set(data.metrics)
    row: dict[str, Any] = {f"params.{name}" if name in both else name: value for name, value in data.params.items()}
    return row | {f"metrics.{name}" if name in both else name: value for name, value in data.metrics.items()}


# ---------------------------------------------------------------- the registry


@dataclass(frozen=True)
class Version:
    """A registered version of a model line."""

    line: str
    version: int
    path: Path  # directory that transformers loads
    run_id: str | None
    tags: dict[str, str]
    aliases: tuple[str, ...]


def register(line: str, model: Path, run_id: str, tags: Mapping[str, Any] | None = None) -> int:
    """The model in `model` as the next version of the line, made by run `run_id`. Nothing is copied.

    A pointer is kept with the run: where the files are, their sizes and sha256. Raises ConfigError if there are none.
    """
    described = describe(model)
    where = str(model.resolve())
    _ask("log_dict", run_id, {"path": where, "files": described}, "model/pointer.json")
    _registered(line)
    # MLflow's server takes a local source only from inside the run's own artifacts: hence the pointer.
    source = f"{_ask('get_run', run_id).info.artifact_uri}/model"
    given = {key: str(value)[:LONGEST_TAG] for key, value in (tags or {}).items()}
    made = _ask(
        "create_model_version",
        line,
        source,
        run_id,
        tags={**given, "ratoon.path": where, "ratoon.sha256": fingerprint(described)},
        await_creation_for=0,  # there is nothing to wait for: the pointer is written
    )
    return int(made.version)


def describe(model: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of each file of a model's directory. Raises ConfigError if it is none."""
    # The card tells what was found out about the files after they were registered, and is no part of them.
    files = {path.name: path for path in sorted(model.glob("*")) if path.is_file() and path.name != CARD}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise ConfigError(
            f"{model}: not a model transformers loads; config.json and *.safetensors were expected, "
            f"found {', '.join(files) or 'nothing'}"
        )
    return {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()}


def fingerprint(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def intact(line: str, version: int) -> Version:
    """A version whose directory is what was registered, to the byte. Raises ConfigError if it is not."""
    path = version_path(line, version)
    found = _version(_ask("get_model_version", line, str(version)))
    known = found.tags.get("ratoon.sha256")
    if known is not None and known != fingerprint(describe(path)):
        raise ConfigError(
            f"{line} version {version}: {path} is not what was registered and judged; bring those files back, or "
            f"refresh again"
        )
    return found


def _registered(line: str) -> None:
    from mlflow.exceptions import MlflowException

    if _or_none("get_registered_model", line) is None:
        try:
            _ask("create_registered_model", line)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(found: Any) -> Version:
    path = found.tags.get("ratoon.path")
    if path is None:
        raise ConfigError(
            f"MLflow at {shown(store())}: {found.name} version {found.version} has no tag ratoon.path, so it was not "
            f"registered by ratoon; set that tag to the directory of its weights"
        )
    return Version(
        line=found.name,
        version=int(found.version),
        path=Path(path),
        run_id=found.run_id or None,
        tags=dict(found.tags),
        aliases=tuple(found.aliases),
    )


def _aliased(line: str, alias: str) -> Version | None:
    found = _or_none("get_model_version_by_alias", line, alias)
    return None if found is None else _version(found)


def champion(line: str) -> Version | None:
    """The version in use; None before the first promotion."""
    return _aliased(line, CHAMPION)


def challenger(line: str) -> Version | None:
    """The version that waits for a person; None: none does."""
    return _aliased(line, CHALLENGER)


def versions(line: str) -> list[Version]:
    """All of the line, the newest first."""
    model = _or_none("get_registered_model", line)
    if model is None:
        return []
    # A search leaves aliases out: the model has them.
    aliases: dict[int, list[str]] = {}
    for alias, number in sorted(model.aliases.items()):
        aliases.setdefault(int(number), []).append(alias)
    found = [_version(item) for item in _ask("search_model_versions", f"name = '{line}'")]
    named = [replace(item, aliases=tuple(aliases.get(item.version, ()))) for item in found]
    return sorted(named, key=lambda item: -item.version)


def version_of(line: str, version: int) -> Version:
    """Wherever its weights are. Raises ConfigError if there is no such version."""
    found = _or_none("get_model_version", line, str(version))
    if found is None:
        numbers = ", ".join(str(item.version) for item in versions(line)) or "none yet"
        raise ConfigError(f"{line}: no version {version}; there are {numbers}")
    return _version(found)


def version_path(line: str, version: int) -> Path:
    """The directory of a version's weights. Raises ConfigError if the version or the directory is not there."""
    path = version_of(line, version).path
    if not (path / "config.json").exists():
        raise ConfigError(
            f"{line} version {version}: its weights are not at {path}; "
            f"bring the directory back, or `ratoon rollback` to the version before"
        )
    return path


def promote(line: str, version: int, reasons: Sequence[str] = ()) -> None:
    """Make `version` the champion; the one before stays as `previous`. Doing it twice does it once."""
    before = champion(line)
    if before is not None and before.version == version:
        return
    said = {"verdict": "promoted", "replaces": str(before.version) if before else "none"}
    tag(line, version, {**said, "reasons": "\n".join(reasons)} if reasons else said)
    _move(line, version, before.version if before else None)
    waiting = challenger(line)
    if waiting is not None and waiting.version == version:
        _ask("delete_registered_model_alias", line, CHALLENGER)


def challenge(line: str, version: int, reasons: Sequence[str]) -> None:
    """`version` waits for a person: the alias `challenger`, and the reasons. The champion stays."""
    tag(line, version, {"verdict": SAID["ask"], "reasons": "\n".join(reasons)})
    _ask("set_registered_model_alias", line, CHALLENGER, str(version))


def refuse(line: str, version: int, reasons: Sequence[str]) -> None:
    """Keep `version` in the registry with the reasons why it is not the champion. No alias moves."""
    tag(line, version, {"verdict": "refused", "reasons": "\n".join(reasons)})


def rollback(line: str, tags: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Champion and previous change places. Returns (champion before, champion now). Tags go to the one now."""
    now, before = champion(line), _aliased(line, PREVIOUS)
    if now is None or before is None or now.version == before.version:
        raise ConfigError(
            f"{line}: there is no previous champion to go back to; "
            f"{f'version {now.version} is the only one so far' if now else 'no version was ever promoted'}"
        )
    version_path(line, before.version)
    tag(line, before.version, {"replaces": str(now.version), "rolled_back": "to this version", **(tags or {})})
    _move(line, before.version, now.version)
    return now.version, before.version


def tag(line: str, version: int, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        _ask("set_model_version_tag", line, str(version), key, value[:LONGEST_TAG])


def _move(line: str, version: int, before: int | None) -> None:
    """`previous` first: cut short between the two, the champion is the old one and can still be promoted over."""
    if before is not None:
        _ask("set_registered_model_alias", line, PREVIOUS, str(before))
    _ask("set_registered_model_alias", line, CHAMPION, str(version))
