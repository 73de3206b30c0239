"""The files of packed rows: their format, their index and their writer. The reader is ratoon.stream.rows.

    rows.json                  Index: format, base, tokenizer, shards of both parts with their counts
    <part>/<shard>.tokens      token ids, little-endian, uint16 for a vocabulary of up to 65536, else uint32
    <part>/<shard>.starts      uint64, little-endian: where each document starts, then the number of tokens
    train/<shard>.<score>      float32, little-endian: a score of each document, NaN where it has none; only where the
                               index lists scores, which also says how the files of each end
    train/<shard>.prefixes-<key> and .prefix_starts-<key>
                               a short text for each document; only where the index lists prefixes

part is train or held_out. A document is its tokens and then one separator; nothing else is in the stream.
A part is all its shards one after the other, by name; row i is tokens [i * row_tokens, (i + 1) * row_tokens) of it.

Needs numpy and nothing heavier: training reads these files on a bare machine.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratoon.config import ConfigError

FORMAT = 1
SCORES_FORMAT = 1
PREFIXES_FORMAT = 1
INDEX = "rows.json"
Part = Literal["train", "held_out"]


class ShardCounts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int  # separators included
    documents: int
    bytes: int  # of UTF-8 text, separators not included


class Scores(BaseModel):
    """Scores packed with the rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    suffixes: dict[str, str]  # score -> how the names of its files end: the score, -, a digest of what they are made of


class PackedPrefixes(BaseModel):
    """Prefixes packed with the rows (ratoon.corpus.prefixes)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    key: str  # at the end of the names of their files: a digest of what they are made of
    field: str
    documents: int  # that have one
    tokens: int


class Index(BaseModel):
    """What a packed edition says of itself: one rows.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    base: str
    tokenizer: str  # ratoon.corpus.tokenizer.tokenizer_digest
    vocabulary: int
    dtype: Literal["<u2", "<u4"]
    separator: int
    row_tokens: int
    shards: dict[Part, dict[str, ShardCounts]]
    totals: dict[Part, ShardCounts]
    # Left out where there are none: such an edition is the same bytes as before scores and prefixes could be packed.
    scores: Scores | None = Field(None, exclude_if=lambda found: found is None)
    prefixes: PackedPrefixes | None = Field(None, exclude_if=lambda found: found is None)


def dtype_for(vocabulary: int) -> Literal["<u2", "<u4"]:
    return "<u2" if vocabulary <= 2**16 else "<u4"


def read_index(path: Path) -> Index:
    """Raises ConfigError when `path` holds no packed rows of this format."""
    file = path / INDEX
    if not file.exists():
        raise ConfigError(f"{file}: not found; `ratoon prepare` packs the rows of a source for a base")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.get("format") != FORMAT:
            raise ConfigError(
                f"{file}: format {raw.get('format')!r}, this version reads {FORMAT}; pack the source anew"
            )
        return Index.model_validate(raw)
    except (ValidationError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: not a record of packed rows: {error}") from error


class ShardPacker:
    """Writes one shard, document by document, to `<path>.tokens` and `<path>.starts`."""

    def __init__(self, path: Path, vocabulary: int, separator: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.dtype = np.dtype(dtype_for(vocabulary))
        self.separator = np.array([separator], self.dtype)
        self.tokens = (path.parent / f"{path.name}.tokens").open("wb")
        self.starts = (path.parent / f"{path.name}.starts").open("wb")
        self.num_tokens = 0

    def add(self, pieces: Iterator[Any]) -> None:
        """One document, as one or more arrays of token ids; its separator follows by itself."""
        self._start()
        for piece in pieces:
            self._write(np.asarray(piece).astype(self.dtype))
        self._write(self.separator)

    def close(self) -> None:
        self._start()
        self.tokens.close()
        self.starts.close()

    def _start(self) -> None:
        self.starts.write(np.array([self.num_tokens], "<u8").tobytes())

    def _write(self, ids: np.ndarray) -> None:
        self.tokens.write(ids.tobytes())
        self.num_tokens += len(ids)
