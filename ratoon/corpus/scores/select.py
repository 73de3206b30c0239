"""Which documents are trained on, by their scores: a decision about all of a source together, of numbers alone.

Nothing here is drawn from a stream or depends on places: ties and Gumbel noise come from the hash of a text and the
seed, so the same documents are chosen in whatever order and shards they come.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ratoon.config import CONTROLS, ConfigError, Select
from ratoon.corpus.dedup.words import I64, U64, mix
from ratoon.corpus.edition import LEDGER, read_ledger

Bools = NDArray[np.bool_]
F64 = NDArray[np.float64]
NEAREST = ":nearest"
NOT_SELECTED = "not_selected"  # why a document is dropped


def keep(asked: Select, scores: F64, sizes: I64, keys: U64, eligible: Bools, nearest: F64 | None = None) -> Bools:
    """Which of the eligible documents are kept: in order of score as many as the budget of bytes has room for.

    `sizes`: bytes each takes of the budget. `keys`: hashes of the texts. `nearest`: per document the target it is
    nearest to (asked.per_target). One without a score (NaN) comes behind all that have one.

    A larger budget keeps what a smaller one keeps.
    """
    candidates = np.flatnonzero(eligible)
    value = scores[candidates].astype(np.float64)
    if asked.prefer == "low":
        value = -value
    if asked.method == "gumbel":
        value = value + gumbel(keys[candidates], asked.seed)
    value[np.isnan(value)] = -np.inf
    order = candidates[np.lexsort((shuffled(keys[candidates], asked.seed), -value))]
    kept = np.zeros(len(scores), np.bool_)
    if asked.per_target:
        assert nearest is not None
        order = order[~np.isnan(nearest[order])]
        kept[order[_place(nearest[order].astype(np.int64)) < asked.per_target]] = True
    else:
        kept[order[np.cumsum(sizes[order]) <= asked.budget(int(sizes[candidates].sum()))]] = True
    return kept


def _place(groups: I64) -> I64:
    """How many of the same group are before each."""
    by_group = np.argsort(groups, kind="stable")
    sorted_ = groups[by_group]
    place = np.empty(len(groups), np.int64)
    place[by_group] = np.arange(len(groups)) - np.searchsorted(sorted_, sorted_)
    return place


def shuffled(keys: U64, seed: int) -> U64:
    """A number per key, evenly spread, that says nothing about that of another seed."""
    salt = hashlib.blake2b(f"select {seed}".encode(), digest_size=8).digest()
    return mix(mix(keys ^ np.uint64(int.from_bytes(salt, "big"))))


def gumbel(keys: U64, seed: int) -> F64:
    """Noise that makes the largest sums a draw without replacement with odds of exp(score) (arXiv:1903.06059)."""
    even = (shuffled(keys, seed) >> np.uint64(11)).astype(np.float64)
    return np.asarray(-np.log(-np.log((even + 0.5) / 2.0**53)), np.float64)


def control(name: str, sizes: I64, keys: U64, seed: int) -> F64:
    """What any selector must be better than: chance and length."""
    if name == "random":
        return shuffled(keys, seed).astype(np.float64)
    return sizes.astype(np.float64) * (1 if name == "longest" else -1)


def choose(
    source: str,
    asked: Sequence[Select],
    folder: Path,
    stems: Sequence[str],
    sizes: I64,
    keys: U64,
    eligible: Bools,
) -> Bools:
    """`keep` for all of `asked`, one after the other, on a whole source.

    `folder`: its edition of scores. `stems`: of its shards of documents, in order; the arrays hold their rows, one
    shard behind the other.

    Raises ConfigError when the scores are not of these documents, or a budget leaves nothing.
    """
    for item in asked:
        nearest = None
        if item.score in CONTROLS:
            scores = control(item.score, sizes, keys, item.seed)
        else:
            scores = column(folder, stems, item.score, len(sizes))
            if item.per_target:
                nearest = column(folder, stems, item.score + NEAREST, len(sizes))
        kept = keep(item, scores, sizes, keys, eligible, nearest)
        if eligible.any() and not kept.any():
            raise ConfigError(
                f"source {source!r}: prepare.select by {item.score!r} keeps nothing of {int(eligible.sum())} documents "
                f"({int(sizes[eligible].sum())} bytes); the first alone is more than its budget\n"
                f"  raise the budget, or drop such documents by a rule (max_bytes)"
            )
        eligible = kept
    return eligible


def left_out(
    source: str,
    asked: Sequence[Select],
    folder: Path,
    shards: Sequence[Path],
    verdicts: Sequence[Path],
    times: Sequence[bytes],
) -> list[bytes]:
    """Per shard of documents a byte per document: 1 where `asked` takes it out of what is trained on.

    `verdicts`: per shard, the key and the bytes of its documents. `times`: per document, how often it would be
    trained on; 0 for one that is dropped or held out, which is none of this decision's business.
    """
    keys, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for path in verdicts:
        table = parquet.read_table(path, columns=["key", "bytes"])
        whole = b"".join(key or bytes(16) for key in table["key"].to_pylist())
        keys.append(np.frombuffer(whole, ">u8")[::2].astype(np.uint64))
        sizes.append(table["bytes"].to_numpy())
    copies = np.frombuffer(b"".join(times), np.uint8)
    stems = [path.stem for path in shards]
    chosen = choose(source, asked, folder, stems, np.concatenate(sizes) * copies, np.concatenate(keys), copies > 0)
    gone = ((copies > 0) & ~chosen).astype(np.uint8)
    ends = np.cumsum([len(part) for part in times])
    return [part.tobytes() for part in np.split(gone, ends[:-1])]


def column(folder: Path, stems: Sequence[str], name: str, rows: int) -> F64:
    """One column of an edition of scores, as it is for these shards."""
    listed = read_ledger(folder).shards if (folder / LEDGER).exists() else {}
    files = {name_.removesuffix(".parquet").rpartition("-")[0]: name_ for name_ in listed if "/" not in name_}
    parts = [np.empty(0)]
    for stem in stems:
        file = folder / files.get(stem, "missing")
        if not file.exists() or name not in parquet.read_schema(file).names:
            raise ConfigError(f"{folder}: no score {name!r} of {stem}; run `ratoon prepare score {folder.name}`")
        parts.append(parquet.read_table(file, columns=[name])[name].to_numpy())
    found = np.concatenate(parts)
    if len(found) != rows:
        raise ConfigError(
            f"{folder}: {len(found)} scores of {rows} documents; run `ratoon prepare score {folder.name}`"
        )
    return found.astype(np.float64)
