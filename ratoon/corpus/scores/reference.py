"""The text a scorer is trained on: documents of declared sources, a sample of them by hash, never what is held out."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from ratoon.config import ConfigError
from ratoon.corpus.clean import held_out, text_key
from ratoon.corpus.dedup.words import U64
from ratoon.corpus.documents import tally_of
from ratoon.corpus.edition import LEDGER, read_ledger, shards

BATCH = 512


class Reference(NamedTuple):
    """One side of a scorer's training text."""

    texts: pa.Array
    keys: U64  # what equal texts have in common; says nothing of where a text stood

    @property
    def num_bytes(self) -> int:
        return int(pc.sum(pc.binary_length(self.texts)).as_py() or 0)

    def facts(self) -> dict[str, int]:
        return {"documents": len(self.texts), "bytes": self.num_bytes}


def content(editions: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    """All that the documents of these editions depend on, for a digest."""
    found = []
    for edition in editions:
        if not (edition / LEDGER).exists():
            raise ConfigError(
                f"{edition.name!r} has no documents to train a score on\n"
                f"  name it in params.yaml (refresh.sources), or run `ratoon prepare ingest {edition.name}`"
            )
        files = read_ledger(edition).shards
        found += [(f"{edition.name}/{name}", files[name]) for name in sorted(files)]
    return tuple(found)


def read(editions: Iterable[Path], share: float, max_bytes: int | None = None, most: int | None = None) -> Reference:
    """About `max_bytes` or `most` documents of these editions, each text once, in an order that is the texts' own.

    Which these are is up to the hash of each: a document more or less changes nothing about the others but the rate.
    Texts that `share` holds out from training are left out.
    """
    paths = [path for edition in editions for path in shards(edition)]
    tallies = [tally_of(path) for path in paths]
    rate = 1.0
    if max_bytes:
        rate = min(rate, max_bytes / max(1, sum(tally.bytes for tally in tallies)))
    if most:
        rate = min(rate, most / max(1, sum(tally.documents for tally in tallies)))
    found: dict[bytes, str] = {}
    for path in paths:
        for text in _sampled(path, rate):
            key = text_key(text)
            if not held_out(key, share):
                # Of texts that are equal but for case and space the least: whatever order they come in.
                found[key] = min(text, found.get(key, text))
    if not any(text and not text.isspace() for text in found.values()):
        names = ", ".join(sorted(edition.name for edition in editions))
        raise ConfigError(f"{names}: no text to train a score on, but what is held out; add text or raise max_bytes")
    keys = sorted(found)
    numbers = np.frombuffer(b"".join(keys), ">u8")[::2].astype(np.uint64)
    return Reference(pa.array([found[key] for key in keys], pa.large_string()), numbers)


def _sampled(path: Path, rate: float) -> Iterable[str]:
    # Ids are hashes in hexadecimal, so their order is one of numbers.
    limit = f"{min(int(rate * 2**64), 2**64 - 1):016x}"
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=["id", "text"]):
            texts = batch["text"] if rate >= 1 else batch["text"].filter(pc.less(batch["id"], limit))
            yield from texts.to_pylist()
