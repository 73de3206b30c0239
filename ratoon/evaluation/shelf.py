"""Training text cut into passages, to be shown in front of what a model is asked.

Only what training may read is on the shelf: the training part of clean editions, of a large one a sample by hash. A
passage that a held-out document holds too, word for word in large part, is never shown with that document: a copy
would be an answer, not a context. Clean editions have no near-duplicates across their two parts where that is asked
for (prepare.dedup); here it holds whether asked for or not, and for parts of documents too.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon.config import ConfigError
from ratoon.corpus.decontaminate.split import runs
from ratoon.corpus.dedup.words import U64
from ratoon.corpus.scores.features import words_of
from ratoon.evaluation.held_out import held_out_documents
from ratoon.evaluation.passages import rank

RUN = 5  # words
SPACES = " \t\r\n"


class Shelf(NamedTuple):
    """Passages of some sources, in an order that is the texts' own."""

    texts: list[str]
    documents: list[str]  # the document of each

    @property
    def num_bytes(self) -> int:
        return sum(len(text.encode()) for text in self.texts)


def shelve(editions: list[Path], passage_chars: int, max_bytes: int) -> Shelf:
    """Raises ConfigError where an edition has no training text."""
    found = sorted((key, text) for edition in editions for key, text in sampled(edition, max_bytes))
    pieces = [(piece, key) for key, text in found for piece in cut(text, passage_chars)]
    if not pieces:
        raise ConfigError(f"{', '.join(map(str, editions))}: no training text to show; `ratoon prepare` writes it")
    return Shelf([piece for piece, _ in pieces], [key for _, key in pieces])


def sampled(edition: Path, max_bytes: int) -> Iterator[tuple[str, str]]:
    """(id, text) of the training part; of one that is larger about `max_bytes`, chosen by the hash of the id."""
    files = training_files(edition)
    size = sum(text_bytes(file) for file in files)
    limit = min(1.0, max_bytes / max(1, size)) * 2**64
    for file in files:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=256, columns=["id", "text"]):
                pairs = zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True)
                yield from (pair for pair in pairs if limit >= 2**64 or rank(pair[0]) < limit)


def training_files(edition: Path) -> list[Path]:
    files = sorted(edition.glob("train-*.parquet"))
    if not files:
        raise ConfigError(f"{edition}: no train-*.parquet here; `ratoon prepare` writes them")
    return files


def text_bytes(file: Path) -> int:
    """Of its texts, about, without reading them."""
    facts = parquet.read_metadata(file)
    groups = [facts.row_group(n) for n in range(facts.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")


def cut(text: str, chars: int) -> Iterator[str]:
    """Pieces of about `chars` characters, each to the end of a word where one is near."""
    begin = 0
    while begin < len(text):
        end = min(len(text), begin + chars)
        while end < len(text) and end < begin + 2 * chars and text[end] not in SPACES:
            end += 1
        if piece := text[begin:end].strip():
            yield piece
        begin = end


class Copies:
    """How much of a passage a held-out document says too."""

    def __init__(self, shelf: Shelf, documents: Mapping[str, str]) -> None:
        """documents  id -> whole text of what is held out"""
        self.shelf = shelf
        self._said = dict(zip(documents, grams(list(documents.values())), strict=True))

    def share(self, passage: int, document: str) -> float:
        """Of its runs of five words; 1 where it has not so many words, and says nothing."""
        own = self._own[passage]
        return float(np.isin(own, self._said[document]).mean()) if len(own) else 1.0

    @cached_property
    def _own(self) -> list[U64]:
        return grams(self.shelf.texts)


def grams(texts: list[str]) -> list[U64]:
    """The distinct runs of words of each text."""
    found: list[U64] = []
    for _, hashes, lengths in words_of(pa.array(texts, pa.large_string())):
        ends = np.cumsum(lengths)
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True):
            found.append(np.unique(runs(hashes[end - length : end], np.arange(max(0, length - RUN + 1)), RUN)))
    return found


def whole_documents(editions: list[Path], wanted: set[str]) -> dict[str, str]:
    """id -> text of held-out documents, all of it: what is scored may be a part."""
    found = (document for edition in editions for document in held_out_documents(edition))
    return {document.id: document.text for document in found if document.id in wanted}
