"""Documents to scores: an edition of one Parquet file per shard of documents, row by row as they stand there.

Models are trained once per edition from the sources they name, or once and for all (kept.py), then every shard is
scored alone. A score depends on the model and the text, so a shard and a model that are as before are not scored again.
Without scores that concern a source its edition is empty.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon.config import ConfigError, Engine, ModelPerplexity, PrepareConfig, Source
from ratoon.corpus.documents import Tally, tally_of
from ratoon.corpus.edition import Edition, digest, read_ledger, renew, shards
from ratoon.corpus.scores.kept import lend
from ratoon.corpus.scores.models import VERSION, Measure, Model, Plan, plan, read_model, write_model
from ratoon.corpus.workers import Report, each
from ratoon.records import Ledger

BATCH = 512


class Trained(NamedTuple):
    kind: str
    file: str


class Stored(NamedTuple):
    """A trained model where it lies."""

    kind: str
    path: Path

    def open(self) -> Model:
        return read_model(self.kind, self.path)


def score(
    source: Source,
    config: PrepareConfig,
    documents: Path,
    out: Path,
    report: Report | None = None,
    processes: Engine | int | None = None,
    kept: Path | None = None,
    given: Mapping[str, Measure] | None = None,
) -> Ledger:
    """Bring `out` to the scores of `documents`, and return its ledger.

    Documents of the sources that scorers are trained on lie beside `documents`, under their names. `kept`: the folder
    of scorers that are kept. `given`: scorers of kind model, by name. Writes models/*.safetensors and, per shard,
    STEM-*.parquet: id and a column per score, null where a text has none.

    Raises ConfigError, with the earlier edition untouched, when a scorer names a source without documents or without
    text, or one that is kept was not trained.
    """
    inputs = shards(documents)
    asked = config.scorers(source.name)
    measures = {name: (given or {})[name] for name, each_ in asked.items() if isinstance(each_, ModelPerplexity)}
    plans = {
        name: plan(each_, config, documents.parent)
        for name, each_ in asked.items()
        if not isinstance(each_, ModelPerplexity)
    }
    with renew(out) as edition:
        models = _train(plans, kept, edition, processes)
        told = {
            **{name: (*of,) for name, of in models.items()},
            **{name: of.content() for name, of in measures.items()},
        }
        key = digest(VERSION, tuple((name, *told[name]) for name in asked))
        files = _score(inputs, models, measures, key, edition, report, processes) if asked else []
        total = Tally()
        for path in inputs:
            seen = tally_of(path)
            total.keep(seen.bytes, seen.documents)
        ledger = Ledger(
            source=source.name,
            role=source.role,
            stage="score",
            config=digest(read_ledger(documents).config, key),
            funnel=total.funnel(),
            shards=edition.hashes([*(model.file for model in models.values()), *files]),
        )
        return edition.publish(ledger)


def _train(
    plans: dict[str, Plan], kept: Path | None, edition: Edition, processes: Engine | int | None
) -> dict[str, Trained]:
    models, fresh = {}, []
    for name, asked in plans.items():
        if asked.scorer.kept:
            models[name] = _lent(kept, name, asked, edition)
            continue
        try:
            models[name] = Trained(asked.scorer.kind, f"models/{name}-{digest(*asked.content())}.safetensors")
        except ConfigError as error:
            raise ConfigError(f"params.yaml: prepare.scores.{name}: {error}") from error
        if not edition.reusable(models[name].file):
            fresh.append(name)
    tasks = [(name, plans[name], edition.place(models[name].file)) for name in fresh]
    sizes = [
        sum(tally_of(path).bytes for side in plans[name].sides().values() for path in _all(side)) for name in fresh
    ]
    for _ in each(make, tasks, sizes, processes):
        pass
    return models


def _lent(kept: Path | None, name: str, asked: Plan, edition: Edition) -> Trained:
    """A kept model, as a file of this edition: what an edition was scored by stays with it."""
    path, content = lend(kept, name, asked)
    file = f"models/{name}-{digest(asked.asked(), content)}.safetensors"
    if not edition.reusable(file):
        shutil.copyfile(path, edition.place(file))
    return Trained(asked.scorer.kind, file)


def _all(editions: list[Path]) -> list[Path]:
    return [path for edition in editions for path in shards(edition)]


def make(name: str, plan: Plan, path: Path) -> None:
    try:
        write_model(plan, path)
    except ConfigError as error:
        raise ConfigError(f"params.yaml: prepare.scores.{name}: {error}") from error


def _score(
    inputs: list[Path],
    models: dict[str, Trained],
    measures: Mapping[str, Measure],
    key: str,
    edition: Edition,
    report: Report | None,
    processes: Engine | int | None,
) -> list[str]:
    """Names of the files of scores, one per shard of documents, in their order."""
    names = [f"{path.stem}-{key}.parquet" for path in inputs]
    fresh = [i for i, name in enumerate(names) if not edition.reusable(name)]
    sizes = [tally_of(inputs[i]).bytes for i in fresh]
    stored = {name: Stored(model.kind, edition.path(model.file)) for name, model in models.items()}
    made = dict(sorted({**stored, **measures}.items()))
    done = 0
    for i, _ in each(write_scores, [(inputs[i], made, edition.place(names[i])) for i in fresh], sizes, processes):
        done += sizes[i]
        if report:
            report(done, sum(sizes), f"score {inputs[fresh[i]].stem}")
    return names


def write_scores(shard: Path, made: Mapping[str, Stored | Measure], path: Path) -> None:
    """Every document of a shard by every model. Runs in a process of its own."""
    models = {name: one.open() for name, one in made.items()}
    ids: list[pa.Array] = []
    found: dict[str, list[np.ndarray]] = {}
    with parquet.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=["id", "text"]):
            ids.append(batch["id"])
            for name, model in models.items():
                for more, numbers in model.scores(batch["text"]).items():
                    found.setdefault(name + more, []).append(numbers.astype(np.float32))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"id": pa.chunked_array(ids, pa.string())}
    for name, parts in found.items():
        columns[name] = pa.array(np.concatenate(parts), from_pandas=True)
    parquet.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False, write_statistics=False)
