"""Log-linear mixture law of Olmix: one domain's or task's loss against the training mixture (arXiv:2602.12237).

    y(h) = e^c + exp(sum_j t_j h_j)

h  shares of the training tokens, one per domain, summing to 1     t_j of either sign
y  nats per token (or bits per byte: whatever was fitted)

The curve of mixing.py with its factor k written into t, t_j(here) = t_j(there) + log k: with shares that sum to one
it is the same family and the same fit, so all d of t are decided and none is a reference. A share of exactly zero
needs no care.

exp of a linear function is convex: y, and any sum of such y with weights >= 0, has one local minimum on the simplex,
the global, and a penalty such as kappa KL(h || prior) keeps it so. `gradient` is what a search there needs.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.equations import mixing
from ratoon.laws.form import Array, Form, Law


class LogLinear(NamedTuple):
    c: float
    t: tuple[float, ...]

    def loss(self, h: ArrayLike) -> Array:
        """h (..., d) -> (...)."""
        return np.asarray(np.exp(self.c) + self._rest(h))

    def gradient(self, h: ArrayLike) -> Array:
        """dy/dh, (..., d). Along the simplex only differences between its entries matter."""
        return np.asarray(self._rest(h)[..., None] * np.asarray(self.t))

    def _rest(self, h: ArrayLike) -> Array:
        return np.asarray(np.exp(np.asarray(h, dtype=float) @ np.asarray(self.t)))


def build(theta: Array, coefficients: Array, frame: mixing.Frame) -> Law:
    t, k = mixing.exponents_and_sizes(theta, coefficients, frame)
    constant, size = (float(np.log(max(x, mixing.TINY))) for x in (coefficients[0], k[0]))
    return LogLinear(constant, tuple((t[0] + size).tolist()))


def form(domains: tuple[str, ...]) -> Form:
    """The law of these domains, in the order of the columns of input "h". Searched as mixing.py is."""
    return replace(mixing.form(domains), name="loglinear", build=build)
