"""How near a text is to a set of target documents: cosine of TF-IDF, to the nearest of them (as kNN-TAPT retrieves,
arXiv:2004.10964, over words and not over embeddings).

    w(t, x) = (1 + ln count(t, x)) ln((1 + n) / (1 + df(t)))     score(x) = max over targets q of cos(w(x), w(q))

n, df: documents of the background, and those with word t. Words in more than `max_share` of them weigh nothing. The
cosine of a text with itself is 1, so a copy of a target is nearest to it. Words fall into buckets; one that no
background text has is as rare as can be.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ratoon.config import Retrieval
from ratoon.corpus.dedup.words import I64, U64
from ratoon.corpus.scores.features import F64, bucket, mix, words_of
from ratoon.corpus.scores.reference import Reference

# Similarities held at once: texts by targets.
CELLS = 1 << 19


@dataclass(frozen=True)
class Targets:
    """Weights of words, and the target documents as unit vectors, one column each."""

    rarity: NDArray[np.float32]
    values: NDArray[np.float32]
    columns: NDArray[np.int32]
    starts: NDArray[np.int32]
    keys: U64  # of the target documents' texts

    def scores(self, texts: pa.Array) -> dict[str, F64]:
        """The similarity, and under ":nearest" which target it is to; no number where no word counts."""
        shape = (len(self.rarity), len(self.keys))
        targets = csr_array((self.values, self.columns, self.starts), shape)
        best, nearest = np.full(len(texts), np.nan), np.full(len(texts), np.nan)
        for here, rows in vectors(texts, self.rarity):
            step = max(1, CELLS // len(self.keys))
            for begin in range(0, rows.shape[0], step):
                some = rows[begin : begin + step]
                likeness = some.dot(targets).toarray()
                filled = np.diff(some.indptr) > 0
                at = slice(here.start + begin, here.start + begin + some.shape[0])
                best[at] = np.where(filled, likeness.max(axis=1), np.nan)
                nearest[at] = np.where(best[at] > 0, likeness.argmax(axis=1), np.nan)
        return {"": best, ":nearest": nearest}


def vectors(texts: pa.Array, rarity: NDArray[np.float32]) -> Iterator[tuple[slice, csr_array]]:
    """Unit vectors, a row per text; one without a word that counts is empty."""
    for here, hashes, lengths in words_of(texts):
        owner = np.repeat(np.arange(len(lengths)), lengths)
        row, word, counts = occurrences(owner, hashes, len(rarity))
        counting = rarity[word] > 0
        row, word, counts = row[counting], word[counting], counts[counting]
        weights = (1 + np.log(counts)) * rarity[word]
        norm = np.sqrt(np.bincount(row, weights**2, len(lengths)))
        starts = np.searchsorted(row, np.arange(len(lengths) + 1))
        yield here, csr_array((weights / norm[row], word, starts), (len(lengths), len(rarity)))


def occurrences(owner: I64, hashes: U64, buckets: int) -> tuple[I64, I64, I64]:
    """(text, bucket, how often), each text with each of its buckets once."""
    both = owner.astype(np.uint64) << np.uint64(32) | bucket(mix(hashes), buckets)
    distinct, counts = np.unique(both, return_counts=True)
    low = np.uint64(2**32 - 1)
    return (distinct >> np.uint64(32)).astype(np.int64), (distinct & low).astype(np.int64), counts


def train(config: Retrieval, target: Reference, background: Reference) -> tuple[Targets, dict[str, float]]:
    having = np.zeros(config.buckets, np.int64)
    for _, hashes, lengths in words_of(background.texts):
        owner = np.repeat(np.arange(len(lengths)), lengths)
        having += np.bincount(occurrences(owner, hashes, config.buckets)[1], minlength=config.buckets)
    total = len(background.texts)
    rarity = np.log((1 + total) / (1 + having))
    rarity[having > config.max_share * total] = 0
    weights = rarity.astype(np.float32)
    rows = [part for _, part in vectors(target.texts, weights)]
    parts = [part.tocoo() for part in rows]
    firsts = np.cumsum([0, *(part.shape[0] for part in rows)])
    row = np.concatenate([part.row + first for part, first in zip(parts, firsts[:-1], strict=True)])
    column = np.concatenate([part.col for part in parts])
    data = np.concatenate([part.data for part in parts]).astype(np.float32)
    by_word = csr_array((data, (column, row)), (config.buckets, len(target.texts)))
    arrays = (by_word.data, by_word.indices.astype(np.int32), by_word.indptr.astype(np.int32))
    return Targets(weights, *arrays, target.keys), {"compared": float(len(np.unique(row)))}
