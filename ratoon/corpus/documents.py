"""Documents on disk: Parquet shards that say themselves what went into them.

A document is one row of SCHEMA. Its id is the hash of its source and its text, so the same text of the
same source has the same id in every edition. Whatever else a record held is kept, as JSON, in `metadata`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon.records import Funnel

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


def identify(source: str, text: str) -> str:
    """32 hex digits: blake2b of source name, NUL, text."""
    return hashlib.blake2b(f"{source}\0{text}".encode(), digest_size=16).hexdigest()


class Tally:
    """Counts documents and bytes through one stage, with a few examples of what was dropped."""

    def __init__(self) -> None:
        self.documents = 0
        self.bytes = 0
        self.dropped: Counter[str] = Counter()
        self.dropped_bytes: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def keep(self, num_bytes: int, documents: int = 1) -> None:
        self.documents += documents
        self.bytes += num_bytes

    def drop(self, reason: str, num_bytes: int, place: str) -> None:
        self.dropped[reason] += 1
        self.dropped_bytes[reason] += num_bytes
        seen = self.examples.setdefault(reason, [])
        if len(seen) < MAX_EXAMPLES:
            seen.append(place)

    def add(self, other: "Tally") -> None:
        self.keep(other.bytes, other.documents)
        self.dropped.update(other.dropped)
        self.dropped_bytes.update(other.dropped_bytes)
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

    def dump(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "dropped": dict(sorted(self.dropped.items())),
            "dropped_bytes": dict(sorted(self.dropped_bytes.items())),
            "examples": dict(sorted(self.examples.items())),
        }

    @classmethod
    def load(cls, facts: dict[str, Any]) -> "Tally":
        tally = cls()
        tally.documents, tally.bytes = facts["documents"], facts["bytes"]
        tally.dropped, tally.dropped_bytes = Counter(facts["dropped"]), Counter(facts["dropped_bytes"])
        tally.examples = {reason: list(places) for reason, places in facts["examples"].items()}
        return tally


class ShardWriter:
    """Writes rows to one Parquet file; the same rows give the same bytes. `close` adds the shard's tally."""

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.schema = schema
        self.rows: list[dict[str, Any]] = []
        self.pending_bytes = 0
        # Texts and ids hardly repeat, and nobody looks for a text by its least and greatest.
        few = [name for name in schema.names if name in REPEATING]
        self.file = parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=few, write_statistics=False)

    def add(self, row: dict[str, Any], num_bytes: int) -> None:
        """`num_bytes`: about how much memory the row takes; it decides only where row groups end."""
        self.rows.append(row)
        self.pending_bytes += num_bytes
        if self.pending_bytes >= GROUP_BYTES or len(self.rows) >= 50_000:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.file.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.pending_bytes = [], 0

    def close(self, tally: Tally) -> None:
        self.flush()
        self.file.add_key_value_metadata({FACTS: json.dumps(tally.dump(), sort_keys=True).encode()})
        self.file.close()


def tally_of(path: Path) -> Tally:
    """What the shard says of itself; its rows are not read."""
    return Tally.load(json.loads(parquet.read_metadata(path).metadata[FACTS]))


def rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of one shard in order, one row group's worth in memory at a time."""
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()
