"""A mean with its interval, where values that share a document stand and fall together.

    se^2 = C / (C - 1) * sum_c (sum_{i in c} (x_i - mean))^2 / n^2        (arXiv:2411.00640)

C  documents     n  values     t with C - 1 degrees of freedom
"""

import math
from collections.abc import Sequence

import numpy as np

from ratoon.records import Interval


def mean(values: Sequence[float], documents: Sequence[object] | None, confidence: float) -> Interval | None:
    """documents: of each value, none if each has its own. None for fewer than two documents: nothing is known then."""
    from scipy.stats import t

    found = np.asarray(values, np.float64)
    error = standard_error(found, documents)
    if error is None:
        return None
    clusters = len(found) if documents is None else len(set(documents))
    reach = float(t.ppf((1 + confidence) / 2, clusters - 1)) * error
    value = float(found.mean())
    return Interval(value=value, low=value - reach, high=value + reach, confidence=confidence)


def standard_error(values: np.ndarray, documents: Sequence[object] | None) -> float | None:
    if documents is None:
        place, count = np.arange(len(values)), len(values)
    else:
        names, place = np.unique([str(each) for each in documents], return_inverse=True)
        count = len(names)
    if count < 2:
        return None
    sums = np.bincount(place, weights=values - values.mean(), minlength=count)
    return math.sqrt(count / (count - 1) * float(np.square(sums).sum())) / len(values)
