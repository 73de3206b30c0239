"""BiMix: one domain's held-out loss against its own share and the length of training (arXiv:2405.14908).

    L(D, r) = (A / r^a) (B / D^b + C)

D  tokens seen, in billions (the paper's s; steps do as well)     r  the domain's own share of them, 0 < r <= 1
L  nats per token, on text never trained on

`.loss` takes plain counts and divides by 1e9 itself. All parameters are >= 0: loss falls with D and with r. A only
rescales B and C; a fitted law has A = 1.

Silent at r = 0, where it is infinite: runs that never saw the domain are left out. Which other domains fill the rest
does not matter to it, and with r = 1 and D without end loss is A C. One model size, tokens from the first step on.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.equations.box import Box, enclose
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, count_levels

LENGTH = 0.3  # where run lengths do not decide it: inside the range of published data exponents (see dcpt.py)


class BiMix(NamedTuple):
    A: float
    a: float
    B: float
    b: float
    C: float

    def loss(self, D: ArrayLike, r: ArrayLike) -> Array:
        length = self.B / np.power(np.asarray(D, dtype=float) / BILLION, self.b) + self.C
        return np.asarray(self.A / np.power(np.asarray(r, dtype=float), self.a) * length)


def frame(inputs: Inputs, reach: Inputs | None = None) -> Box:
    return enclose({**inputs, "N": np.ones_like(inputs["D"])}, reach)


def columns(theta: Array, inputs: Inputs, box: Box) -> Array:
    """(B, n, 2) for A B and A C."""
    a, b = theta[:, 0, None], theta[:, 1, None]
    share = np.power(inputs["r"], -a)
    return np.stack([share * np.power(inputs["D"] / box.tokens_scale, -b), share], axis=-1)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, box: Box) -> Array:
    sized = columns(theta, inputs, box) * coefficients[:, None, :]
    by_share, by_length = -np.log(inputs["r"]), -np.log(inputs["D"] / box.tokens_scale)
    return np.stack([sized.sum(axis=2) * by_share, sized[..., 0] * by_length], axis=-1)


def build(theta: Array, coefficients: Array, box: Box) -> Law:
    a, b = (float(x) for x in theta)
    return BiMix(
        A=1.0, a=a, B=float(coefficients[0]) * (box.tokens_scale / BILLION) ** b, b=b, C=float(coefficients[1])
    )


def settle(inputs: Inputs) -> Settled:
    lengths = count_levels(inputs["D"])
    if lengths == 1:
        reason = "one run length: B is fixed at 0, loss does not depend on tokens"
        return Settled({"b": LENGTH}, absent=("AB",), reasons=(reason,))
    if lengths == 2:
        return Settled({"b": LENGTH}, reasons=(f"two run lengths: b is fixed at {LENGTH}",))
    return Settled()


FORM = Form(
    name="bimix",
    inputs=("D", "r"),
    linear=("AB", "AC"),
    exponents={"a": Exponent(1e-3, 2.0), "b": Exponent(0.02, 2.0)},
    frame=frame,
    columns=columns,
    build=build,
    settle=settle,
    slopes=slopes,
    falls=("D", "r"),
    speaks_at_zero=False,
    spans_sizes=False,
)
