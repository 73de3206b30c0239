"""What the fit needs to know of a law: which parameters are linear, which are searched for, and its columns.

A law is a named tuple with `.loss(*inputs)`; its file ends with one `Form` (or, where the number of parameters
depends on the data, one function `form(...)` that makes it). Fit, bootstrap, profile, design and choice take any of
them, so a new law is one file and one test.

Axes: B problems solved at once, n observations, m linear coefficients, k exponents.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Inputs = Mapping[str, Array]  # name -> (n,), or (n, d) where an input is a vector such as a mixture

BILLION = 1e9  # the unit of N and D in the parameters that are reported


class Law(Protocol):
    """A fitted law. Its inputs are plain counts, shares in 0..1, learning rates; loss is in nats per token."""

    @property
    def loss(self) -> Callable[..., Array]: ...

    def _asdict(self) -> dict[str, Any]: ...


class Exponent(NamedTuple):
    """The range of one parameter that the search moves: on a log scale, or where its sign is open, on a linear one."""

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class Settled:
    """What these runs cannot decide, and what is taken in its place: said in the fit, never pretended."""

    exponents: Mapping[str, float] = field(default_factory=dict)  # name -> the value it is fixed at
    absent: tuple[str, ...] = ()  # linear parameters fixed at zero
    reasons: tuple[str, ...] = ()
    given: Mapping[str, float] = field(default_factory=dict)  # linear parameters known beforehand, by the law itself


def all_settled(inputs: Inputs) -> Settled:
    """For laws that ask for all of their parameters, whatever the runs."""
    return Settled()


@dataclass(frozen=True)
class Form:
    """A law that is linear but for a few exponents: loss = columns @ coefficients.

    inputs   names of the arguments of `.loss`, in its order
    linear   names of the coefficients; all are >= 0 but those in `free`. Constraints beyond the sign are built into
             the columns
    exponents  name -> range of what the search moves, in the order of theta's columns
    frame    (inputs, reach) -> scales and limits that columns and build share: anything. `reach` holds the inputs the
             law will be asked about (or None); monotonicities are kept there too
    columns  (theta (B, k), inputs of n, frame) -> (B, n, m), each of order one where the scales allow it
    build    (theta (k,), coefficients (m,), frame) -> the law, in units of N/1e9 and D/1e9
    settle   inputs -> what these runs cannot decide
    slopes   (theta (B, k), coefficients (B, m), inputs, frame) -> (B, n, k), d loss / d exponent at fixed
             coefficients; None: finite differences
    falls    inputs along which loss must not rise anywhere between the runs and what is asked: checked after the fit
    """

    name: str
    inputs: tuple[str, ...]
    linear: tuple[str, ...]
    exponents: Mapping[str, Exponent]
    frame: Callable[[Inputs, Inputs | None], Any]
    columns: Callable[[Array, Inputs, Any], Array]
    build: Callable[[Array, Array, Any], Law]
    settle: Callable[[Inputs], Settled] = all_settled
    free: frozenset[str] = frozenset()
    slopes: Callable[[Array, Array, Inputs, Any], Array] | None = None
    falls: tuple[str, ...] = ()
    speaks_at_zero: bool = True  # of runs that never saw the evaluated corpus (r = 0)
    spans_sizes: bool = True

    @property
    def num_parameters(self) -> int:
        return len(self.linear) + len(self.exponents)

    @property
    def low(self) -> Array:
        return np.array([each.low for each in self.exponents.values()])

    @property
    def high(self) -> Array:
        return np.array([each.high for each in self.exponents.values()])

    @property
    def logarithmic(self) -> Mask:
        return np.array([each.log for each in self.exponents.values()], dtype=bool)

    @property
    def signed(self) -> Mask:
        """(m,) coefficients that must not be negative."""
        return np.array([name not in self.free for name in self.linear], dtype=bool)


def centre(values: Array) -> float:
    """Geometric mean: the unit that makes a search round."""
    return float(np.exp(np.log(np.asarray(values, dtype=float)).mean()))


def levels(values: Array, relative: float = 0.02, absolute: float = np.inf) -> NDArray[np.int64]:
    """(n,) the level of each value, counted from the smallest, those within both tolerances of a level's smallest being
    of that level.

    Of the smallest, not of a neighbour: a dense sweep goes far in steps that are each too small to count.
    """
    values = np.asarray(values, dtype=float)
    found = np.full(len(values), -1)
    while (left := found < 0).any():
        away = values - values[left].min()
        found[left & ~(away > np.minimum(relative * np.abs(values), absolute))] = found.max() + 1
    return found


def share_levels(values: Array) -> NDArray[np.int64]:
    """As `levels`: near 1 a hundredth is another share, though it is a small part of the share itself."""
    return levels(values, absolute=0.005)


def count_levels(values: Array, relative: float = 0.02) -> int:
    """Different values, as `levels` tells them apart."""
    return int(levels(values, relative).max(initial=-1)) + 1


def count_shares(values: Array) -> int:
    return int(share_levels(values).max(initial=-1)) + 1
