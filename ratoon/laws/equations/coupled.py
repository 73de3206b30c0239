"""Coupled law: size and tokens in one power, for runs far from the best split of compute. Of the form that
arXiv:2502.08606 fits to its teachers.

    L(N, D) = E + (A/N^a + B/D^b)^c

N  parameters, embeddings excluded, in billions     E  nats per token that neither size nor text removes
D  tokens seen, in billions                         L  nats per token, on text never trained on

`.loss` takes plain counts and divides by 1e9 itself. Chinchilla at c = 1; splits compute by the same formula. All
parameters are >= 0, so dL/dN < 0 and dL/dD < 0. It may leave E undecided: on few sizes and lengths take Chinchilla,
and elsewhere let what is held out decide. On public isoFLOP runs it predicts the largest budget to 0.4% in the median
where Chinchilla errs by 1.0% and 1.4%; on the runs of 2404.10102, the fifth with the most compute comes out the same.

Silent about mixtures, repeated text and the learning rate, and so about a continued run's parent.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.equations import chinchilla
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled


class Coupled(NamedTuple):
    E: float
    A: float
    a: float
    B: float
    b: float
    c: float

    @property
    def inner(self) -> chinchilla.Chinchilla:
        """What is raised to c."""
        return chinchilla.Chinchilla(0.0, self.A, self.a, self.B, self.b)

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        return np.asarray(self.E + np.power(self.inner.loss(N, D), self.c))

    def gradient(self, N: ArrayLike, D: ArrayLike) -> tuple[Array, Array]:
        """dL/dN and dL/dD, nats per parameter and nats per token."""
        outer = self.c * np.power(self.inner.loss(N, D), self.c - 1)
        by_params, by_tokens = self.inner.gradient(N, D)
        return outer * by_params, outer * by_tokens

    def allocate(self, flops: ArrayLike) -> tuple[Array, Array]:
        """As of `inner`: a power does not move a minimum."""
        return self.inner.allocate(flops)


def columns(theta: Array, inputs: Inputs, units: chinchilla.Units) -> Array:
    """(B, n, 2) for E and `terms`, which is A and B at once: A/B is searched for, as w, and the law stays linear."""
    c, w = theta[:, 2, None], theta[:, 3, None]
    terms = chinchilla.columns(theta, inputs, units)
    inner = (w * terms[..., 1] + terms[..., 2]) / (1 + w)
    return np.stack(np.broadcast_arrays(1.0, np.power(inner, c)), axis=-1)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, units: chinchilla.Units) -> Array:
    c, w = theta[:, 2, None], theta[:, 3, None]
    terms = chinchilla.columns(theta, inputs, units)
    capacity, data = w * terms[..., 1] / (1 + w), terms[..., 2] / (1 + w)
    log_N, log_D = np.log(inputs["N"] / units.params), np.log(inputs["D"] / units.tokens)
    inner = capacity + data
    outer = coefficients[:, 1, None] * np.power(inner, c)
    relative = [-c * log_N * capacity / inner, -c * log_D * data / inner, np.log(inner)]
    return np.stack([outer * x for x in (*relative, c * (capacity / w - data) / inner / (1 + w))], axis=-1)


def build(theta: Array, coefficients: Array, units: chinchilla.Units) -> Law:
    a, b, c, w = (float(x) for x in theta)
    E, terms = (float(x) for x in coefficients)
    inner = terms ** (1 / c) / (1 + w)
    return Coupled(E, inner * w * (units.params / BILLION) ** a, a, inner * (units.tokens / BILLION) ** b, b, c)


def settle(inputs: Inputs) -> Settled:
    """Where chinchilla.py fixes anything the runs are too alike for c as well: it is 1, which leaves Chinchilla."""
    plain = chinchilla.settle(inputs)
    if not plain.exponents:
        return Settled()
    exponents = {**plain.exponents, "c": 1.0}
    if plain.absent:  # one term does not vary: it is made small, and E holds it
        exponents["w"] = FORM.low[3] if "A" in plain.absent else FORM.high[3]
    return Settled(exponents, ("terms",) if len(plain.absent) == 2 else (), (*plain.reasons, "c is fixed at 1"))


FORM = Form(
    name="coupled",
    inputs=("N", "D"),
    linear=("E", "terms"),
    exponents={
        "a": Exponent(0.05, 3.0),
        "b": Exponent(0.05, 3.0),
        "c": Exponent(0.1, 3.0),
        "w": Exponent(1e-3, 1e3),
    },
    frame=chinchilla.measure,
    columns=columns,
    build=build,
    settle=settle,
    slopes=slopes,
    falls=("N", "D"),
)
