"""The held-out documents of a clean edition, one after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ratoon.config import ConfigError

COLUMNS = ("id", "text", "date")


class Document(NamedTuple):
    id: str
    text: str
    date: str | None = None


def held_out_documents(clean: Path) -> Iterator[Document]:
    """In the order of their shards; their date where there is one."""
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    shards = sorted(clean.glob("held_out-*.parquet"))
    if not shards:
        raise ConfigError(f"{clean}: no held_out-*.parquet here; `ratoon prepare` writes them")
    for shard in shards:
        try:
            with parquet.ParquetFile(shard) as file:
                there = [name for name in COLUMNS if name in file.schema_arrow.names]
                for batch in file.iter_batches(batch_size=256, columns=there):
                    dates = batch.column("date").to_pylist() if "date" in there else [None] * batch.num_rows
                    columns = batch.column("id").to_pylist(), batch.column("text").to_pylist(), dates
                    yield from map(Document, *columns)
        except (ArrowException, OSError, KeyError) as error:
            raise ConfigError(
                f"{shard}: not readable as a shard with columns id and text: {error}; `ratoon prepare` makes it again"
            ) from error
