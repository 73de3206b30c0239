"""D-CPT law: held-out loss of one corpus after continued pretraining (arXiv:2406.01375, form L3).

    L(N, D, r) = E + A/N^a + B r^n / D^b + C/(r + e)^c

N  parameters, embeddings excluded, in billions     r  the evaluated corpus's own share of training tokens, 0..1
D  tokens seen in this stage, in billions           L  nats per token, on text never trained on

`.loss` takes plain counts and divides by 1e9 itself. Domain loss reads r as the domain share, general loss as
the general share, 1 - domain share: two fits. All parameters are >= 0; dL/dN and dL/dD are then negative, and
dL/dr is kept negative on the queried box by how the columns are built.

Silent about r = 0 (the data term vanishes there, so forgetting cannot grow with D), about repeated data and the
learning rate, and unable to express a loss that rises with D.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.equations.box import Box, enclose
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, count_levels, count_shares

# Where the runs decide nothing: the capacity exponent of arXiv:2404.10102, and round figures inside what the
# D-CPT and the cross-lingual fits (arXiv:2407.02118) report.
CAPACITY = 0.34
DATA = 0.3
OFFSET = 0.05


class DCPT(NamedTuple):
    E: float
    A: float
    a: float
    B: float
    n: float
    b: float
    C: float
    e: float
    c: float

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        capacity = self.A / np.power(np.asarray(N, dtype=float) / BILLION, self.a)
        data = self.B * np.power(r, self.n) / np.power(np.asarray(D, dtype=float) / BILLION, self.b)
        exposure = self.C / np.power(np.asarray(r, dtype=float) + self.e, self.c)
        return np.asarray(self.E + capacity + data + exposure)


def columns(theta: Array, inputs: Inputs, box: Box) -> Array:
    """(B, n, 4) for E, A, B and the part of C that is not needed to keep dL/dr < 0."""
    N, D, r = inputs["N"], inputs["D"], inputs["r"]
    a, n, b, e, c = (theta[:, k, None] for k in range(5))
    exposure = np.power(r + e, -c)
    data = np.power(r, n) * np.power(D / box.tokens_scale, -b)
    # Each unit of B brings the least C with which loss still falls with r: exact, and the solve stays linear.
    return np.stack(
        np.broadcast_arrays(1.0, np.power(N / box.params_scale, -a), data + _least(theta, box) * exposure, exposure),
        axis=-1,
    )


def _least(theta: Array, box: Box) -> Array:
    """(B, 1): the C per B with which dL/dr <= 0 for every share and token count of the box."""
    _, n, b, e, c = (theta[:, k, None] for k in range(5))
    r = np.geomspace(box.share_low, box.share_high, 9)
    steepest = n * np.power(r, n - 1) * np.power(r + e, c + 1) / c
    return np.asarray(steepest.max(axis=1, keepdims=True) * np.power(box.tokens_low / box.tokens_scale, -b))


def build(theta: Array, coefficients: Array, box: Box) -> Law:
    a, n, b, e, c = (float(x) for x in theta)
    E, A, B, spare = (float(x) for x in coefficients)
    return DCPT(
        E=E,
        A=A * (box.params_scale / BILLION) ** a,
        a=a,
        B=B * (box.tokens_scale / BILLION) ** b,
        n=n,
        b=b,
        C=spare + B * float(_least(theta[None], box)[0, 0]),
        e=e,
        c=c,
    )


def settle(inputs: Inputs) -> Settled:
    sizes, horizons, ratios = count_levels(inputs["N"]), count_levels(inputs["D"]), count_shares(inputs["r"])
    exponents: dict[str, float] = {}
    absent: list[str] = []
    reasons: list[str] = []
    if sizes < 3:
        exponents["a"] = CAPACITY
        if sizes == 1:
            absent.append("A")
            reasons.append("one model size: A is fixed at 0 and the size term is part of E")
        else:
            reasons.append(f"two model sizes: a is fixed at {CAPACITY}")
    if horizons < 3:
        exponents["b"] = DATA
        if horizons == 1:
            absent.append("B")
            exponents["n"] = 1.0
            reasons.append("one run length: B is fixed at 0, loss does not depend on tokens")
        else:
            reasons.append(f"two run lengths: b is fixed at {DATA}")
    if ratios < 5:
        exponents["e"] = OFFSET
        reasons.append(f"{ratios} ratios: e is fixed at {OFFSET}")
    return Settled(exponents, tuple(absent), tuple(reasons))


FORM = Form(
    name="dcpt",
    inputs=("N", "D", "r"),
    linear=("E", "A", "B", "C"),
    exponents={
        "a": Exponent(0.05, 1.5),
        "n": Exponent(0.05, 4.0),
        "b": Exponent(0.05, 1.5),
        "e": Exponent(1e-3, 1.0),
        "c": Exponent(0.05, 4.0),
    },
    frame=enclose,
    columns=columns,
    build=build,
    settle=settle,
    falls=("N", "D", "r"),
    speaks_at_zero=False,
)
