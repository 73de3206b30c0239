"""A source by language: what is kept of it lies in one portion per language, each text in one alone.

Ingest, judges, duplicates, the held-out split and selection are those of the whole source. Only then is what is kept
divided, so a portion is to packing, training and measuring what a source is, and no text is read twice for it. A
document's language is the one found in its text, where prepare.language looks for it, else the declared one; with
`prepare.language.label: declared` the other way round.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ratoon.config import ConfigError, PrepareConfig, Source, Split, unknown
from ratoon.corpus.edition import LEDGER, read_ledger
from ratoon.corpus.rules.languages import UNDETERMINED, short
from ratoon.records import Ledger, Portion

REST = "other"
NO_PORTION = "no_portion"  # why a document is dropped
CODE = re.compile(r"[a-z]{2,3}")
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


class Divided(NamedTuple):
    names: tuple[str, ...]  # of the portions, in order
    of: U8  # which of them each document is in; of one that is in none it says nothing
    outside: NDArray[np.bool_]  # kept until now, and in no portion


class Share(NamedTuple):
    """A portion, to those who read it."""

    name: str  # what losses and benchmarks call it
    folder: str  # in the source's clean edition and in its rows; empty: the whole edition
    weight: float


def divide(
    source: Source,
    split: Split,
    config: PrepareConfig,
    inputs: Sequence[Path],
    verdicts: Sequence[Path],
    parts: U8,
    sizes: I64,
) -> Divided:
    """`parts`: of each document 0 (dropped), 1 (to train on) or 2 (held out); `sizes`: its bytes.

    Raises ConfigError when no language is known, or one that is asked for is not there.
    """
    codes, languages = _labels(inputs, verdicts, bool(config.language and config.language.label == "declared"))
    kept = parts > 0
    if not languages:
        raise ConfigError(
            f"source {source.name!r}: split: no document says what language it is in\n"
            f"  set prepare.language in params.yaml ({{}} is enough), or name a language column"
        )
    found = _amounts(codes, languages, parts, sizes)
    own = _own(source, split, config.held_out.min_documents, found, int(sizes[kept].sum()))
    number = {name: i for i, name in enumerate(own)}
    # One place more than there are languages: that of documents without.
    table = np.array([*(number.get(name, len(own)) for name in languages), len(own)], np.uint8)
    of = table[codes]
    outside = kept & (of == len(own))
    names = tuple(own)
    if split.rest == "other" and outside.any():
        names, outside = (*names, REST), np.zeros_like(outside)
    if bare := sorted({*_times(split)} - {*names}):
        raise ConfigError(f"source {source.name!r}: split.weights: {unknown('portion', bare[0], list(names))}")
    return Divided(names, of, outside)


def _labels(
    inputs: Sequence[Path], verdicts: Sequence[Path], declared_first: bool
) -> tuple[NDArray[np.int16], list[str]]:
    """A number for the language of each document, -1 for none, and the languages by number."""
    names: dict[str, int] = {}
    parts = [np.empty(0, np.int16)]
    for shard, path in zip(inputs, verdicts, strict=True):
        declared = pl.Series(parquet.read_table(shard, columns=["language"])["language"], dtype=pl.String)
        noted = "language" in parquet.read_schema(path).names
        found = pl.Series(parquet.read_table(path, columns=["language"])["language"]) if noted else declared
        first, second = (declared, found) if declared_first else (found, declared)
        first = pl.Series([_code(label) if label else None for label in first])
        labels = [a or (_code(b) if b else None) for a, b in zip(first, second, strict=True)]
        parts.append(np.array([names.setdefault(label, len(names)) if label else -1 for label in labels], np.int16))
    return np.concatenate(parts), list(names)


def _code(label: str) -> str | None:
    """None: says nothing that a portion could be called."""
    code = short(label)
    return code if code != UNDETERMINED and CODE.fullmatch(code) else None


def _amounts(codes: NDArray[np.int16], languages: list[str], parts: U8, sizes: I64) -> dict[str, Portion]:
    """By language, of what is kept."""
    found = {}
    for number, name in enumerate(languages):
        rows, held = (codes == number) & (parts > 0), (codes == number) & (parts == 2)
        if rows.any():
            found[name] = _amount(rows, held, sizes)
    return found


def _amount(rows: NDArray[np.bool_], held: NDArray[np.bool_], sizes: I64) -> Portion:
    return Portion(
        documents=int(rows.sum()),
        bytes=int(sizes[rows].sum()),
        held_out_documents=int(held.sum()),
        held_out_bytes=int(sizes[held].sum()),
    )


def _own(source: Source, split: Split, least: int, found: dict[str, Portion], total: int) -> list[str]:
    """The languages that are portions."""
    if not split.languages:
        return sorted(
            name
            for name, each in found.items()
            if each.bytes >= split.min_share * total
            and each.held_out_documents >= least
            and each.bytes >= 2 * each.held_out_bytes
        )
    asked = sorted({short(name) for name in split.languages})
    if missing := [name for name in asked if name not in found]:
        there = ", ".join(f"{name} ({each.documents:,})" for name, each in sorted(found.items()))
        raise ConfigError(
            f"source {source.name!r}: split.languages: no clean document is in {missing[0]!r}; there are {there}\n"
            f"  add such text, or take it out of the list"
        )
    return asked


def told(names: Sequence[str], of: U8, parts: U8, sizes: I64) -> dict[str, Portion]:
    """What each portion holds, for the ledger."""
    return {
        name: _amount((of == number) & (parts > 0), (of == number) & (parts == 2), sizes)
        for number, name in enumerate(names)
    }


def folders(ledger: Ledger) -> tuple[str, ...]:
    """What the names of an edition's parts begin with: a folder per portion, or nothing."""
    return tuple(f"{name}/" for name in sorted(ledger.portions)) or ("",)


def shares(source: Source, clean: Path) -> tuple[Share, ...]:
    """The source as it is read: itself, or its portions, by the bytes they hold and the weights that are declared."""
    if source.split is None or not (clean / LEDGER).exists():
        return (Share(source.name, "", source.weight),)
    found = {name: each.bytes - each.held_out_bytes for name, each in read_ledger(clean).portions.items()}
    times = _times(source.split)
    sizes = {name: size * times.get(name, 1.0) for name, size in sorted(found.items())}
    total = sum(sizes.values())
    return tuple(Share(f"{source.name}.{name}", name, source.weight * size / total) for name, size in sizes.items())


def _times(split: Split) -> dict[str, float]:
    return {name if name == REST else short(name): weight for name, weight in split.weights.items()}
