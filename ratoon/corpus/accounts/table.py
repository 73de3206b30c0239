"""Every document of a clean edition with its fate, as one table: what all questions about a corpus are asked of."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from ratoon.config import ConfigError
from ratoon.corpus.edition import LEDGER, read_ledger, shards
from ratoon.corpus.fates import PARTS

KEPT = frozenset(PARTS.values())
STEM = "stem"


class Accounts(NamedTuple):
    """Of one source. `documents` has a row per document in shard order: stem (its shard), row (its place there), id,
    place, reason, key, bytes, what judges noted, fate: train, held_out, or why it is in neither, and of a source that
    is split its portion.
    """

    source: str
    documents: pl.DataFrame
    folder: Path  # of the shards of documents
    clean: Path


def accounts(source: str, documents: Path, clean: Path) -> Accounts:
    """Raises ConfigError where there is no clean edition, or the documents are not those it was made of."""
    if not (clean / LEDGER).exists():
        raise ConfigError(f"source {source!r}: no clean edition at {clean}; run `ratoon prepare`")
    verdicts = {_stem(path): path for path in shards(clean, "verdicts/")}
    fates = {_stem(path): path for path in shards(clean, "fates/")}
    parts = []
    for stem, path in sorted(verdicts.items()):
        table = pl.read_parquet(path).with_row_index("row")
        told = pl.read_parquet(fates[stem]).with_columns(pl.col("fate").cast(pl.String))
        parts.append(table.with_columns(pl.lit(stem).alias(STEM), *told.get_columns()))
    whole = pl.concat(parts, how="diagonal") if parts else pl.DataFrame(schema={"id": pl.String, "fate": pl.String})
    return Accounts(source, whole, documents, clean)


def texts(of: Accounts, wanted: pl.DataFrame, columns: tuple[str, ...] = ("text",)) -> pl.DataFrame:
    """`wanted`, rows of `of.documents`, with columns of the documents themselves: only their shards are read."""
    found = []
    for (stem,), rows in wanted.group_by(STEM, maintain_order=True):
        path = of.folder / f"{stem}.parquet"
        if not path.exists():
            raise ConfigError(f"{path}: not there; run `ratoon prepare` (or dvc checkout) to have the documents back")
        whole = pl.scan_parquet(path).select(columns).with_row_index("row")
        found.append(rows.join(whole.join(rows.lazy().select("row"), on="row", how="semi").collect(), on="row"))
    return pl.concat(found) if found else wanted.with_columns(pl.lit(None, pl.String).alias(name) for name in columns)


def _stem(path: Path) -> str:
    return path.stem.rpartition("-")[0]


def edition(clean: Path) -> str:
    """What an edition is called where people read it."""
    return read_ledger(clean).config
