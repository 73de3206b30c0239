"""When each text was first seen: the number of the edition, kept from edition to edition.

What was trained on cannot be taken back, so what came first stays and what came later gives way. This file is the
one thing an edition inherits from the one before it; without it every text counts as new.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon.config import ConfigError
from ratoon.corpus.dedup.bands import I32
from ratoon.corpus.dedup.words import U64
from ratoon.corpus.edition import Edition, digest

PREFIX = "arrivals-"


def ranks(edition: Edition, keys: U64) -> I32:
    """The edition in which each key came first; keys are sorted and distinct. Unknown ones come now."""
    known_keys, known_ranks = _read(edition)
    at = np.minimum(np.searchsorted(known_keys, keys), max(len(known_keys) - 1, 0))
    found = known_keys[at] == keys if len(known_keys) else np.zeros(len(keys), np.bool_)
    result = np.full(len(keys), (known_ranks.max() if len(known_ranks) else 0) + 1, np.int32)
    result[found] = known_ranks[at[found]]
    return result


def write(edition: Edition, keys: U64, found: I32) -> str:
    """Name of the file; it holds nothing of texts that are no longer there."""
    # Hashed where they lie: they are many.
    key = digest(*(hashlib.blake2b(column.data, digest_size=16).digest() for column in (keys, found)))
    name = f"{PREFIX}{key}.parquet"
    if not edition.reusable(name):
        table = pa.table({"key": keys, "rank": found})
        parquet.write_table(table, edition.place(name), compression="zstd", use_dictionary=["rank"])
    return name


def _read(edition: Edition) -> tuple[U64, I32]:
    names = [name for name in edition.known if name.startswith(PREFIX)]
    if not names:
        return np.empty(0, np.uint64), np.empty(0, np.int32)
    path: Path = edition.out / names[0]
    if not edition.reusable(names[0]):
        raise ConfigError(
            f"{path}: not there or not the file its ledger speaks of, so which text came first is not known\n"
            f"  fetch the edition again (dvc checkout), or remove {edition.out} to count every text as new"
        )
    table = parquet.read_table(path)
    return table["key"].to_numpy(), table["rank"].to_numpy()
