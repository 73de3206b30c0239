"""Documents on disk: Parquet shards that say themselves what went into them.

A document is one row of SCHEMA. Its id is the hash of its source and its text, so the same text of the
same source has the same id in every edition. Whatever else a record held is kept, as JSON, in `metadata`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ratoon.config import ConfigError
from ratoon.records import Changes, Funnel

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("date", pa.string()),
        pa.field("language", pa.string()),
        pa.field("license", pa.string()),
        pa.field("metadata", pa.string()),
    ]
)
REPEATING = frozenset({"source", "date", "language", "license", "reason"})
FACTS = b"ratoon"
MAX_EXAMPLES = 5
# A row group is what a reader holds in memory; a single larger document makes a larger one.
GROUP_BYTES = 8 << 20
GROUP_ROWS = 50_000

I64 = NDArray[np.int64]


def identify(source: str, text: str) -> str:
    """32 hex digits: blake2b of source name, NUL, text."""
    return hashlib.blake2b(f"{source}\0{text}".encode(), digest_size=16).hexdigest()


class Tally:
    """Counts documents and bytes through one stage, with a few examples of what was dropped.

    Of what was amended in the documents kept it counts documents and occurrences, by kind.
    """

    def __init__(self) -> None:
        self.documents = 0
        self.bytes = 0
        self.dropped: Counter[str] = Counter()
        self.dropped_bytes: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.amended: Counter[str] = Counter()  # documents
        self.amendments: Counter[str] = Counter()  # occurrences

    def keep(self, num_bytes: int, documents: int = 1) -> None:
        self.documents += documents
        self.bytes += num_bytes

    def drop(self, reason: str, num_bytes: int, place: str) -> None:
        self.dropped[reason] += 1
        self.dropped_bytes[reason] += num_bytes
        seen = self.examples.setdefault(reason, [])
        if len(seen) < MAX_EXAMPLES:
            seen.append(place)

    def amend(self, found: Mapping[str, int]) -> None:
        """One document in which so much of each kind was changed."""
        self.amended.update(found.keys())
        self.amendments.update(found)

    def add(self, other: "Tally") -> None:
        self.keep(other.bytes, other.documents)
        self.dropped.update(other.dropped)
        self.dropped_bytes.update(other.dropped_bytes)
        self.amended.update(other.amended)
        self.amendments.update(other.amendments)
        for reason, places in other.examples.items():
            seen = self.examples.setdefault(reason, [])
            seen.extend(places[: MAX_EXAMPLES - len(seen)])

    def funnel(self) -> Funnel:
        return Funnel(
            documents_in=self.documents + self.dropped.total(),
            bytes_in=self.bytes + self.dropped_bytes.total(),
            documents_kept=self.documents,
            bytes_kept=self.bytes,
            dropped=dict(sorted(self.dropped.items())),
            dropped_bytes=dict(sorted(self.dropped_bytes.items())),
        )

    def changes(self) -> dict[str, Changes]:
        return {
            kind: Changes(documents=count, occurrences=self.amendments[kind])
            for kind, count in sorted(self.amended.items())
        }

    def dump(self) -> dict[str, Any]:
        facts = {
            "documents": self.documents,
            "bytes": self.bytes,
            "dropped": dict(sorted(self.dropped.items())),
            "dropped_bytes": dict(sorted(self.dropped_bytes.items())),
            "examples": dict(sorted(self.examples.items())),
        }
        # Only where there is something, so that a shard of which nothing was amended says what it always said.
        return facts | {"amended": {k: v.model_dump() for k, v in self.changes().items()}} if self.amended else facts

    @classmethod
    def load(cls, facts: dict[str, Any]) -> "Tally":
        tally = cls()
        tally.documents, tally.bytes = facts["documents"], facts["bytes"]
        tally.dropped, tally.dropped_bytes = Counter(facts["dropped"]), Counter(facts["dropped_bytes"])
        tally.examples = {reason: list(places) for reason, places in facts["examples"].items()}
        amended = facts.get("amended", {})
        tally.amended = Counter({kind: each["documents"] for kind, each in amended.items()})
        tally.amendments = Counter({kind: each["occurrences"] for kind, each in amended.items()})
        return tally


class ShardWriter:
    """Writes rows to one Parquet file; the same rows give the same bytes. `close` adds the shard's tally."""

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.schema = schema
        self.rows: list[dict[str, Any]] = []
        self.batches: list[pa.RecordBatch] = []
        self.pending_bytes = self.pending_rows = 0
        # Texts and ids hardly repeat, and nobody looks for a text by its least and greatest.
        few = [name for name in schema.names if name in REPEATING]
        self.file = parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=few, write_statistics=False)

    def add(self, row: dict[str, Any], num_bytes: int) -> None:
        """`num_bytes`: about how much memory the row takes; it decides only where row groups end."""
        self.rows.append(row)
        self.pending_bytes += num_bytes
        self.pending_rows += 1
        self._flush_full()

    def take(self, batch: pa.RecordBatch, rows: I64, num_bytes: I64) -> None:
        """Rows of a batch that has the columns of the schema, in the order and as often as they are named, as if
        each were added. A writer is given rows or batches, never both.
        """
        whole = pa.RecordBatch.from_arrays([batch.column(name) for name in self.schema.names], schema=self.schema)
        begin = 0
        while begin < len(rows):
            reaches = np.searchsorted(np.cumsum(num_bytes[begin:]), GROUP_BYTES - self.pending_bytes)
            end = min(begin + int(reaches) + 1, begin + GROUP_ROWS - self.pending_rows, len(rows))
            self.batches.append(whole.take(pa.array(rows[begin:end])))
            self.pending_bytes += int(num_bytes[begin:end].sum())
            self.pending_rows += end - begin
            self._flush_full()
            begin = end

    def _flush_full(self) -> None:
        if self.pending_bytes >= GROUP_BYTES or self.pending_rows >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        assert not (self.rows and self.batches)
        if self.rows:
            self.file.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        if self.batches:
            # In one piece, so that the file does not show how the rows came.
            self.file.write_table(pa.Table.from_batches(self.batches, schema=self.schema).combine_chunks())
        self.rows, self.batches, self.pending_bytes, self.pending_rows = [], [], 0, 0

    def close(self, tally: Tally) -> None:
        self.flush()
        self.file.add_key_value_metadata({FACTS: json.dumps(tally.dump(), sort_keys=True).encode()})
        self.file.close()


def tally_of(path: Path) -> Tally:
    """What the shard says of itself; its rows are not read. Raises ConfigError where it is no shard."""
    try:
        return Tally.load(json.loads(parquet.read_metadata(path).metadata[FACTS]))
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ConfigError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path}: not a shard of documents, or damaged ({error})\n"
        f"  bring it back (dvc checkout), or remove it and run the stage that made it"
    )


def batches(path: Path, columns: list[str] | None = None, most: int = 256) -> Iterator[pa.RecordBatch]:
    """The rows of one shard in order, so many at most; no batch is larger than a row group, however long its texts.

    Raises ConfigError for a file that is damaged.
    """
    try:
        with parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                # Asked for all at once, batches would reach from one group into the next.
                yield from file.iter_batches(batch_size=most, row_groups=[group], columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(_damaged(path, error)) from error


def rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of one shard in order, one row group's worth in memory at a time."""
    for batch in batches(path, columns):
        yield from batch.to_pylist()
