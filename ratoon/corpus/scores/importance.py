"""Importance weights of hashed words and pairs of words (DSIR, arXiv:2302.03169).

    weight(x) = sum over the words and pairs of x of  log(p(b) + e) - log(q(b) + e),   e = 1e-8

b bucket of a word or pair    p, q shares of bucket b in the target and in the raw text

Adding Gumbel noise to weights and keeping the largest draws without replacement, with odds of exp(weight). A weight is
a sum, so long texts have the largest and the least; `per_word` divides it by the number of words and pairs.
Words here are runs of letters and digits; the published code counts punctuation as words too.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratoon.config import Importance
from ratoon.corpus.dedup.words import I64
from ratoon.corpus.scores.features import F64, grams, sums, words_of
from ratoon.corpus.scores.reference import Reference

FLOOR = 1e-8


@dataclass(frozen=True)
class Weights:
    log_ratio: NDArray[np.float32]
    per_word: NDArray[np.bool_]  # one

    def scores(self, texts: pa.Array) -> dict[str, F64]:
        total, number, _ = sums(self.log_ratio, texts)
        weight = total / np.maximum(number, 1) if self.per_word[0] else total
        return {"": np.where(number > 0, weight, np.nan)}


def counts(texts: pa.Array, buckets: int) -> I64:
    total = np.zeros(buckets, np.int64)
    for _, hashes, lengths in words_of(texts):
        for part in grams(hashes, lengths, buckets):
            total += np.bincount(part.buckets, minlength=buckets)
    return total


def train(config: Importance, target: Reference, raw: Reference) -> tuple[Weights, dict[str, float]]:
    shares = [_shares(counts(side.texts, config.buckets)) for side in (target, raw)]
    log_ratio = (np.log(shares[0] + FLOOR) - np.log(shares[1] + FLOOR)).astype(np.float32)
    return Weights(log_ratio, np.array([config.per_word])), {}


def _shares(found: I64) -> F64:
    return found / max(1, int(found.sum()))
