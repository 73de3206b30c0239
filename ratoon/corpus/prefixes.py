"""A short text before each document that says where it is from, packed beside the rows: training may read it first.

    <shard>.prefixes-<key>        token ids, one prefix after the other, in the order of the shard's documents
    <shard>.prefix_starts-<key>   uint64, little-endian: where each begins, then their number of tokens

Only of what is trained on: held-out text is read as it is. A document without the value, or with one that is too long,
has a prefix of no tokens. Prefixes are encoded apart from their texts, whose tokens stay what they are without them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ratoon.config import ConfigError, Prefixes
from ratoon.config.prefixes import HOST
from ratoon.corpus.documents import batches
from ratoon.corpus.edition import Edition, digest
from ratoon.corpus.packed import PREFIXES_FORMAT, PackedPrefixes, dtype_for

AT_ONCE = 4096  # documents


def pack_prefixes(
    shards: Mapping[str, Path], asked: Prefixes | None, encoder: Any, edition: Edition, folder: str = ""
) -> tuple[PackedPrefixes | None, list[str]]:
    """(how they are to be found, names of their files); (None, []) where none are asked for.

    shards  name of the rows -> clean shard of documents they were packed from
    folder  of the portion, where the source is split
    """
    if asked is None:
        return None, []
    key = digest(PREFIXES_FORMAT, asked.field, asked.named, asked.max_chars)
    dtype = dtype_for(max(encoder.get_vocab(with_added_tokens=True).values()) + 1)
    names: list[str] = []
    documents = tokens = 0
    for row_shard, clean in shards.items():
        found = [f"{folder}train/{row_shard}.{kind}-{key}" for kind in ("prefixes", "prefix_starts")]
        names += found
        if not all(map(edition.reusable, found)):
            _write(clean, asked, encoder, np.dtype(dtype), [edition.place(name) for name in found])
        starts = np.fromfile(edition.path(found[1]), "<u8")
        documents, tokens = documents + int((np.diff(starts) > 0).sum()), tokens + int(starts[-1])
    return PackedPrefixes(format=PREFIXES_FORMAT, key=key, field=asked.field, documents=documents, tokens=tokens), names


def _write(clean: Path, asked: Prefixes, encoder: Any, dtype: np.dtype[Any], paths: Sequence[Path]) -> None:
    total = 0
    column = {HOST: "url"}.get(asked.field, asked.field.split(".")[0])
    with paths[0].open("wb") as tokens, paths[1].open("wb") as starts:
        for batch in batches(clean, [column], AT_ONCE):
            texts = [prefix(value, asked) for value in batch.column(column).to_pylist()]
            ids = [each.ids for each in encoder.encode_batch_fast(texts, add_special_tokens=False)]
            ends = total + np.cumsum([len(each) for each in ids], dtype=np.uint64)
            starts.write(np.array([total, *ends[:-1]], "<u8").tobytes())
            tokens.write(np.array([one for each in ids for one in each], dtype).tobytes())
            total = int(ends[-1])
        starts.write(np.array([total], "<u8").tobytes())


def prefix(value: str | None, asked: Prefixes) -> str:
    """The prefix of a document by its column; nothing where that does not say what is asked for."""
    if value and asked.field == HOST:
        value = host(value)
    elif value and asked.field.startswith("metadata."):
        found = json.loads(value).get(asked.field.removeprefix("metadata."))
        value = str(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else None
    # In one line: what is below it is the document's.
    value = " ".join((value or "").split())
    return f"{asked.named}: {value}\n\n" if 0 < len(value) <= asked.max_chars else ""


def host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # no address, whatever it is
        return None


def refuse_none(source: str, asked: Prefixes, documents: int) -> None:
    """Where no document has a prefix, something else was meant."""
    if not documents:
        raise ConfigError(
            f"params.yaml: prepare.prefixes.field: no document of {source!r} that is trained on has {asked.field!r}; "
            f"name a field they have, or in prepare.prefixes.sources the sources that have it"
        )
