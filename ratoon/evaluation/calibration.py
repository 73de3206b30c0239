"""Does a model know how sure to be? Expected calibration error over multiple-choice items.

    p(choice) = softmax over the choices' log-likelihoods;   confidence = the largest p of an item
    ECE = sum over bins of  items in the bin / items * |accuracy - mean confidence|,   ten bins of equal width on 0..1

Few items make even a calibrated model miss: `by_chance` is the mean ECE of answers drawn from the model's own
confidences, the least that can be asked for. Log-likelihoods of long choices are far apart, so that confidences are
extreme; what counts is the change from parent to candidate, and items of another length are another scale.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ratoon.records import Record

BINS = 10
DRAWS = 500


class Bin(Record):
    low: float
    high: float
    items: int
    confidence: float
    accuracy: float


class Calibrated(Record):
    ece: float
    by_chance: float = Field(description="mean ECE of a calibrated model with these confidences and as many items")
    overconfidence: float = Field(description="mean confidence - accuracy")
    bins: tuple[Bin, ...] = Field(description="those with items")


class Calibration(Record):
    benchmark: str
    source: str
    items: int
    parent: Calibrated
    candidate: Calibrated


def calibrated(logliks: Sequence[Sequence[float]], gold: Sequence[int], seed: int = 0) -> Calibrated:
    found = [softmax(each) for each in logliks]
    confidence = np.array([p.max() for p in found])
    correct = np.array([float(p.argmax() == right) for p, right in zip(found, gold, strict=True)])
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    drawn = np.random.default_rng(seed).random((DRAWS, len(confidence))) < confidence
    bins = [
        Bin(
            low=n / BINS,
            high=(n + 1) / BINS,
            items=int((place == n).sum()),
            confidence=float(confidence[place == n].mean()),
            accuracy=float(correct[place == n].mean()),
        )
        for n in np.unique(place)
    ]
    return Calibrated(
        ece=error(confidence, correct, place),
        by_chance=float(np.mean([error(confidence, row.astype(float), place) for row in drawn])),
        overconfidence=float(confidence.mean() - correct.mean()),
        bins=tuple(bins),
    )


def softmax(logliks: Sequence[float]) -> np.ndarray:
    shifted = np.exp(np.asarray(logliks, float) - max(logliks))
    return np.asarray(shifted / shifted.sum())


def error(confidence: np.ndarray, correct: np.ndarray, place: np.ndarray) -> float:
    gaps = np.bincount(place, correct - confidence, BINS)
    return float(np.abs(gaps).sum() / len(confidence))
