"""Warm-start law: continued pretraining from a parent that has already seen D0 tokens' worth. Ours.

    L(D, r) = beta0 + beta1 (D0 + D)^-t + (alpha0 + alpha1 (D0 + D)^-t) r^s

D, D0  tokens seen in this stage, and those the parent's training counts for; in billions
r      the evaluated corpus's own share of training tokens, 0..1
L      nats per token, on text never trained on

A continued run is a late stretch of a longer one: against log D its loss falls ever faster until D passes D0,
where a plain power of D falls ever slower. Elsewhere it is the surface of cmr.py, with its monotonicities and its
one size. D0 is fitted, not the parent's true token count: warm-up and new text make the parent younger.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.equations.box import Box, enclose
from ratoon.laws.equations.cmr import RATIO_POWER, bilinear, unfold
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, count_levels, count_shares

TOKEN_POWER = 0.3
OFFSET = 1.0  # D0 in geometric means of the runs' tokens, where they decide nothing


class Warm(NamedTuple):
    beta0: float
    beta1: float
    alpha0: float
    alpha1: float
    s: float
    t: float
    D0: float

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        tokens = np.power(self.D0 + np.asarray(D, dtype=float) / BILLION, -self.t)
        at_ratio = (self.alpha0 + self.alpha1 * tokens) * np.power(np.asarray(r, dtype=float), self.s)
        return np.broadcast_arrays(self.beta0 + self.beta1 * tokens + at_ratio, np.asarray(N))[0]


def columns(theta: Array, inputs: Inputs, box: Box) -> Array:
    D, r = inputs["D"], inputs["r"]
    s, t, offset = (theta[:, k, None] for k in range(3))

    def falling(tokens: Array | float) -> Array:
        return np.asarray(np.power(offset + tokens / box.tokens_scale, -t))

    if box.one_length:
        return bilinear(np.power(r, s), np.zeros_like(s))
    start, end = falling(box.tokens_low), falling(box.tokens_high)
    return bilinear(np.power(r, s), (start - falling(D)) / (start - end))


def build(theta: Array, coefficients: Array, box: Box) -> Law:
    s, t, offset = (float(x) for x in theta)
    D0 = offset * box.tokens_scale / BILLION
    start, end = (D0 + box.tokens_low / BILLION) ** -t, (D0 + box.tokens_high / BILLION) ** -t
    beta0, beta1, alpha0, alpha1 = unfold(coefficients, start, end)
    return Warm(beta0, beta1, alpha0, alpha1, s, t, D0)


def settle(inputs: Inputs) -> Settled:
    horizons, ratios = count_levels(inputs["D"]), count_shares(inputs["r"])
    exponents: dict[str, float] = {}
    reasons: list[str] = []
    if horizons < 4:
        exponents["t"] = TOKEN_POWER
        reasons.append(f"{horizons} run length{'s' * (horizons > 1)}: t is fixed at {TOKEN_POWER}")
    if horizons < 3:
        exponents["D0"] = OFFSET
        reasons.append(f"{horizons} run length{'s' * (horizons > 1)}: D0 is fixed at their geometric mean")
    if ratios < 3:
        exponents["s"] = RATIO_POWER
        reasons.append(f"{ratios} ratios: s is fixed at {RATIO_POWER}")
    absent = ("last", "own") if horizons == 1 else ()
    return Settled(exponents, absent, tuple(reasons))


FORM = Form(
    name="warm",
    inputs=("N", "D", "r"),
    linear=("base", "first", "last", "own"),
    exponents={
        "s": Exponent(0.05, 3.0),
        "t": Exponent(0.1, 1.5),
        "D0": Exponent(0.01, 10.0),  # a larger one is a straight line in D, and no run could tell
    },
    frame=enclose,
    columns=columns,
    build=build,
    settle=settle,
    falls=("r",),
    spans_sizes=False,
)
