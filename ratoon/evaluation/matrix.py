"""What a chain of refreshes learned and forgot, from the scores of its models on slices of text.

    R[i, j]   score of the model after refresh i on slice j, higher is better; row 0 is the base, row T the newest
    n_j       the first row whose text held slice j

    acc          mean_j R[T, j]
    bwt          mean over n_j < T  of  R[T, j] - R[n_j, j]                      backward transfer
    fwt          mean over n_j >= 2 of  R[n_j - 1, j] - R[0, j]                  forward transfer
    forgetting   mean over n_j < T  of  max over 1 <= l < T of R[l, j], less R[T, j]
    plasticity   mean_j R[n_j, j] - R[n_j - 1, j]
    diagonal, lower, upper   means of R[n_j, j], and of R[i, j] after and before it, 1 <= i <= T (arXiv:2504.02107)
    step, total  mean_j R[T, j] - R[T - 1, j] and R[T, j] - R[0, j]

With one slice per refresh these are the figures of the continual-learning literature. A loss is a score with its sign
turned. NaN is not measured: a mean is over what was, and of nothing it is NaN, never 0.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
NAMES = ("acc", "bwt", "fwt", "forgetting", "plasticity", "diagonal", "lower", "upper", "step", "total")


class Slice(NamedTuple):
    """One column, document by document: bits of every model (NaN: it was not asked), bytes."""

    bits_RD: F64
    bytes_D: F64


def figures(scores: F64, born: I64) -> dict[str, F64]:
    """All of them, from scores of shape [..., rows, slices]; each has the shape that is left."""
    last = scores.shape[-2] - 1
    if last < 1 or born.min(initial=1) < 1 or born.max(initial=1) > last:
        raise ValueError(
            f"{last + 1} rows, slices born in {sorted(set(born.tolist()))}: rows 1 to {last} are refreshes"
        )
    column = np.arange(scores.shape[-1])
    row = np.arange(last + 1)[:, None]
    now, base = scores[..., last, :], scores[..., 0, :]
    own, before = scores[..., born, column], scores[..., born - 1, column]
    best = _max(np.where((row >= 1) & (row < last), scores, np.nan))
    return {
        "acc": _mean(now),
        "bwt": _mean((now - own)[..., born < last]),
        "fwt": _mean((before - base)[..., born >= 2]),
        "forgetting": _mean((best - now)[..., born < last]),
        "plasticity": _mean(own - before),
        "diagonal": _mean(own),
        "lower": _mean(scores[..., row > born]),
        "upper": _mean(scores[..., (row >= 1) & (row < born)]),
        "step": _mean(now - scores[..., last - 1, :]),
        "total": _mean(now - base),
    }


def bits_per_byte(slices: list[Slice]) -> F64:
    """[rows, slices]; NaN where a model was not asked."""
    return np.stack([each.bits_RD.sum(1) / each.bytes_D.sum() for each in slices], axis=1)


def resampled(slices: list[Slice], draws: int, seed: int) -> F64:
    """The same on draws of documents, with replacement within each slice, the same for every model.

    [draws, rows, slices]: what makes a document hard is hard for all models, and cancels in their differences.
    """
    rng = np.random.default_rng(seed)
    made = []
    for each in slices:
        count = len(each.bytes_D)
        times_BD = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
        made.append(times_BD @ each.bits_RD.T / (times_BD @ each.bytes_D)[:, None])
    return np.stack(made, axis=2)


def _mean(values: F64) -> F64:
    """Over the last axis, of what is there."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=-1))


def _max(values: F64) -> F64:
    """Over rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmax(values, axis=-2))
