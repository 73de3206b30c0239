"""What the fit needs to know of a law: which parameters are linear, which are exponents, and its columns.

A law is a named tuple with `.loss(N, D, r)`; its file ends with one `Form`. Fit, bootstrap and choice take any
of them, so a new law is one file and one test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BILLION = 1e9  # the unit of N and D in the parameters that are reported


class Law(Protocol):
    """A fitted law. N and D are counts, r the evaluated corpus's own share in 0..1; loss in nats per token."""

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array: ...

    def _asdict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Box:
    """Where the law must keep its monotonicities, and the sizes (geometric means) that make its search round."""

    params_scale: float
    tokens_scale: float
    share_low: float
    share_high: float
    tokens_low: float
    tokens_high: float

    @property
    def one_length(self) -> bool:
        """All runs are equally long: nothing is known of other lengths, and loss is taken not to depend on it."""
        return self.tokens_high <= self.tokens_low


def enclose(N: Array, D: Array, r: Array, tokens_to: float | None = None) -> Box:
    """The box of these runs, reaching to `tokens_to` when asked for. A share of zero is outside of it."""
    tokens_high = max(float(D.max()), tokens_to or 0.0) if count_levels(D) > 1 else float(D.min())
    return Box(
        params_scale=float(np.exp(np.log(N).mean())),
        tokens_scale=float(np.exp(np.log(D).mean())),
        share_low=float(min(r[r > 0].min(), 0.02)),
        share_high=1.0,
        tokens_low=float(D.min()),
        tokens_high=tokens_high,
    )


@dataclass(frozen=True)
class Settled:
    """What these runs cannot decide, and what is taken in its place: said in the fit, never pretended."""

    exponents: Mapping[str, float]  # name -> the value it is fixed at
    absent: tuple[str, ...] = ()  # linear parameters fixed at zero
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """A law that is linear but for a few exponents.

    columns  (theta (B, k), N (n,), D (n,), r (n,), box) -> (B, n, m); loss is columns @ coefficients, all of
             them >= 0. Constraints beyond the sign are built into the columns.
    build    (theta (k,), coefficients (m,), box) -> the law, in units of N/1e9 and D/1e9
    settle   (N, D, r) -> what these runs cannot decide
    """

    name: str
    linear: tuple[str, ...]
    exponents: Mapping[str, tuple[float, float]]
    columns: Callable[[Array, Array, Array, Array, Box], Array]
    build: Callable[[Array, Array, Box], Law]
    settle: Callable[[Array, Array, Array], Settled]
    speaks_at_zero: bool  # of runs that never saw the evaluated corpus
    spans_sizes: bool

    @property
    def num_parameters(self) -> int:
        return len(self.linear) + len(self.exponents)

    @property
    def low(self) -> Array:
        return np.array([low for low, _ in self.exponents.values()])

    @property
    def high(self) -> Array:
        return np.array([high for _, high in self.exponents.values()])


def count_levels(values: Array, tolerance: float = 0.02) -> int:
    """Different values, those within `tolerance` (relative) of the next smaller one counted as the same."""
    ordered = np.sort(np.asarray(values, dtype=float))
    return 1 + int(np.count_nonzero(np.diff(ordered) > tolerance * np.abs(ordered[1:])))
