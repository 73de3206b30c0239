"""Repair and protection of text, at ingest: private strings never reach the disk.

Off unless prepare.amend asks for it, by kind of text. What becomes of a text depends on that text alone. Values are
never logged or stored, only how many there were.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ftfy
import polars as pl

from ratoon.config import Amend
from ratoon.corpus.amend.mask import holds, mask
from ratoon.corpus.amend.mask import suspects as may_be_private
from ratoon.corpus.amend.repair import repair
from ratoon.corpus.amend.repair import suspects as may_be_broken
from ratoon.corpus.formats import Bad, Record, sound

# Raise it whenever the same text and configuration would give another text.
VERSION = 2
REPAIR = "repair"
# Records looked at together. What comes out does not depend on it.
BLOCK_CHARS = 4 << 20
BLOCK_RECORDS = 512
ROUNDS = 8

Counts = Counter[str]  # kind of change -> how often


class Amended(NamedTuple):
    """A record as it is stored, and what was changed in it. A text of which nothing is left is Bad."""

    record: Record | Bad
    counts: Counts


def content(asked: Amend | None) -> tuple[object, ...]:
    """All that decides, for a digest; nothing where nothing is asked."""
    if asked is None or not asked.asked:
        return ()
    return (VERSION, asked.repair and ftfy.__version__, *asked.mask)


def amended(items: Iterable[Record | Bad], asked: Amend | None) -> Iterator[Amended]:
    """The records in their order, repaired and masked: text, place and all that came with it."""
    if asked is None or not asked.asked:
        yield from (Amended(item, Counts()) for item in items)
        return
    block: list[Record | Bad] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item.text) if isinstance(item, Record) else 0
        if size >= BLOCK_CHARS or len(block) >= BLOCK_RECORDS:
            yield from _block(block, asked)
            block, size = [], 0
    yield from _block(block, asked)


def _block(items: list[Record | Bad], asked: Amend) -> Iterator[Amended]:
    texts = amend([item.text for item in items if isinstance(item, Record)], asked)
    beside = _beside(items, asked)
    for item, (place, fields, counts) in zip(items, beside, strict=True):
        if isinstance(item, Bad):
            yield Amended(item._replace(place=place), counts)
        else:
            text, changes = next(texts)
            # Repair may leave nothing of a text that was control characters alone.
            yield Amended(sound(Record(place, text, fields)), changes + counts)


# ---------------------------------------------------------------- texts


def amend(texts: Sequence[str], asked: Amend) -> Iterator[tuple[str, Counts]]:
    """Each text as it is stored, and how often each kind of change was made. Amending it again changes nothing."""
    first = [(text, Counts()) for text in texts]
    if asked.repair:
        broken = may_be_broken(pl.Series(texts, dtype=pl.String))
        first = [_repaired(text) if odd else (text, Counts()) for text, odd in zip(texts, broken, strict=True)]
    private = may_be_private(pl.Series([text for text, _ in first], dtype=pl.String), asked.mask)
    for (text, counts), likely in zip(first, private, strict=True):
        yield _settled(text, counts, asked, likely) if likely else (text, counts)


def _repaired(text: str) -> tuple[str, Counts]:
    text, lines = repair(text)
    return text, Counts({REPAIR: lines} if lines else ())


def _settled(text: str, counts: Counts, asked: Amend, likely: list[str]) -> tuple[str, Counts]:
    """Masked, and repaired where masking took away what kept a line from being repaired, until nothing changes."""
    if not holds(text, likely):
        return text, counts
    for _ in range(ROUNDS):
        text, found = mask(text, asked.mask)
        counts = counts + found
        if not found or not asked.repair:
            break
        text, mended = _repaired(text)
        counts = counts + mended
        if not mended:
            break
    return text, counts


# ---------------------------------------------------------------- what came with them


def _beside(items: list[Record | Bad], asked: Amend) -> Iterator[tuple[str, dict[str, Any], Counts]]:
    """Place and fields of each, masked. They are never repaired: others find records by them."""
    fields = [item.fields if isinstance(item, Record) else {} for item in items]
    joined = ["\n".join([item.place, *_strings(own)]) for item, own in zip(items, fields, strict=True)]
    clean = [text.encode("utf-8", "replace").decode() for text in joined]
    private = may_be_private(pl.Series(clean, dtype=pl.String), asked.mask)
    for item, own, odd in zip(items, fields, private, strict=True):
        counts = Counts()
        yield (
            (_masked(item.place, asked, counts), _masked(own, asked, counts), counts)
            if odd
            else (
                item.place,
                own,
                counts,
            )
        )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif value is not None and not isinstance(value, bool):
        yield _written(value)


def _written(value: Any) -> str:
    """As a person reads it: a card is a number too, and a column of numbers with gaps comes as floats."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)


def _masked(value: Any, asked: Amend, counts: Counts) -> Any:
    if isinstance(value, dict):
        return _masked_keys(value, asked, counts)
    if isinstance(value, list | tuple):
        return [_masked(item, asked, counts) for item in value]
    if value is None or isinstance(value, bool):
        return value
    text, found = mask(_written(value), asked.mask)
    counts.update(found)
    return text if found else value


def _masked_keys(fields: dict[Any, Any], asked: Amend, counts: Counts) -> dict[Any, Any]:
    """Keys that become the same are told apart by numbers: no value is lost."""
    masked: dict[Any, Any] = {}
    for key, item in fields.items():
        name = first = _masked(key, asked, counts)
        number = 1
        while name in masked or (name != key and name in fields):
            number += 1
            name = f"{first} {number}"
        masked[name] = _masked(item, asked, counts)
    return masked
