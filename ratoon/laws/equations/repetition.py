"""Data-constrained law: loss when unique text runs out and is read again (arXiv:2305.16264).

    L(N, D, U) = E + A/N'^a + B/D'^b
    D' = u + u R_D (1 - e^(-(D/u - 1)/R_D)),  u = min(D, U)
    N' = v + v R_N (1 - e^(-(N/v - 1)/R_N)),  v = min(N, N_opt(u)),  N_opt(u) = G (G u)^(b/a)

N  parameters, embeddings excluded, in billions     U  unique tokens that there are, in billions
D  tokens seen, repeats included, in billions       L  nats per token, on text never trained on
G  (a A/(b B))^(1/(a + b)): N_opt(u) is the size that compute is best spent on when u tokens are all that is read

`.loss` takes plain counts and divides by 1e9 itself. Repeats are worth less and less, and so are parameters beyond
what U can feed; R_D and R_N say how soon. All parameters are >= 0, so loss falls with N, D and U: the law cannot say
that a run overfits. It was fitted from scratch, on one corpus, up to 9e9 parameters.

`TargetRepetition` is for a scarce corpus within a mixture, which bears more repeats (arXiv:2605.12715):

    L(N, D, U, r) = E + C/N^c + B N^d / D'^b + F r

with r the scarce corpus's share of D, U its unique tokens, and D' as above for r D tokens of it. The source's own D'
and values are not known here; that it is the one above is an assumption.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.equations.chinchilla import Chinchilla, Units, measure
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, count_levels

# Where the runs decide nothing: what the source reports.
REPEATS = 15.3878  # R_D
EXCESS = 5.3097  # R_N
EXPONENT = 0.35266  # a and b
TARGET_SIZE = 0.1  # d, at one size: any value gives the same predictions there
TOKENS_PER_PARAMETER = 20.0  # of a compute-optimal run (arXiv:2203.15556), as a first look at N_opt


def effective_tokens(unique: ArrayLike, seen: ArrayLike, half_life: ArrayLike = REPEATS) -> Array:
    """Fresh tokens worth as much as `seen` tokens drawn from `unique` ones, in whatever unit both are given.

    half_life  repeats after which a further one is worth 1/e of a fresh token; at most `unique` (1 + half_life) is
               ever reached
    """
    seen, half_life = np.asarray(seen, dtype=float), np.asarray(half_life, dtype=float)
    unique = np.minimum(np.asarray(unique, dtype=float), seen)
    return np.asarray(unique - unique * half_life * np.expm1(-(seen / unique - 1) / half_life))


class Repetition(NamedTuple):
    E: float
    A: float
    a: float
    B: float
    b: float
    R_D: float
    R_N: float

    @classmethod
    def from_counts(cls, E: float, A: float, a: float, B: float, b: float, R_D: float, R_N: float) -> "Repetition":
        """The law from constants for plain counts."""
        return cls(*Chinchilla.from_counts(E, A, a, B, b), R_D, R_N)

    @property
    def fresh(self) -> Chinchilla:
        """The same law where no text is read twice."""
        return Chinchilla(*self[:5])

    def best_params(self, U: ArrayLike) -> Array:
        """N_opt: parameters beyond which U unique tokens feed them less well. A law without A or B knows no limit."""
        if min(self.A, self.B) <= 0:
            return np.full_like(np.asarray(U, dtype=float), np.inf)
        return np.asarray(_best(self.fresh.balance, self.a, self.b, np.asarray(U, dtype=float) / BILLION) * BILLION)

    def loss(self, N: ArrayLike, D: ArrayLike, U: ArrayLike) -> Array:
        params = effective_tokens(self.best_params(np.minimum(D, U)), N, self.R_N)
        return self.fresh.loss(params, effective_tokens(U, D, self.R_D))


PUBLISHED = Repetition.from_counts(1.8691, 520.82, EXPONENT, 1487.7, EXPONENT, REPEATS, EXCESS)


def _best(balance: Array | float, a: Array | float, b: Array | float, unique: Array) -> Array:
    return np.asarray(balance * np.power(balance * unique, b / a))


def columns(theta: Array, inputs: Inputs, units: Units) -> Array:
    """(B, n, 2) for E and `terms`, which is A and B at once.

    N' asks for G, and G for A and B: so G is searched for, which fixes A/B, and the law stays linear in the rest.
    """
    a, b, G, R_D, R_N = (theta[:, k, None] for k in range(5))
    N, D = inputs["N"] / units.params, inputs["D"] / units.tokens
    unique = np.minimum(inputs["U"] / units.tokens, D)
    params = effective_tokens(_best(G, a, b, unique), N, R_N)
    capacity = _capacity(theta)[:, None] * np.power(params, -a)
    data = np.power(effective_tokens(unique, D, R_D), -b)
    return np.stack(np.broadcast_arrays(1.0, (capacity + data) / (1 + _capacity(theta)[:, None])), axis=-1)


def _capacity(theta: Array) -> Array:
    """A/B, in the units of the search."""
    a, b, G = theta[:, 0], theta[:, 1], theta[:, 2]
    return np.asarray(b / a * np.power(G, a + b))


def build(theta: Array, coefficients: Array, units: Units) -> Law:
    a, b, _, R_D, R_N = (float(x) for x in theta)
    E, terms = (float(x) for x in coefficients)
    ratio = float(_capacity(theta[None])[0])
    A = terms * ratio / (1 + ratio) * (units.params / BILLION) ** a
    return Repetition(E, A, a, terms / (1 + ratio) * (units.tokens / BILLION) ** b, b, R_D, R_N)


def settle(inputs: Inputs) -> Settled:
    units, sizes, horizons = measure(inputs), count_levels(inputs["N"]), count_levels(inputs["D"])
    unique = np.minimum(inputs["D"], inputs["U"])
    exponents: dict[str, float] = {}
    reasons: list[str] = []
    if sizes < 3:
        exponents["a"] = EXPONENT
        reasons.append(f"{sizes} model size{'s' * (sizes > 1)}: a is fixed at {EXPONENT}")
    if sizes == 1:
        exponents["b"] = EXPONENT
        exponents["G"] = float(np.sqrt(units.tokens / units.params / TOKENS_PER_PARAMETER))
        reasons[-1] = (
            f"one model size: a and b are fixed at {EXPONENT}, and the best size for U tokens at "
            f"U/{TOKENS_PER_PARAMETER:g}"
        )
    elif horizons < 3:
        exponents["b"] = EXPONENT
        reasons.append(f"{horizons} run length{'s' * (horizons > 1)}: b is fixed at {EXPONENT}")
    if count_levels(inputs["D"] / unique) < 2:
        exponents["R_D"] = REPEATS
        reasons.append(f"no two numbers of repeats: R_D is fixed at {REPEATS}")
    if (inputs["N"] * TOKENS_PER_PARAMETER <= unique).all():
        exponents["R_N"] = EXCESS
        reasons.append(f"no size above what its unique tokens feed: R_N is fixed at {EXCESS}")
    return Settled(exponents, (), tuple(reasons))


FORM = Form(
    name="repetition",
    inputs=("N", "D", "U"),
    linear=("E", "terms"),
    exponents={
        "a": Exponent(0.05, 1.5),
        "b": Exponent(0.05, 1.5),
        "G": Exponent(1e-3, 1e3),
        "R_D": Exponent(0.5, 500.0),  # a larger one is no loss of worth at all, and no run could tell
        "R_N": Exponent(0.1, 500.0),
    },
    frame=measure,
    columns=columns,
    build=build,
    settle=settle,
    falls=("N", "D", "U"),
)


class TargetRepetition(NamedTuple):
    E: float
    C: float
    c: float
    B: float
    d: float
    b: float
    F: float
    R: float

    def loss(self, N: ArrayLike, D: ArrayLike, U: ArrayLike, r: ArrayLike) -> Array:
        seen = np.asarray(D, dtype=float) * r
        params, tokens = np.asarray(N, dtype=float) / BILLION, effective_tokens(U, seen, self.R) / BILLION
        data = self.B * np.power(params, self.d) * np.power(tokens, -self.b)
        return np.asarray(self.E + self.C * np.power(params, -self.c) + data + self.F * np.asarray(r))


def target_columns(theta: Array, inputs: Inputs, units: Units) -> Array:
    """(B, n, 4) for E, C, B, F."""
    c, d, b, R = (theta[:, k, None] for k in range(4))
    N = inputs["N"] / units.params
    tokens = effective_tokens(inputs["U"], inputs["D"] * inputs["r"], R) / units.tokens
    data = np.power(N, d) * np.power(tokens, -b)
    return np.stack(np.broadcast_arrays(1.0, np.power(N, -c), data, inputs["r"]), axis=-1)


def target_build(theta: Array, coefficients: Array, units: Units) -> Law:
    c, d, b, R = (float(x) for x in theta)
    E, C, B, F = (float(x) for x in coefficients)
    params, tokens = units.params / BILLION, units.tokens / BILLION
    return TargetRepetition(E, C * params**c, c, B * params**-d * tokens**b, d, b, F, R)


def target_measure(inputs: Inputs, reach: Inputs | None = None) -> Units:
    return measure({"N": inputs["N"], "D": inputs["D"] * inputs["r"]})


def target_settle(inputs: Inputs) -> Settled:
    seen = inputs["D"] * inputs["r"]
    sizes, lengths = count_levels(inputs["N"]), count_levels(effective_tokens(inputs["U"], seen))
    exponents: dict[str, float] = {}
    reasons: list[str] = []
    if sizes < 3:
        exponents["c"] = EXPONENT
        reasons.append(f"{sizes} model size{'s' * (sizes > 1)}: c is fixed at {EXPONENT}")
    if sizes == 1:
        exponents["d"] = TARGET_SIZE
        reasons.append(f"one model size: C is fixed at 0 and its term is part of E, d is fixed at {TARGET_SIZE}")
    if lengths < 3:
        exponents["b"] = EXPONENT
        reasons.append(f"{lengths} amount{'s' * (lengths > 1)} of the scarce corpus: b is fixed at {EXPONENT}")
    if count_levels(np.maximum(seen / inputs["U"], 1.0)) < 2:
        exponents["R"] = REPEATS
        reasons.append(f"no two numbers of repeats: R is fixed at {REPEATS}")
    return Settled(exponents, ("C",) if sizes == 1 else (), tuple(reasons))


TARGET = Form(
    name="target repetition",
    inputs=("N", "D", "U", "r"),
    linear=("E", "C", "B", "F"),
    exponents={
        "c": Exponent(0.05, 1.5),
        "d": Exponent(1e-3, 1.0),
        "b": Exponent(0.05, 1.5),
        "R": Exponent(0.5, 500.0),
    },
    frame=target_measure,
    columns=target_columns,
    build=target_build,
    settle=target_settle,
    free=frozenset({"F"}),
    falls=("D", "U"),
    speaks_at_zero=False,
)
