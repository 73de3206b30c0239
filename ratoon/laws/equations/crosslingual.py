"""Cross-lingual law: loss in a new language after continued pretraining from another (arXiv:2407.02118).

    L(N, D) = E + A/N^a + B/(D^b N^g)

N  parameters, embeddings excluded, in billions     E, A, a  of the same language from scratch, where known
D  tokens seen in this stage, in billions           L  nats per token, on text never trained on

`.loss` takes plain counts and divides by 1e9 itself. What transfers grows with size: data is worth more by N^g. All
parameters are >= 0, so dL/dN < 0 and dL/dD < 0.

The source takes E, A, a from a Chinchilla fit of runs from scratch and fits B, b, g alone: `frozen(scratch)`. `FORM`
frees all six, for want of such runs, and asks for more. Its printed exponents are too rounded for its losses (at 1e9
parameters and 2e10 tokens they put continued above scratch, 2.374 against 2.240): use them for exponents and
allocation, never for absolute loss.

Silent about replay and the language left behind. The source: English to Chinese, 40 sizes, 20 tokens per parameter.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.equations.chinchilla import CAPACITY, FLOPS, Chinchilla, Units, measure
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, count_levels

# Where the runs decide nothing: what the source reports.
DATA = 0.2
TRANSFER = 0.08


class Crosslingual(NamedTuple):
    E: float
    A: float
    a: float
    B: float
    b: float
    g: float

    @classmethod
    def from_counts(cls, E: float, A: float, a: float, B: float, b: float, g: float) -> "Crosslingual":
        """The law from constants for plain counts."""
        return cls(E, A * BILLION**-a, a, B * BILLION ** -(b + g), b, g)

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        N, D = np.asarray(N, dtype=float) / BILLION, np.asarray(D, dtype=float) / BILLION
        data = self.B * np.power(D, -self.b) * np.power(N, -self.g)
        return np.asarray(self.E + self.A * np.power(N, -self.a) + data)

    def allocate(self, flops: ArrayLike) -> tuple[Array, Array]:
        """N and D of the lowest loss among those with 6 N D = `flops`.

        N = G (C/6)^(b/(a+b-g)),  G = (a A / ((b-g) B))^(1/(a+b-g))
        """
        if min(self.A, self.a, self.B) <= 0 or self.b <= self.g:
            raise ConfigError(
                f"crosslingual: A = {self.A:g}, a = {self.a:g}, B = {self.B:g}, b = {self.b:g}, g = {self.g:g} have "
                f"no best split of compute; A, a and B must be above 0 and b above g. Fit it on runs of more sizes"
            )
        pairs = np.asarray(flops, dtype=float) / FLOPS / BILLION**2
        power = self.a + self.b - self.g
        balance = (self.a * self.A / ((self.b - self.g) * self.B)) ** (1 / power)
        params = balance * np.power(pairs, self.b / power)
        return np.asarray(params * BILLION), np.asarray(pairs / params * BILLION)


def columns(theta: Array, inputs: Inputs, units: Units) -> Array:
    """(B, n, 3) for E, A, B."""
    a, b, g = (theta[:, k, None] for k in range(3))
    N, D = inputs["N"] / units.params, inputs["D"] / units.tokens
    return np.stack(np.broadcast_arrays(1.0, np.power(N, -a), np.power(D, -b) * np.power(N, -g)), axis=-1)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, units: Units) -> Array:
    log_N, log_D = np.log(inputs["N"] / units.params), np.log(inputs["D"] / units.tokens)
    terms = columns(theta, inputs, units) * coefficients[:, None, :]
    return np.stack([-log_N * terms[..., 1], -log_D * terms[..., 2], -log_N * terms[..., 2]], axis=-1)


def build(theta: Array, coefficients: Array, units: Units) -> Law:
    a, b, g = (float(x) for x in theta)
    E, A, B = (float(x) for x in coefficients)
    params, tokens = units.params / BILLION, units.tokens / BILLION
    return Crosslingual(E, A * params**a, a, B * tokens**b * params**g, b, g)


def settle(inputs: Inputs) -> Settled:
    sizes, horizons = count_levels(inputs["N"]), count_levels(inputs["D"])
    exponents: dict[str, float] = {}
    absent: list[str] = []
    reasons: list[str] = []
    if sizes < 3:
        exponents |= {"a": CAPACITY, "g": TRANSFER}
        reasons.append(f"two model sizes: a is fixed at {CAPACITY} and g at {TRANSFER}")
    if sizes == 1:
        absent.append("A")
        reasons[-1] = f"one model size: A is fixed at 0, its term is part of E, and g is fixed at {TRANSFER}"
    if horizons < 3:
        exponents["b"] = DATA
        reasons.append(f"two run lengths: b is fixed at {DATA}")
    if horizons == 1:
        absent.append("B")
        exponents["g"] = TRANSFER
        reasons[-1] = "one run length: B is fixed at 0, loss does not depend on tokens"
    return Settled(exponents, tuple(absent), tuple(reasons))


FORM = Form(
    name="crosslingual",
    inputs=("N", "D"),
    linear=("E", "A", "B"),
    exponents={"a": Exponent(0.05, 1.5), "b": Exponent(0.05, 1.5), "g": Exponent(1e-3, 1.0)},
    frame=measure,
    columns=columns,
    build=build,
    settle=settle,
    slopes=slopes,
    falls=("N", "D"),
)


def frozen(scratch: Chinchilla) -> Form:
    """The source's own procedure: E, A and a are those of `scratch`, and B, b and g are fitted."""

    def floor(inputs: Inputs) -> Array:
        return np.asarray(scratch.E + scratch.A * np.power(inputs["N"] / BILLION, -scratch.a))

    def frozen_columns(theta: Array, inputs: Inputs, units: Units) -> Array:
        b, g = theta[:, 0, None], theta[:, 1, None]
        data = np.power(inputs["D"] / units.tokens, -b) * np.power(inputs["N"] / units.params, -g)
        return np.stack(np.broadcast_arrays(floor(inputs), data), axis=-1)

    def frozen_build(theta: Array, coefficients: Array, units: Units) -> Law:
        b, g = (float(x) for x in theta)
        B = float(coefficients[1]) * (units.tokens / BILLION) ** b * (units.params / BILLION) ** g
        return Crosslingual(scratch.E, scratch.A, scratch.a, B, b, g)

    def frozen_settle(inputs: Inputs) -> Settled:
        found = settle(inputs)
        kept = {name: value for name, value in found.exponents.items() if name != "a"}
        absent = tuple(name for name in found.absent if name == "B")
        return Settled(kept, absent, found.reasons, given={"scratch": 1.0})

    return Form(
        name="crosslingual",
        inputs=("N", "D"),
        linear=("scratch", "B"),
        exponents={name: FORM.exponents[name] for name in ("b", "g")},
        frame=measure,
        columns=frozen_columns,
        build=frozen_build,
        settle=frozen_settle,
        falls=("N", "D"),
    )
