"""The text a scorer is trained on: documents of declared sources, a sample of them by hash, never what is held out.

With a last day, only what is dated up to it counts, in the sample's rate and in the digest too: text that is dated
later changes nothing.
"""

import hashlib
from collections.abc import Iterable, Iterator
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
from ratoon.corpus.filters.dates import Dates

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


def content(editions: Iterable[Path], until: Dates | None = None) -> tuple[tuple[str, str], ...]:
    """All that the documents of these editions depend on, for a digest; of those that `until` lets pass, if given."""
    found = []
    for edition in editions:
        if not (edition / LEDGER).exists():
            raise ConfigError(
                f"{edition.name!r} has no documents to train a score on\n"
                f"  name it in params.yaml (refresh.sources), or run `ratoon prepare ingest {edition.name}`"
            )
        if until:
            found.append((edition.name, _texts(shards(edition), until)))
            continue
        files = read_ledger(edition).shards
        found += [(f"{edition.name}/{name}", files[name]) for name in sorted(files)]
    return tuple(found)


def _texts(paths: list[Path], until: Dates) -> str:
    """A digest of documents, wherever they lie. An id is a hash of the text."""
    ids = [pa.array([], pa.string())]
    for path in paths:
        ids += [batch["id"] for batch in _dated(path, until, ["id"])]
    every = np.sort(pa.chunked_array(ids).to_numpy().astype("S32"))
    return hashlib.blake2b(every.tobytes(), digest_size=16).hexdigest()


def _dated(path: Path, until: Dates | None, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The documents of a shard, those that are dated as asked."""
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=[*columns, "date"] if until else columns):
            if until:
                days = batch["date"].dictionary_encode()
                passed = [until.reason(day) is None for day in days.dictionary.to_pylist()]
                inside = pa.array([*passed, until.reason(None) is None])
                batch = batch.filter(inside.take(days.indices.cast(pa.int64()).fill_null(len(passed))))
            yield batch


def _amount(paths: list[Path], until: Dates | None) -> tuple[int, int]:
    """(documents, bytes) there are to sample from."""
    if until is None:
        tallies = [tally_of(path) for path in paths]
        return sum(tally.documents for tally in tallies), sum(tally.bytes for tally in tallies)
    documents = size = 0
    for path in paths:
        for batch in _dated(path, until, ["text"]):
            documents, size = documents + len(batch), size + (pc.sum(pc.binary_length(batch["text"])).as_py() or 0)
    return documents, size


def read(
    editions: Iterable[Path],
    share: float,
    max_bytes: int | None = None,
    most: int | None = None,
    until: Dates | None = None,
) -> Reference:
    """About `max_bytes` or `most` documents of these editions, each text once, in an order that is the texts' own.

    Which these are is up to the hash of each: a document more or less changes nothing about the others but the rate.
    Texts that `share` holds out from training are left out, and those that `until` does not let pass.
    """
    paths = [path for edition in editions for path in shards(edition)]
    documents, size = _amount(paths, until)
    rate = 1.0
    if max_bytes:
        rate = min(rate, max_bytes / max(1, size))
    if most:
        rate = min(rate, most / max(1, documents))
    found: dict[bytes, str] = {}
    for path in paths:
        for text in _sampled(path, rate, until):
            key = text_key(text)
            if not held_out(key, share):
                # Of texts that are equal but for case and space the least: whatever order they come in.
                found[key] = min(text, found.get(key, text))
    if not any(text and not text.isspace() for text in found.values()):
        names = ", ".join(sorted(edition.name for edition in editions))
        dated = " or dated too late" if until else ""
        raise ConfigError(
            f"{names}: no text to train a score on, but what is held out{dated}; add text or raise max_bytes"
        )
    keys = sorted(found)
    numbers = np.frombuffer(b"".join(keys), ">u8")[::2].astype(np.uint64)
    return Reference(pa.array([found[key] for key in keys], pa.large_string()), numbers)


def _sampled(path: Path, rate: float, until: Dates | None) -> Iterable[str]:
    # Ids are hashes in hexadecimal, so their order is one of numbers.
    limit = f"{min(int(rate * 2**64), 2**64 - 1):016x}"
    for batch in _dated(path, until, ["id", "text"]):
        texts = batch["text"] if rate >= 1 else batch["text"].filter(pc.less(batch["id"], limit))
        yield from texts.to_pylist()
