"""Forgetting with injected pretraining text: two laws of fine-tuning on a small corpus (arXiv:2502.06042).

    pretraining text    L = base L0 + A D^b / ((1 + B p) N)^a
    fine-tuning text    L = E + A / (N^a D^b)

N  parameters, embeddings excluded, in billions     L0  loss on pretraining text before fine-tuning, nats per token
D  unique fine-tuning tokens, in billions           L   nats per token after fine-tuning, on text never trained on
p  share of pretraining text injected, 0..1

`.loss` takes plain counts and divides by 1e9 itself. One percent injected makes the model forget like one 1 + B/100
times as large. All parameters are >= 0: forgetting grows with D, falls with N and p; fine-tuning loss falls with both.

The source has base = 1. It is left free because its formula may lack a constant, and because then one model size is
enough: L0 is a column, a floor of its own where all runs share it (give 1 as L0 if it was not measured), the measured
losses where sizes differ. A base far from 1 says that L0 was measured on other text.

Known from 0.3 to 30 million tokens, up to 1.3e9 parameters and p up to 5%. That 1% is enough there must not be
carried over to continued pretraining on billions of tokens.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.equations.chinchilla import Units, measure
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, count_levels

# Where the runs decide nothing. The source's exponents are not known here: round figures.
CAPACITY = 0.5
GROWTH = 0.5
PROTECTION = 829.0  # B on Wikipedia, the least of those that the source reports; DM-Math has 1e4


class Forgetting(NamedTuple):
    base: float
    A: float
    a: float
    b: float
    B: float

    def loss(self, N: ArrayLike, D: ArrayLike, p: ArrayLike, L0: ArrayLike) -> Array:
        size = (1 + self.B * np.asarray(p, dtype=float)) * np.asarray(N, dtype=float) / BILLION
        grown = self.A * np.power(np.asarray(D, dtype=float) / BILLION, self.b)
        return np.asarray(self.base * np.asarray(L0, dtype=float) + grown * np.power(size, -self.a))


def columns(theta: Array, inputs: Inputs, units: Units) -> Array:
    """(B, n, 2) for base and A."""
    a, b, B = (theta[:, k, None] for k in range(3))
    size = (1 + B * inputs["p"]) * inputs["N"] / units.params
    forgotten = np.power(inputs["D"] / units.tokens, b) * np.power(size, -a)
    return np.stack(np.broadcast_arrays(inputs["L0"], forgotten), axis=-1)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, units: Units) -> Array:
    a, B = theta[:, 0, None], theta[:, 2, None]
    forgotten = columns(theta, inputs, units)[..., 1] * coefficients[:, 1, None]
    shielded = 1 + B * inputs["p"]
    by_a, by_b = -np.log(shielded * inputs["N"] / units.params), np.log(inputs["D"] / units.tokens)
    return np.stack([by_a * forgotten, by_b * forgotten, -a * inputs["p"] / shielded * forgotten], axis=-1)


def build(theta: Array, coefficients: Array, units: Units) -> Law:
    a, b, B = (float(x) for x in theta)
    base, A = (float(x) for x in coefficients)
    return Forgetting(base, A * (units.params / BILLION) ** a * (units.tokens / BILLION) ** -b, a, b, B)


def settle(inputs: Inputs) -> Settled:
    sizes, horizons = count_levels(inputs["N"]), count_levels(inputs["D"])
    shares = len(np.unique(inputs["p"]))
    exponents: dict[str, float] = {}
    reasons: list[str] = []
    if shares < 2:
        exponents["B"] = PROTECTION
        reasons.append(f"one share injected: B is fixed at {PROTECTION:g}")
    if sizes < 2 and shares < 3:
        exponents["a"] = CAPACITY
        reasons.append(f"one model size and fewer than three shares injected: a is fixed at {CAPACITY}")
    if horizons < 2:
        exponents["b"] = GROWTH
        reasons.append(f"one number of tokens: b is fixed at {GROWTH}")
    return Settled(exponents, (), tuple(reasons))


FORM = Form(
    name="forgetting",
    inputs=("N", "D", "p", "L0"),
    linear=("base", "A"),
    exponents={"a": Exponent(0.02, 3.0), "b": Exponent(0.02, 3.0), "B": Exponent(1.0, 1e6)},
    frame=measure,
    columns=columns,
    build=build,
    settle=settle,
    slopes=slopes,
    falls=("N", "p"),
)


class FineTuned(NamedTuple):
    E: float
    A: float
    a: float
    b: float

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        size, tokens = np.asarray(N, dtype=float) / BILLION, np.asarray(D, dtype=float) / BILLION
        return np.asarray(self.E + self.A * np.power(size, -self.a) * np.power(tokens, -self.b))


def tuned_columns(theta: Array, inputs: Inputs, units: Units) -> Array:
    """(B, n, 2) for E and A."""
    a, b = theta[:, 0, None], theta[:, 1, None]
    data = np.power(inputs["N"] / units.params, -a) * np.power(inputs["D"] / units.tokens, -b)
    return np.stack(np.broadcast_arrays(1.0, data), axis=-1)


def tuned_slopes(theta: Array, coefficients: Array, inputs: Inputs, units: Units) -> Array:
    logs = np.stack([np.log(inputs["N"] / units.params), np.log(inputs["D"] / units.tokens)], axis=-1)
    return np.asarray(-logs * (tuned_columns(theta, inputs, units)[..., 1] * coefficients[:, 1, None])[..., None])


def tuned_build(theta: Array, coefficients: Array, units: Units) -> Law:
    a, b = (float(x) for x in theta)
    E, A = (float(x) for x in coefficients)
    return FineTuned(E, A * (units.params / BILLION) ** a * (units.tokens / BILLION) ** b, a, b)


def tuned_settle(inputs: Inputs) -> Settled:
    sizes, horizons = count_levels(inputs["N"]), count_levels(inputs["D"])
    exponents: dict[str, float] = {}
    reasons: list[str] = []
    if sizes < 2:
        exponents["a"] = CAPACITY
        reasons.append(f"one model size: a is fixed at {CAPACITY}")
    if horizons < 2:
        exponents["b"] = GROWTH
        reasons.append(f"one number of tokens: b is fixed at {GROWTH}")
    if max(sizes, horizons) < 3 and not exponents:
        exponents["a"] = CAPACITY
        reasons.append(f"two model sizes and two numbers of tokens: a is fixed at {CAPACITY}")
    return Settled(exponents, (), tuple(reasons))


FINE_TUNED = Form(
    name="fine-tuned",
    inputs=("N", "D"),
    linear=("E", "A"),
    exponents={"a": Exponent(0.02, 3.0), "b": Exponent(0.02, 3.0)},
    frame=measure,
    columns=tuned_columns,
    build=tuned_build,
    settle=tuned_settle,
    slopes=tuned_slopes,
    falls=("N", "D"),
)
