"""Scores of the documents that were packed, beside their rows: so that training can read in order of them.

One file per shard of rows and score, a number per document in the order in which the shard holds them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from ratoon.config import ConfigError
from ratoon.corpus.edition import LEDGER, Edition, digest, read_ledger
from ratoon.corpus.packed import SCORES_FORMAT, Scores
from ratoon.corpus.scores.select import NEAREST


def pack_scores(
    shards: Mapping[str, Path], scores: Path | None, edition: Edition, folder: str = ""
) -> tuple[Scores | None, list[str]]:
    """(how they are to be found, names of their files); (None, []) where the source has no scores.

    shards  name of the rows -> clean shard of documents they were packed from
    scores  the source's edition of scores
    folder  of the portion, where the source is split
    """
    if scores is None or not (scores / LEDGER).exists():
        return None, []
    listed = read_ledger(scores).shards
    of = {name.removesuffix(".parquet").rpartition("-")[0]: name for name in listed if "/" not in name}
    columns = _columns([scores / name for name in of.values()])
    if not columns:
        return None, []
    key = digest(SCORES_FORMAT, tuple(sorted((name, listed[name]) for name in of.values())))
    suffixes = {column: f"{column}-{key}" for column in columns}
    names: list[str] = []
    for row_shard, clean in shards.items():
        files = {column: f"{folder}train/{row_shard}.{suffixes[column]}" for column in columns}
        names += files.values()
        if not all(edition.reusable(name) for name in files.values()):
            stem = clean.stem.removeprefix("train-").rpartition("-")[0]
            _write(clean, scores / of.get(stem, "missing"), {c: edition.place(name) for c, name in files.items()})
    return Scores(format=SCORES_FORMAT, suffixes=suffixes), names


def _columns(files: Sequence[Path]) -> list[str]:
    """Scores that every file has; not which target a document is nearest to, which is no order."""
    found = [{*parquet.read_schema(file).names} - {"id"} for file in files if file.exists()]
    return sorted(name for name in set.intersection(*found) if not name.endswith(NEAREST)) if found else []


def _write(clean: Path, scored: Path, paths: Mapping[str, Path]) -> None:
    """One file per score of the documents of `clean`, found by their ids in `scored`."""
    wanted = parquet.read_table(clean, columns=["id"])["id"].combine_chunks()
    table = parquet.read_table(scored, columns=["id", *paths]) if scored.exists() else None
    at = compute.index_in(wanted, table["id"].combine_chunks()) if table else pa.nulls(len(wanted), pa.int32())
    if at.null_count:
        raise ConfigError(
            f"{scored.parent}: no scores of {at.null_count} of {len(wanted)} documents of {clean.name}; run "
            f"`ratoon prepare score {scored.parent.name}`"
        )
    assert table is not None
    for column, path in paths.items():
        found = table[column].combine_chunks().take(at)
        np.asarray(found.to_numpy(zero_copy_only=False), "<f4").tofile(path)
