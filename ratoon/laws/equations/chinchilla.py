"""Chinchilla law: loss of a model trained from scratch on one fresh corpus (arXiv:2203.15556, redone in 2404.10102).

    L(N, D) = E + A/N^a + B/D^b

N  parameters, embeddings excluded, in billions     E  nats per token that neither size nor text removes
D  tokens seen, in billions                         L  nats per token, on text never trained on

`.loss` takes plain counts and divides by 1e9 itself; `from_counts` reads the constants that papers print for plain
counts. All parameters are >= 0, so dL/dN < 0 and dL/dD < 0 everywhere. A and B are known only together with a and b:
compare predictions and exponents, never A or B.

Runs far from the best split of compute, at thousands of tokens per parameter or at one, bend more than this sum can:
see coupled.py.

Silent about mixtures, repeated text and the learning rate, and so about a continued run's parent.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, centre, count_levels
from ratoon.laws.size import train_flops

# Where the runs decide nothing: the exponents of arXiv:2404.10102.
CAPACITY = 0.34731
DATA = 0.36718
FLOPS = train_flops(1.0, 1.0)  # per parameter and token
ONE_LINE = 0.02  # of log D: runs that lie this close to a line in log N show one power only


class Chinchilla(NamedTuple):
    E: float
    A: float
    a: float
    B: float
    b: float

    @classmethod
    def from_counts(cls, E: float, A: float, a: float, B: float, b: float) -> "Chinchilla":
        """The law from constants for plain counts: A/(1e9 n)^a is A 1e9^-a / n^a."""
        return cls(E, A * BILLION**-a, a, B * BILLION**-b, b)

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        capacity, data = self._terms(N, D)
        return np.asarray(self.E + capacity + data)

    def gradient(self, N: ArrayLike, D: ArrayLike) -> tuple[Array, Array]:
        """dL/dN and dL/dD, nats per parameter and nats per token."""
        capacity, data = self._terms(N, D)
        return -self.a * capacity / np.asarray(N, dtype=float), -self.b * data / np.asarray(D, dtype=float)

    def allocate(self, flops: ArrayLike) -> tuple[Array, Array]:
        """N and D of the lowest loss among those with 6 N D = `flops`.

        N = G (C/6)^(b/(a+b)),  D = (C/6)^(a/(a+b)) / G,  G = (a A / (b B))^(1/(a+b))
        """
        if min(self.A, self.a, self.B, self.b) <= 0:
            raise ConfigError(
                f"chinchilla: A = {self.A:g}, a = {self.a:g}, B = {self.B:g}, b = {self.b:g} have no best split of "
                f"compute; all four must be above 0. Fit it on runs of at least three sizes and three lengths"
            )
        pairs = np.asarray(flops, dtype=float) / FLOPS / BILLION**2
        params = self.balance * np.power(pairs, self.b / (self.a + self.b))
        return np.asarray(params * BILLION), np.asarray(pairs / params * BILLION)

    @property
    def balance(self) -> float:
        """G, for N and D in billions."""
        return float((self.a * self.A / (self.b * self.B)) ** (1 / (self.a + self.b)))

    def _terms(self, N: ArrayLike, D: ArrayLike) -> tuple[Array, Array]:
        capacity = self.A * np.power(np.asarray(N, dtype=float) / BILLION, -self.a)
        return capacity, self.B * np.power(np.asarray(D, dtype=float) / BILLION, -self.b)


@dataclass(frozen=True)
class Units:
    """Geometric means of the runs, in which their columns are of order one."""

    params: float
    tokens: float


def measure(inputs: Inputs, reach: Inputs | None = None) -> Units:
    """Signs alone make the law fall with N and D, so what it will be asked about does not matter."""
    return Units(centre(inputs["N"]), centre(inputs["D"]))


def columns(theta: Array, inputs: Inputs, units: Units) -> Array:
    """(B, n, 3) for E, A, B."""
    a, b = theta[:, 0, None], theta[:, 1, None]
    capacity, data = np.power(inputs["N"] / units.params, -a), np.power(inputs["D"] / units.tokens, -b)
    return np.stack(np.broadcast_arrays(1.0, capacity, data), axis=-1)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, units: Units) -> Array:
    logs = np.stack([np.log(inputs["N"] / units.params), np.log(inputs["D"] / units.tokens)], axis=-1)
    return np.asarray(-logs * columns(theta, inputs, units)[..., 1:] * coefficients[:, None, 1:])


def build(theta: Array, coefficients: Array, units: Units) -> Law:
    a, b = (float(x) for x in theta)
    E, A, B = (float(x) for x in coefficients)
    return Chinchilla(E, A * (units.params / BILLION) ** a, a, B * (units.tokens / BILLION) ** b, b)


def settle(inputs: Inputs) -> Settled:
    sizes, horizons = count_levels(inputs["N"]), count_levels(inputs["D"])
    exponents: dict[str, float] = {}
    absent: list[str] = []
    reasons: list[str] = []
    if sizes < 3:
        exponents["a"] = CAPACITY
        reasons.append(f"two model sizes: a is fixed at {CAPACITY}")
    if sizes == 1:
        absent.append("A")
        reasons[-1] = "one model size: A is fixed at 0 and the size term is part of E"
    if horizons < 3:
        exponents["b"] = DATA
        reasons.append(f"two run lengths: b is fixed at {DATA}")
    if horizons == 1:
        absent.append("B")
        reasons[-1] = "one run length: B is fixed at 0, loss does not depend on tokens"
    if not exponents and _rise_together(inputs):
        exponents["a"] = CAPACITY
        reasons.append(f"tokens are a power of size in all runs, which shows both as one: a is fixed at {CAPACITY}")
    return Settled(exponents, tuple(absent), tuple(reasons))


def _rise_together(inputs: Inputs) -> bool:
    """Whether D is a rising power of N, as at a fixed number of tokens per parameter: swapping A, a with B, b then
    gives the same losses. A falling one, runs of one budget, is no trouble: its two terms bend opposite ways."""
    log_N, log_D = np.log(inputs["N"]), np.log(inputs["D"])
    slope, level = np.polyfit(log_N, log_D, 1)
    return bool(slope > 0 and np.std(log_D - slope * log_N - level) <= ONE_LINE)


FORM = Form(
    name="chinchilla",
    inputs=("N", "D"),
    linear=("E", "A", "B"),
    exponents={"a": Exponent(0.05, 1.5), "b": Exponent(0.05, 1.5)},
    frame=measure,
    columns=columns,
    build=build,
    settle=settle,
    slopes=slopes,
    falls=("N", "D"),
)
