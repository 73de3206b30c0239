"""Noise that shows without any law: runs repeated with another seed, and checkpoints in a row."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.fitting.identify import scatter
from ratoon.laws.form import Array, Inputs, share_levels
from ratoon.laws.intervals.lanes import Lanes

REPEATS = 3  # runs that repeat another, from which on they alone tell the noise: fewer leave it to a factor of three

# Second differences of neighbours share measurements (1 + 2 (4/6)^2 + 2 (1/6)^2), and the median that is taken of them
# is worth 0.37 of a mean of squares.
DIFFERENCE = 0.37 / 1.94  # degrees of freedom in one of them


class Scale(NamedTuple):
    """A level of noise known beforehand, relative, how surely, and whence."""

    value: float
    degrees: float
    said: str


def differences(progress: ArrayLike, loss: ArrayLike, groups: Sequence[str]) -> Scale:
    """How far each checkpoint lies off the line between its neighbours (Gasser, Sroka and Jennen-Steinmetz 1986).

    progress  tokens or steps. Neighbours must be near enough for the loss between them to be a line; what they share,
              the luck of their run, does not show
    """
    where, losses, names = np.asarray(progress, dtype=float), np.asarray(loss, dtype=float), np.asarray(groups)
    found: list[Array] = []
    for name in np.unique(names):
        at = np.flatnonzero(names == name)
        at = at[np.argsort(where[at], kind="stable")]
        x, y = where[at], losses[at]
        if len(at) < 3 or (np.diff(x) <= 0).any():
            continue
        part = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
        off = (part * y[:-2] + (1 - part) * y[2:] - y[1:-1]) / np.sqrt(part**2 + (1 - part) ** 2 + 1)
        found.append(off / y[1:-1])
    if not found:
        raise ConfigError(
            "no run has three checkpoints at different tokens, and second differences need them; evaluate runs more "
            "often, or give the noise yourself"
        )
    every = np.concatenate(found)
    return Scale(scatter(every, 0), max(len(every) * DIFFERENCE, 1.0), "second differences along checkpoints")


def repeated(inputs: Inputs, lanes: Lanes) -> Array | None:
    """(n, points) which observations are of the same inputs; None where too few runs repeat others."""
    told = [share_levels(values) if name == "r" else values for name, values in inputs.items()]
    table = np.concatenate([values.reshape(len(lanes), -1) for values in told], axis=1)
    _, point = np.unique(table, axis=0, return_inverse=True)
    held: dict[int, set[int]] = {}
    for at, lane in zip(point.ravel().tolist(), lanes.member.tolist(), strict=True):
        held.setdefault(at, set()).add(lane)
    kinds = {frozenset(runs) for runs in held.values()}
    if sum(len(kind) - 1 for kind in kinds) < REPEATS:
        return None
    return np.asarray(np.eye(int(point.max()) + 1)[point.ravel()])
