"""Documents to scores: an edition of one Parquet file per shard of documents, row by row as they stand there.

Models are trained once per edition from the sources they name, then every shard is scored alone. A score depends on
the model and the text, so a shard and a model that are as before are not scored again. Without scores that concern a
source its edition is empty.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon.config import ConfigError, Engine, PrepareConfig, Source
from ratoon.corpus.documents import Tally, tally_of
from ratoon.corpus.edition import Edition, digest, read_ledger, renew, shards
from ratoon.corpus.scores.models import VERSION, Plan, read_model, write_model
from ratoon.corpus.workers import Report, each
from ratoon.records import Ledger

BATCH = 512


class Trained(NamedTuple):
    kind: str
    file: str


def score(
    source: Source,
    config: PrepareConfig,
    documents: Path,
    out: Path,
    report: Report | None = None,
    processes: Engine | int | None = None,
) -> Ledger:
    """Bring `out` to the scores of `documents`, and return its ledger.

    Documents of the sources that scorers are trained on lie beside `documents`, under their names. Writes
    models/*.safetensors and, per shard, STEM-*.parquet: id and a column per score, null where a text has none.

    Raises ConfigError, with the earlier edition untouched, when a scorer names a source without documents or without
    text.
    """
    inputs = shards(documents)
    share = config.held_out.share
    plans = {name: Plan(each_, documents.parent, share) for name, each_ in config.scorers(source.name).items()}
    with renew(out) as edition:
        models = _train(plans, edition, processes)
        key = digest(VERSION, tuple((name, *models[name]) for name in models))
        files = _score(inputs, models, key, edition, report, processes) if models else []
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


def _train(plans: dict[str, Plan], edition: Edition, processes: Engine | int | None) -> dict[str, Trained]:
    models, fresh = {}, []
    for name, plan in plans.items():
        try:
            models[name] = Trained(plan.scorer.kind, f"models/{name}-{digest(*plan.content())}.safetensors")
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
    key: str,
    edition: Edition,
    report: Report | None,
    processes: Engine | int | None,
) -> list[str]:
    """Names of the files of scores, one per shard of documents, in their order."""
    names = [f"{path.stem}-{key}.parquet" for path in inputs]
    fresh = [i for i, name in enumerate(names) if not edition.reusable(name)]
    sizes = [tally_of(inputs[i]).bytes for i in fresh]
    made = {name: (model.kind, edition.path(model.file)) for name, model in models.items()}
    done = 0
    for i, _ in each(write_scores, [(inputs[i], made, edition.place(names[i])) for i in fresh], sizes, processes):
        done += sizes[i]
        if report:
            report(done, sum(sizes), f"score {inputs[fresh[i]].stem}")
    return names


def write_scores(shard: Path, made: dict[str, tuple[str, Path]], path: Path) -> None:
    """Every document of a shard by every model. Runs in a process of its own."""
    models = {name: read_model(kind, file) for name, (kind, file) in made.items()}
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
