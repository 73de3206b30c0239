"""Persisted signatures: one Parquet file per shard of documents, row for row, so that no text is read twice.

A row holds the band hashes and one byte of every slot; both are null for a text with fewer words than an n-gram.
The file says which algorithm made it, and is refused by any other.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ratoon.config import ConfigError, NearDuplicates
from ratoon.corpus.dedup.bands import band_hashes
from ratoon.corpus.dedup.signatures import ALGORITHM, EMPTY, signatures
from ratoon.corpus.dedup.words import U8, U64

RECIPE = b"ratoon.signatures"


class Signatures(NamedTuple):
    """Of the documents of one shard that have any."""

    rows: NDArray[np.int64]
    bands: U64
    slots: U8


def recipe(near: NearDuplicates) -> dict[str, str | int]:
    """What makes a signature; two of different recipes cannot be compared."""
    return {"algorithm": ALGORITHM, "ngram": near.ngram, "bands": near.bands, "rows": near.rows}


def sign(shard: Path, near: NearDuplicates, path: Path) -> None:
    """Signatures of a shard's texts. Runs in a process of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slots = near.bands * near.rows
    schema = pa.schema([("bands", pa.binary(8 * near.bands)), ("slots", pa.binary(slots))])
    schema = schema.with_metadata({RECIPE: json.dumps(recipe(near), sort_keys=True).encode()})
    with parquet.ParquetFile(shard) as texts, parquet.ParquetWriter(path, schema, **_PLAIN) as file:
        for group in range(texts.num_row_groups):
            made = signatures(texts.read_row_group(group, columns=["text"])["text"], near.ngram, slots)
            none = made[:, 0] == EMPTY
            columns = [_binary(band_hashes(made, near.bands).astype("<u8"), none), _binary(made.astype(np.uint8), none)]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))


# Hashes do not compress, and nobody looks for the least of them.
_PLAIN = {"compression": "none", "use_dictionary": False, "write_statistics": False}


def _binary(values: NDArray[np.generic], none: NDArray[np.bool_]) -> pa.Array:
    """One fixed-size binary value per row of a matrix."""
    width = values.itemsize * values.shape[1]
    valid = pa.py_buffer(np.packbits(~none, bitorder="little").tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), [valid, pa.py_buffer(values.tobytes())])


def read(path: Path, near: NearDuplicates, with_slots: bool) -> Signatures:
    """Raises ConfigError for signatures of another recipe, or a file that is none."""
    try:
        table = parquet.read_table(path, columns=["bands", "slots"] if with_slots else ["bands"])
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise ConfigError(
            f"{path}: not a file of signatures ({error}); remove it and prepare the source anew"
        ) from error
    made = json.loads((table.schema.metadata or {}).get(RECIPE, b"{}"))
    if made != recipe(near):
        raise ConfigError(f"{path}: signatures were made by {made}, not by {recipe(near)}; clean its source anew")
    bands = table["bands"].combine_chunks()
    rows = np.flatnonzero(bands.is_valid().to_numpy(zero_copy_only=False))
    slots = _bytes(table["slots"].combine_chunks())[rows] if with_slots else np.empty((0, 0), np.uint8)
    return Signatures(rows, _bytes(bands)[rows].view("<u8"), slots)


def _bytes(values: pa.FixedSizeBinaryArray) -> U8:
    """One row per value; those of null are arbitrary."""
    width, content = values.type.byte_width, values.buffers()[1]
    flat = np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8)
    return flat[values.offset * width : (values.offset + len(values)) * width].reshape(-1, width)
