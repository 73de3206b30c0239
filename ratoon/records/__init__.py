"""What runs leave behind: the shapes that cross rooms, and their files.

Every record is JSON or CSV a person can open. A number that was not measured is None, never 0.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from ratoon.config import ConfigError, Role
from ratoon.records.basis import Interval, Record
from ratoon.records.verdict import Comparison as Comparison
from ratoon.records.verdict import Decision as Decision
from ratoon.records.verdict import Demand as Demand
from ratoon.records.verdict import Estimate as Estimate
from ratoon.records.verdict import Flips as Flips
from ratoon.records.verdict import Outcome as Outcome
from ratoon.records.verdict import Verdict

T = TypeVar("T", bound=BaseModel)


class Funnel(Record):
    """Documents and bytes on their way through one stage of one source. The numbers add up."""

    documents_in: int
    bytes_in: int
    documents_kept: int
    bytes_kept: int
    dropped: dict[str, int] = Field(default_factory=dict, description="reason -> documents")
    dropped_bytes: dict[str, int] = Field(default_factory=dict, description="reason -> bytes")

    @model_validator(mode="after")
    def check(self) -> "Funnel":
        if self.documents_in != self.documents_kept + sum(self.dropped.values()):
            raise ValueError(f"{self.documents_in} documents in, {self.documents_kept} kept, {self.dropped} dropped")
        if self.bytes_in != self.bytes_kept + sum(self.dropped_bytes.values()):
            raise ValueError(f"{self.bytes_in} bytes in, {self.bytes_kept} kept, {self.dropped_bytes} dropped")
        return self


class Changes(Record):
    """Of one kind, made to texts as they were stored."""

    documents: int
    occurrences: int = Field(description="private strings masked; of repair: lines")


class Amount(Record):
    documents: int
    bytes: int


class Portion(Record):
    """What of an edition is in one language. Documents and bytes are of both parts, as the funnel's."""

    documents: int
    bytes: int
    held_out_documents: int
    held_out_bytes: int
    tokens: int | None = None
    held_out_tokens: int | None = None


class Ledger(Record):
    """What an edition is made of: one `ledger.json` beside its shards."""

    source: str
    role: Role
    stage: Literal["ingest", "score", "clean", "pack"]
    config: str = Field(description="digest of the declaration and parameters that made it")
    funnel: Funnel
    shards: dict[str, str] = Field(description="file name -> sha256 of its bytes")
    held_out_documents: int | None = None
    held_out_bytes: int | None = None
    tokens: int | None = Field(None, description="pack: tokens of the training part, separators included")
    held_out_tokens: int | None = None
    examples: dict[str, list[str]] = Field(
        default_factory=dict, description="reason -> where the first few dropped records were found"
    )
    kept_by: dict[str, dict[str, Amount]] = Field(
        default_factory=dict,
        description="clean: what was noted of documents (kind, language) -> its value -> kept",
        exclude_if=lambda found: not found,
    )
    amended: dict[str, Changes] = Field(
        default_factory=dict,
        description="ingest: repair, or kind of private string -> what was changed in the documents kept",
        exclude_if=lambda found: not found,
    )
    also_read: dict[str, str] = Field(
        default_factory=dict,
        description="ingest: list of a source, clean: source of higher priority -> digest of what was read of it",
        exclude_if=lambda found: not found,
    )
    portions: dict[str, Portion] = Field(
        default_factory=dict,
        description="clean and pack of a source that is split: folder -> what is in it; together what is kept",
        exclude_if=lambda found: not found,
    )

    @model_validator(mode="after")
    def portions_add_up(self) -> "Ledger":
        if self.portions:
            each = self.portions.values()
            found = [sum(one.documents for one in each), sum(one.bytes for one in each)]
            kept = [self.funnel.documents_kept, self.funnel.bytes_kept]
            found += [sum(one.held_out_documents for one in each), sum(one.held_out_bytes for one in each)]
            if found != [*kept, self.held_out_documents, self.held_out_bytes]:
                raise ValueError(f"portions hold {found}, but {kept} is kept")
        return self


class Observation(Record):
    """One evaluation of one run on one source. The table laws are fitted on."""

    run: str
    group: str = Field(description="runs that share a trunk; resampled together")
    commit: str | None
    config: str = Field(description="digest of the resolved request")
    model: str
    params_non_embedding: int
    tokens: int = Field(description="seen in this stage when evaluated")
    share: float = Field(ge=0, le=1, description="domain share of the run's own mixture, as read")
    unique_tokens: dict[str, int] = Field(default_factory=dict, description="source -> tokens before it repeats")
    learning_rate: float = Field(description="peak")
    step: int
    finished: bool = Field(description="at the end of the run's schedule, learning rate decayed")
    evaluated: str = Field(description="the source this loss was measured on")
    role: Role
    loss_nats: float | None = Field(description="per token")
    bits_per_byte: float | None


class LawReport(Record):
    """One fitted law, with its evidence. `params` are in the units of ratoon.laws: N/1e9, D/1e9."""

    law: str
    role: Role
    params: dict[str, float]
    seen_error: float = Field(description="relative, median over the observations fitted")
    unseen_error: float | None = Field(description="relative, median over observations held out; None: none were")
    agreement: float = Field(description="share of starts that reached this optimum")
    at_bounds: tuple[str, ...] = ()
    observations: int
    loose: tuple[str, ...] = Field((), description="fitted, but known to a factor of two at best")
    condition: float | None = Field(
        None, description="of the scaled Jacobian: near 1 is good, above 1e4 two say the same"
    )
    noise: float | None = Field(None, description="relative spread of the residuals")


class FurtherRun(Record):
    """The run that would narrow the decision most per FLOP, and what it would buy."""

    share: float
    params_non_embedding: int
    tokens: int
    flops: float
    width_now: float = Field(description="of the interval of the largest share within tolerance")
    width_after: float = Field(description="expected, once this run is among the observations")
    regret_now: float = Field(description="expected, nats per token of domain loss")
    regret_after: float
    worth_it: bool = Field(description="narrower than asked is not reached, and the regret saved is above its price")
    reason: str


class RatioPoint(Record):
    """One point of the curve loss against domain share, at the target size and tokens."""

    share: float
    general: Interval
    domain: Interval


class Choice(Record):
    """The domain share for the target run, and why."""

    share: float
    interval: Interval = Field(description="of the largest share that keeps general loss under its ceiling")
    reason: str
    law: str
    laws: tuple[LawReport, ...]
    params_non_embedding: int
    tokens: int
    parent_general_nats: float
    parent_domain_nats: float
    ceiling_nats: float
    tolerance: float
    predicted_general: Interval
    predicted_domain: Interval
    curve: tuple[RatioPoint, ...] = ()
    second_opinion: dict[str, float] = Field(default_factory=dict, description="other law -> its ratio")
    best: Interval | None = Field(None, description="weighted goal: of the share at which it is least; None: another")
    regret: float | None = Field(
        None,
        description="expected cost of being wrong, against the best share of each draw. Goal ceiling: nats per token "
        "of domain loss given up, and overrun_price times the nats above the ceiling that a smaller share avoids. "
        "Goal weighted: of the goal, a weighted mean of losses relative to the parent's",
    )
    further: FurtherRun | None = Field(None, description="what one more proxy run would buy")
    drift: str | None = Field(None, description="what the former refresh's law says of these runs; none: no former")
    learning_rate: float | None = Field(
        None, description="peak, of those swept; none: train.learning_rate", exclude_if=lambda found: found is None
    )
    schedule: dict[str, Any] | None = Field(
        None, description="of those swept; none: train.schedule", exclude_if=lambda found: found is None
    )
    warnings: tuple[str, ...] = ()


class Lineage(Record):
    """Enough to walk from a model back to its text, and to make it again."""

    commit: str | None
    dirty: bool | None
    config: str = Field(description="digest of the resolved params")
    parent: str
    license: str | None = Field(
        None,
        description="of the base, inherited by what is made of it; none: nobody said",
        exclude_if=lambda it: not it,
    )
    editions: dict[str, str] = Field(default_factory=dict, description="path -> DVC hash")
    mlflow_runs: dict[str, str] = Field(default_factory=dict, description="what -> run id")
    packages: dict[str, str] = Field(default_factory=dict, description="distribution -> version")


class Refresh(Record):
    """One refresh from question to verdict: what the report shows and the next refresh reads."""

    name: str
    line: str = Field(description="registered model")
    base: str
    started: str = Field(description="ISO 8601, UTC")
    seconds: dict[str, float] = Field(description="stage -> wall time")
    params: dict[str, Any]
    ledgers: tuple[Ledger, ...]
    observations: tuple[Observation, ...] = Field(description="of the sweep")
    curve: tuple[Observation, ...] = Field(description="of the target run, step 0 first")
    choice: Choice
    verdict: Verdict
    version: int | None = Field(description="registered version of the candidate; None: not registered")
    lineage: Lineage


# ---------------------------------------------------------------- files


def write_text(path: Path, text: str) -> None:
    """Whole or not at all: written beside, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, f"could not write {path}: {error.strerror}; what was there is untouched") from error


def write(path: Path, record: BaseModel) -> None:
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read(path: Path, model: type[T]) -> T:
    if not path.exists():
        raise ConfigError(f"{path}: not found; it is written by the stage before")
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a {model.__name__} record: {error}") from error


COLUMNS = tuple(Observation.model_fields)


def write_observations(path: Path, observations: Iterable[Observation]) -> None:
    """As CSV, one row each, in the order given; an empty cell is None."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for item in observations:
        writer.writerow({key: _cell(value) for key, value in item.model_dump().items()})
    write_text(path, buffer.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return "" if value is None else repr(value) if isinstance(value, float) else value


def read_observations(path: Path) -> list[Observation]:
    """From CSV or Parquet; columns a person did not measure may be left out where they have no meaning.

    Raises ConfigError with the row and column of the first thing that is wrong.
    """
    if not path.exists():
        raise ConfigError(f"{path}: not found; `ratoon sweep` writes it, or bring your own table of runs")
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    else:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    return [_observation(row, f"{path}: row {number}") for number, row in enumerate(rows, start=2)]


DEFAULTS: dict[str, Any] = {"commit": None, "config": "", "model": "", "learning_rate": 0.0, "step": 0}


def _observation(row: dict[str, Any], where: str) -> Observation:
    values: dict[str, Any] = {key: None if value == "" else value for key, value in row.items()}
    for key, value in {**DEFAULTS, "finished": True, "bits_per_byte": None}.items():
        values.setdefault(key, value)
    values["group"] = values.get("group") or values.get("run")
    unique = values.get("unique_tokens") or {}
    values["unique_tokens"] = json.loads(unique) if isinstance(unique, str) else unique
    for key, value in DEFAULTS.items():
        values[key] = value if values[key] is None else values[key]
    try:
        return Observation.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{where}, column {column}: {first['msg']} (found {first.get('input')!r}); columns are {', '.join(COLUMNS)}"
        ) from None
