"""A linear classifier over hashed words and pairs of words, as fastText's for two labels (arXiv:1607.01759).

    score(x) = w0 + mean over the words and pairs of x of w(bucket)          log-odds of the positive side

fastText averages embeddings and applies one linear layer; with two labels that is one number per bucket, which is
what is trained here: logistic loss, both sides counting the same, AdaGrad (Duchi et al. 2011), a few passes. The
order of training follows from the texts and the seed, so the shards' own order changes nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratoon.config import Classifier
from ratoon.corpus.dedup.signatures import ranges
from ratoon.corpus.dedup.words import GOLDEN, I64, U64, mix
from ratoon.corpus.scores.features import F64, U32, grams, sums, words_of
from ratoon.corpus.scores.reference import Reference

BATCH = 64
# One text in so many is not trained on, and says how well the sides are told apart.
ASIDE = 20


@dataclass(frozen=True)
class Linear:
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]  # one

    def scores(self, texts: pa.Array) -> dict[str, F64]:
        total, number, _ = sums(self.weights, texts)
        mean = total / np.maximum(number, 1) + float(self.bias[0])
        return {"": np.where(number > 0, mean, np.nan)}


class Examples(NamedTuple):
    """Texts as buckets, one after the other."""

    buckets: U32
    starts: I64
    counts: I64
    positive: NDArray[np.bool_]
    keys: U64


def train(config: Classifier, positive: Reference, negative: Reference) -> tuple[Linear, dict[str, float]]:
    examples = _examples(config.buckets, positive, negative)
    aside = mix(examples.keys) % np.uint64(ASIDE) == 0
    model = _fit(config, examples, np.flatnonzero(~aside & (examples.counts > 0)))
    rest = np.flatnonzero(aside & (examples.counts > 0))
    sums_ = np.add.reduceat(model.weights[_of(examples, rest)].astype(np.float64), _firsts(examples.counts[rest]))
    found = auc(sums_ / examples.counts[rest], examples.positive[rest]) if len(rest) else None
    return model, {} if found is None else {"auc": round(found, 4)}


def _examples(buckets: int, positive: Reference, negative: Reference) -> Examples:
    parts, numbers = [np.empty(0, np.uint32)], []
    for side in (positive, negative):
        for _, hashes, lengths in words_of(side.texts):
            numbers.append(np.maximum(2 * lengths - 1, 0))
            parts += [part.buckets for part in grams(hashes, lengths, buckets)]
    counts = np.concatenate(numbers)
    label = np.arange(len(counts)) < len(positive.texts)
    return Examples(
        np.concatenate(parts), _firsts(counts), counts, label, np.concatenate([positive.keys, negative.keys])
    )


def _firsts(counts: I64) -> I64:
    return np.cumsum(counts) - counts


def _of(examples: Examples, chosen: I64) -> U32:
    return examples.buckets[ranges(examples.starts[chosen], examples.counts[chosen])]


def _fit(config: Classifier, examples: Examples, chosen: I64) -> Linear:
    sign = np.where(examples.positive, 1.0, -1.0)
    share = np.array([max(1, int((~examples.positive[chosen]).sum())), max(1, int(examples.positive[chosen].sum()))])
    importance = len(chosen) / (2 * share[examples.positive.astype(int)])
    # The last one is the bias, which every text has as a word of its own.
    weights, squares, gradient = (np.zeros(config.buckets + 1) for _ in range(3))
    for epoch in range(config.epochs):
        salt = mix(np.array([config.seed * 1000 + epoch], np.int64).astype(np.uint64) + np.uint64(GOLDEN))
        order = chosen[np.lexsort((examples.keys[chosen], mix(examples.keys[chosen] ^ salt)))]
        for begin in range(0, len(order), BATCH):
            some = order[begin : begin + BATCH]
            counts = examples.counts[some]
            owner = np.append(np.repeat(np.arange(len(some)), counts), np.arange(len(some)))
            at = np.append(_of(examples, some), np.full(len(some), config.buckets, np.uint32))
            part = np.append(np.repeat(1 / counts, counts), np.ones(len(some)))
            margin = sign[some] * np.bincount(owner, weights[at] * part)
            pull = sign[some] * importance[some] / (1 + np.exp(np.minimum(margin, 500.0))) / len(some)
            np.add.at(gradient, at, part * pull[owner])
            # A bucket that is there twice is written twice with the same.
            squares[at] = squares[at] + gradient[at] ** 2
            weights[at] = weights[at] + config.learning_rate * gradient[at] / np.sqrt(squares[at] + 1e-12)
            gradient[at] = 0
    return Linear(weights[:-1].astype(np.float32), weights[-1:].astype(np.float32))


def auc(scores: F64, positive: NDArray[np.bool_]) -> float | None:
    """Share of pairs in which the positive one has the higher score, ties half; None without both."""
    wins, losses = int(positive.sum()), int((~positive).sum())
    if not wins or not losses:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    return float((rank[inverse][positive].sum() - wins * (wins + 1) / 2) / (wins * losses))
