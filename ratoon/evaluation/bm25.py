"""Which passages say what a text says: Okapi BM25 (doi:10.1561/1500000019).

    score(q, p) = sum over the words t of q of  idf(t) tf(t, p) (k1 + 1) / (tf(t, p) + k1 (1 - b + b |p| / mean |p|))
    idf(t)      = ln(1 + (n - df(t) + 1/2) / (df(t) + 1/2))

n, df: passages, and those with word t. A word that a text asks for twice counts twice. Words are those of
corpus/scores/features.py, hashed into buckets; what is written into passages is half of the formula already, so that
a question is one sparse product.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ratoon.corpus.dedup.words import I64
from ratoon.corpus.scores.features import words_of
from ratoon.corpus.scores.retrieval import occurrences

BUCKETS = 1 << 18
CELLS = 1 << 22  # similarities held at once: questions by passages


class Index(NamedTuple):
    by_word: csr_array  # buckets by passages: what a word of the question adds
    passages: int

    def best(self, questions: pa.Array, count: int) -> list[list[int]]:
        """The numbers of the `count` best passages of each question, best first; none that shares no word with it."""
        asked = counts(questions)
        step = max(1, CELLS // max(1, self.passages))
        found: list[list[int]] = []
        for begin in range(0, asked.shape[0], step):
            scores_QP = asked[begin : begin + step].dot(self.by_word).toarray()
            found += [highest(scores_P, count) for scores_P in scores_QP]
        return found


def highest(scores: NDArray[np.float32], count: int) -> list[int]:
    """Of equal scores the first, whatever the library's order."""
    if count < len(scores):
        least = max(np.partition(scores, -count)[-count], np.finfo(np.float32).tiny)
        among = np.flatnonzero(scores >= least)
    else:
        among = np.flatnonzero(scores > 0)
    return [int(i) for i in among[np.argsort(-scores[among], kind="stable")][:count]]


def build(passages: pa.Array, k1: float, b: float) -> Index:
    held = counts(passages).tocoo()
    lengths = np.bincount(held.row, held.data, len(passages))
    having = np.bincount(held.col, minlength=BUCKETS)
    idf = np.log1p((len(passages) - having + 0.5) / (having + 0.5))
    longer = k1 * (1 - b + b * lengths / max(1.0, lengths.mean() if len(lengths) else 1.0))
    weights = idf[held.col] * held.data * (k1 + 1) / (held.data + longer[held.row])
    shape = (BUCKETS, len(passages))
    return Index(csr_array((weights.astype(np.float32), (held.col, held.row)), shape=shape), len(passages))


def counts(texts: pa.Array) -> csr_array:
    """How often each text has each word; a row per text."""
    rows: list[I64] = [np.empty(0, np.int64)]
    columns: list[I64] = [np.empty(0, np.int64)]
    often: list[I64] = [np.empty(0, np.int64)]
    for here, hashes, lengths in words_of(texts):
        row, word, times = occurrences(np.repeat(np.arange(len(lengths)), lengths), hashes, BUCKETS)
        rows.append(row + here.start)
        columns.append(word)
        often.append(times)
    data = np.concatenate(often).astype(np.float32)
    return csr_array((data, (np.concatenate(rows), np.concatenate(columns))), shape=(len(texts), BUCKETS))
