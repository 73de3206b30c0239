"""A scorer from its declaration, and its file: safetensors, so that reading one runs nothing."""

import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save

from ratoon.config import Classifier, DateFilter, Importance, Learned, Perplexity, PrepareConfig, Retrieval
from ratoon.corpus.filters.dates import Dates, dates
from ratoon.corpus.scores import classifier, importance, perplexity, retrieval
from ratoon.corpus.scores.features import F64
from ratoon.corpus.scores.reference import Reference, content, read

# Raise it whenever the same text and parameters would give other scores.
VERSION = 1


class Model(Protocol):
    def scores(self, texts: pa.Array) -> dict[str, F64]:
        """Per text the score, under "", and what else is said about it; NaN: there is nothing to score."""
        ...


MODELS: dict[str, Any] = {
    "classifier": classifier.Linear,
    "perplexity": perplexity.Model,
    "importance": importance.Weights,
    "retrieval": retrieval.Targets,
}


class Measure(Protocol):
    """A scorer that needs no training text, such as a language model; picklable."""

    def content(self) -> tuple[object, ...]:
        """All that its scores depend on, for a digest."""

    def open(self) -> Model: ...


class Plan(NamedTuple):
    """A scorer, where its training text is, the share of it that is held out, and the dates it may have."""

    scorer: Learned
    documents: Path  # the folder with all sources' documents
    held_out_share: float
    until: Dates | None = None

    def sides(self) -> dict[str, list[Path]]:
        return {side: [self.documents / name for name in names] for side, names in self.scorer.references().items()}

    def content(self) -> tuple[object, ...]:
        """All that the model depends on, for a digest."""
        read_ = tuple((side, content(editions, self.until)) for side, editions in self.sides().items())
        return VERSION, self.settings(), read_, self.held_out_share

    def asked(self) -> tuple[object, ...]:
        """All that is declared about it, whatever text there is."""
        return VERSION, self.settings(), self.held_out_share

    @property
    def day(self) -> str | None:
        """The last that its training text may be from; None: any."""
        return self.until.max_date.isoformat() if self.until and self.until.max_date else None

    def settings(self) -> tuple[tuple[str, object], ...]:
        return tuple(sorted(self.scorer.model_dump(exclude={"sources"}).items()))


def plan(scorer: Learned, config: PrepareConfig, documents: Path) -> Plan:
    return Plan(scorer, documents, config.held_out.share, last_day(scorer, config.dates))


def last_day(scorer: Learned, asked: DateFilter | None) -> Dates | None:
    """The earlier of the scorer's own last day and the corpus's. Undated text counts where the corpus keeps it."""
    days = [day for day in (scorer.until, asked.max_date if asked else None) if day]
    if not days:
        return None
    return dates(DateFilter(max_date=min(days), undated=asked.undated if asked else "drop"))


def train(plan: Plan) -> tuple[Any, dict[str, Any]]:
    """The model, and what is known about its making."""
    scorer = plan.scorer
    sides = {side: _read(plan, side, editions) for side, editions in plan.sides().items()}
    found: tuple[Any, dict[str, float]]
    if isinstance(scorer, Classifier):
        found = classifier.train(scorer, sides["positive"], sides["negative"])
    elif isinstance(scorer, Perplexity):
        found = perplexity.train(scorer, sides["reference"])
    elif isinstance(scorer, Importance):
        found = importance.train(scorer, sides["target"], sides["raw"])
    else:
        found = retrieval.train(scorer, sides["target"], sides["background"])
    model, facts = found
    return model, {"kind": scorer.kind, **facts, **{side: text.facts() for side, text in sides.items()}}


def _read(plan: Plan, side: str, editions: list[Path]) -> Reference:
    most = plan.scorer.max_targets if isinstance(plan.scorer, Retrieval) and side == "target" else None
    return read(editions, plan.held_out_share, None if most else plan.scorer.max_bytes, most, plan.until)


def write_model(plan: Plan, path: Path) -> None:
    """Runs in a process of its own."""
    model, facts = train(plan)
    arrays = {field.name: np.ascontiguousarray(getattr(model, field.name)) for field in fields(model)}
    path.write_bytes(save(arrays, {"facts": json.dumps(facts, sort_keys=True)}))


@lru_cache(maxsize=16)  # a worker scores many shards
def read_model(kind: str, path: Path) -> Model:
    model: Model = MODELS[kind](**load_file(path))
    return model
