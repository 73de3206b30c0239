"""A scorer from its declaration, and its file: safetensors, so that reading one runs nothing."""

import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save

from ratoon.config import Classifier, Importance, Perplexity, Retrieval
from ratoon.corpus.scores import classifier, importance, perplexity, retrieval
from ratoon.corpus.scores.features import F64
from ratoon.corpus.scores.reference import Reference, content, read

# Raise it whenever the same text and parameters would give other scores.
VERSION = 1
Scorer = Classifier | Perplexity | Importance | Retrieval


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


class Plan(NamedTuple):
    """A scorer, where its training text is, and the share of it that is held out."""

    scorer: Scorer
    documents: Path  # the folder with all sources' documents
    held_out_share: float

    def sides(self) -> dict[str, list[Path]]:
        return {side: [self.documents / name for name in names] for side, names in self.scorer.references().items()}

    def content(self) -> tuple[object, ...]:
        """All that the model depends on, for a digest."""
        settings = tuple(sorted(self.scorer.model_dump(exclude={"sources"}).items()))
        read_ = tuple((side, content(editions)) for side, editions in self.sides().items())
        return VERSION, settings, read_, self.held_out_share


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
    return read(editions, plan.held_out_share, None if most else plan.scorer.max_bytes, most)


def write_model(plan: Plan, path: Path) -> None:
    """Runs in a process of its own."""
    model, facts = train(plan)
    arrays = {field.name: np.ascontiguousarray(getattr(model, field.name)) for field in fields(model)}
    path.write_bytes(save(arrays, {"facts": json.dumps(facts, sort_keys=True)}))


@lru_cache(maxsize=16)  # a worker scores many shards
def read_model(kind: str, path: Path) -> Model:
    model: Model = MODELS[kind](**load_file(path))
    return model
