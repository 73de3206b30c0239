"""CMR scaling law: loss against mixture ratio and against tokens at one model size (arXiv:2407.17467).

The paper fits two curves, L(R) = alpha R^s + beta at one token count and increments that are powers of tokens at
one ratio. `CMR` is the surface that is both at once:

    L(D, r) = beta0 + beta1 D^p + (alpha0 + alpha1 D^p) r^s

D  tokens seen in this stage, in billions     r  the evaluated corpus's own share of training tokens, 0..1
L  nats per token, on text never trained on   p  may be of either sign: loss may rise with D where r is small

`.loss` takes plain counts and divides by 1e9 itself. dL/dr <= 0 holds on the whole box, and dL/dD <= 0 at r = 1,
by how the columns are built. The same at every size: N is taken and ignored, so fit it at the target's size.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, curve_fit, least_squares

from ratoon.config import ConfigError
from ratoon.laws.equations.box import Box, enclose
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, count_levels, count_shares

TOKEN_POWER = -0.3  # where two run lengths decide nothing
RATIO_POWER = 0.5  # where the ratios decide nothing


class RatioLaw(NamedTuple):
    """L(R) = alpha R^s + beta at one size and token count; R is the domain share, 0 < R <= 1."""

    alpha: float
    s: float
    beta: float

    def loss(self, R: ArrayLike) -> Array:
        return np.asarray(self.alpha * np.power(R, self.s) + self.beta)


class Increment(NamedTuple):
    """Loss less the parent's, against tokens: a1 T^s1 + a2 T^s2 + b. Domain loss has a2 = 0."""

    a1: float
    s1: float
    a2: float
    s2: float
    b: float

    def loss(self, T: ArrayLike) -> Array:
        return np.asarray(self.a1 * np.power(T, self.s1) + self.a2 * np.power(T, self.s2) + self.b)

    def slope(self, T: ArrayLike) -> Array:
        T = np.asarray(T, dtype=float)
        return np.asarray(self.a1 * self.s1 * T ** (self.s1 - 1) + self.a2 * self.s2 * T ** (self.s2 - 1))


class CriticalRatio(NamedTuple):
    """R_CMR(T) = a T^s + b, clipped to 0..1; T in units of 0.2e9 tokens where the paper's constants are used."""

    a: float
    s: float
    b: float

    def at(self, T: ArrayLike) -> Array:
        return np.asarray(np.clip(self.a * np.power(T, self.s) + self.b, 0.0, 1.0))


def ratio_law(shares: ArrayLike, losses: ArrayLike) -> RatioLaw:
    """Least squares of L(R) = alpha R^s + beta on at least three shares > 0. The sign of s is the data's."""
    R, L = np.asarray(shares, dtype=float), np.asarray(losses, dtype=float)
    if len(R) < 3 or (R <= 0).any() or (R > 1).any():
        raise ConfigError(f"a ratio law needs at least three shares above 0 and up to 1, found {sorted(R.tolist())}")
    return RatioLaw(*_one_power(R, L))


def increment_law(tokens: ArrayLike, increments: ArrayLike, *, powers: int) -> Increment:
    """Least squares of losses less the parent's against tokens at one ratio: one power for domain loss, two for
    general loss, which may rise and then fall."""
    T, L = np.asarray(tokens, dtype=float), np.asarray(increments, dtype=float)
    if len(T) < 2 * powers + 1 or (T <= 0).any():
        raise ConfigError(
            f"{len(T)} token counts for an increment of {powers} powers; needed are {2 * powers + 1}, all above 0"
        )
    if powers == 1:
        a1, s1, b = _one_power(T, L)
        return Increment(a1, s1, 0.0, 1.0, b)
    grid = np.linspace(-1.5, 1.45, 60)

    def columns(s1: float, s2: float) -> Array:
        return np.stack([T**s1, T**s2, np.ones_like(T)], axis=1)

    def residual(s: Array) -> Array:
        X = columns(*s)
        return np.asarray(X @ np.linalg.lstsq(X, L, rcond=None)[0] - L)

    pairs = [(x, y) for x in grid for y in grid if y - x >= 0.1 and min(abs(x), abs(y)) > 0.01]
    start = min(pairs, key=lambda pair: float(np.sum(residual(np.array(pair)) ** 2)))
    s1, s2 = (float(x) for x in least_squares(residual, start, bounds=(-2, 2), xtol=1e-14, ftol=1e-14).x)
    a1, a2, b = (float(x) for x in np.linalg.lstsq(columns(s1, s2), L, rcond=None)[0])
    return Increment(a1, s1, a2, s2, b)


def critical_law(tokens: ArrayLike, ratios: ArrayLike) -> CriticalRatio:
    """Least squares of R_CMR(T) = a T^s + b on at least three token counts and their largest feasible ratios."""
    T, R = np.asarray(tokens, dtype=float), np.asarray(ratios, dtype=float)
    if len(T) < 3:
        raise ConfigError(f"{len(T)} token counts cannot pin the three parameters of the critical ratio")
    return CriticalRatio(*_one_power(T, R))


def _one_power(x: Array, y: Array) -> tuple[float, float, float]:
    """a, s, b of a x^s + b."""

    def curve(x: Array, slope: float, s: float, at_one: float) -> Array:
        return at_one + slope * np.expm1(s * np.log(x)) / s  # well-conditioned where s is small

    unit = float(np.exp(np.log(x).mean()))
    x = x / unit
    start = (np.polyfit(np.log(x), y, 1)[0], 0.2, y.mean())
    (slope, s, at_one), _ = curve_fit(
        curve, x, y, p0=start, bounds=([-np.inf, -3, -np.inf], [np.inf, 3, np.inf]), xtol=1e-14, ftol=1e-14
    )
    return float(slope / s * unit**-s), float(s), float(at_one - slope / s)


def turning_point(domain: Increment, general: Increment, penalty: float, longest: float) -> float | None:
    """T0: tokens after which general loss falls 1/penalty as fast as domain loss, d general/d domain = -1/penalty.

    None: general loss is still rising too fast at `longest`, so the ratio is not feasible there.
    """

    def balance(log_T: float) -> float:
        T = float(np.exp(log_T))
        return float(domain.slope(T) + penalty * general.slope(T))

    low, high = float(np.log(longest)) - 30.0, float(np.log(longest))
    if balance(high) > 0:
        return None
    grid = np.linspace(low, high, 400)
    rising = [x for x in grid if balance(x) > 0]
    if not rising:
        return 0.0
    return float(np.exp(brentq(balance, rising[-1], high)))


class CMR(NamedTuple):
    beta0: float
    beta1: float
    alpha0: float
    alpha1: float
    s: float
    p: float

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike) -> Array:
        tokens = np.power(np.asarray(D, dtype=float) / BILLION, self.p)
        at_ratio = (self.alpha0 + self.alpha1 * tokens) * np.power(np.asarray(r, dtype=float), self.s)
        return np.broadcast_arrays(self.beta0 + self.beta1 * tokens + at_ratio, np.asarray(N))[0]


def bilinear(u: Array, v: Array) -> Array:
    """(B, n, 4): a surface over u (exposure, 0..1) and v (progress in tokens, 0..1) that falls with u everywhere,
    and with v at u = 1, for any coefficients >= 0."""
    return np.stack(np.broadcast_arrays(1.0, (1 - u) * (1 - v), (1 - u) * v, 1 - v), axis=-1)


def unfold(coefficients: Array, start: float, end: float) -> tuple[float, float, float, float]:
    """beta0, beta1, alpha0, alpha1 of beta0 + beta1 z + (alpha0 + alpha1 z) u, where v = (start - z)/(start - end)."""
    base, first, last, own = (float(x) for x in coefficients)
    if start == end:  # one run length
        return base + first + own, 0.0, -first, 0.0
    span = start - end
    constant, slope = (last * start - first * end) / span, (first - last) / span
    return base + constant - own * end / span, slope + own / span, -constant, -slope


def columns(theta: Array, inputs: Inputs, box: Box) -> Array:
    D, r = inputs["D"], inputs["r"]
    s, p = theta[:, 0, None], _power(theta[:, 1, None])
    if box.one_length:
        return bilinear(np.power(r, s), np.zeros_like(s))
    progress = np.expm1(p * np.log(D / box.tokens_low)) / np.expm1(p * np.log(box.tokens_high / box.tokens_low))
    return bilinear(np.power(r, s), progress)


def build(theta: Array, coefficients: Array, box: Box) -> Law:
    s, p = float(theta[0]), float(_power(theta[1:2])[0])
    start, end = (box.tokens_low / BILLION) ** p, (box.tokens_high / BILLION) ** p
    beta0, beta1, alpha0, alpha1 = unfold(coefficients, start, end)
    return CMR(beta0, beta1, alpha0, alpha1, s, p)


def _power(theta: Array) -> Array:
    """The search is over positive numbers, p is not: p = log(theta). Kept off 0, where the powers are constants."""
    p = np.log(theta)
    return np.where(np.abs(p) < 1e-4, 1e-4, p)


def settle(inputs: Inputs) -> Settled:
    horizons, ratios = count_levels(inputs["D"]), count_shares(inputs["r"])
    exponents: dict[str, float] = {}
    reasons: list[str] = []
    absent: tuple[str, ...] = ()
    if horizons < 3:
        exponents["p"] = float(np.exp(TOKEN_POWER))
        reasons.append(f"{horizons} run length{'s' * (horizons > 1)}: p is fixed at {TOKEN_POWER}")
    if horizons == 1:
        absent = ("last", "own")
        reasons.append("one run length: loss does not depend on tokens")
    if ratios < 3:
        exponents["s"] = RATIO_POWER
        reasons.append(f"{ratios} ratios: s is fixed at {RATIO_POWER}")
    return Settled(exponents, absent, tuple(reasons))


FORM = Form(
    name="cmr",
    inputs=("N", "D", "r"),
    linear=("base", "first", "last", "own"),
    exponents={"s": Exponent(0.05, 3.0), "p": Exponent(float(np.exp(-1.5)), float(np.exp(1.0)))},
    frame=enclose,
    columns=columns,
    build=build,
    settle=settle,
    falls=("r",),
    spans_sizes=False,
)
