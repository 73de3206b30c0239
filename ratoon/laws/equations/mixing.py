"""Data mixing law: held-out loss of one domain against the whole training mixture (arXiv:2403.16952).

    L(h) = c + k exp(sum_j t_j h_j)

h  shares of the training tokens, one per domain, summing to 1     c, k >= 0; t_j of either sign
L  nats per token, on text never trained on

A share of exactly zero needs no care: nothing is divided by a share and no logarithm of one is taken. Because shares
sum to one, adding the same number to all t only rescales k. The normal form is sum(t) = 0; then `gradient` sums to
zero too, so it is the slope along the simplex and a step along it keeps the total at one.

`Blend` is the loss on text of unknown make-up, sum_i s_i L_i(h). Where only that sum was measured s_i is absorbed by
k_i, and which part carries c cannot be told: a fitted blend has equal s_i and equal c_i.

One model size and one length. Loss is a product of single-domain effects: two domains that only help together are
beyond it, and so is what a domain's repetition does. L is convex in h: one local minimum on the simplex, the global.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr

from ratoon.config import ConfigError
from ratoon.laws.form import Array, Exponent, Form, Inputs, Law, Settled

STEEPEST = 200.0  # |t_j - t_last|: half a percent of a domain then moves the exponential by a factor of e
FARTHEST = 150.0  # exponent beyond which only starts go that no runs can mean; their squares must stay finite
TINY = 1e-300  # stands for a k of zero under a logarithm
VARIED = 1e-4  # root mean square by which a share must move, beyond what the other shares say, to be told apart


class Mixing(NamedTuple):
    c: float
    k: float
    t: tuple[float, ...]

    def loss(self, h: ArrayLike) -> Array:
        """h (..., d) -> (...)."""
        return np.asarray(self.c + self.k * np.exp(np.asarray(h, dtype=float) @ np.asarray(self.t)))

    def gradient(self, h: ArrayLike) -> Array:
        """dL/dh, (..., d)."""
        return np.asarray((self.loss(h) - self.c)[..., None] * np.asarray(self.t))

    def along(self, domain: int = 0) -> tuple[float, float, float]:
        """c, b, k of L = c + exp(b + k r), two domains, r the share of `domain`: the paper's one-variable form."""
        if len(self.t) != 2:
            raise ConfigError(f"a law of {len(self.t)} domains has no one-variable form; that takes two domains")
        own, other = self.t[domain], self.t[1 - domain]
        return self.c, float(np.log(max(self.k, TINY))) + other, own - other


class Blend(NamedTuple):
    """sum_i s_i L_i(h), one entry of s, c, k and t per part."""

    s: tuple[float, ...]
    c: tuple[float, ...]
    k: tuple[float, ...]
    t: tuple[tuple[float, ...], ...]

    def loss(self, h: ArrayLike) -> Array:
        return np.asarray(sum(s * part.loss(h) for s, part in zip(self.s, self.parts, strict=True)))

    def gradient(self, h: ArrayLike) -> Array:
        return np.asarray(sum(s * part.gradient(h) for s, part in zip(self.s, self.parts, strict=True)))

    @property
    def parts(self) -> list[Mixing]:
        return [Mixing(*each) for each in zip(self.c, self.k, self.t, strict=True)]


@dataclass(frozen=True)
class Frame:
    """The mean mixture of the runs: exponentials are of the distance from it, so that they are of order one."""

    centre: Array  # (d,)


def look(inputs: Inputs, reach: Inputs | None = None) -> Frame:
    return Frame(inputs["h"].mean(axis=0))


def powers(theta: Array, h: Array, frame: Frame) -> Array:
    """(B, parts, n): exp(t . (h - centre)), where the last domain's t is 0."""
    away = (h - frame.centre)[:, :-1]
    return np.asarray(np.exp(np.minimum(np.sinh(theta).reshape(len(theta), -1, away.shape[1]) @ away.T, FARTHEST)))


def columns(theta: Array, inputs: Inputs, frame: Frame) -> Array:
    found = powers(theta, inputs["h"], frame)
    return np.asarray(np.concatenate([np.ones_like(found[:, :1]), found], axis=1).transpose(0, 2, 1))


def slopes(theta: Array, coefficients: Array, inputs: Inputs, frame: Frame) -> Array:
    away = (inputs["h"] - frame.centre)[:, :-1]
    sized = (powers(theta, inputs["h"], frame) * coefficients[:, 1:, None]).transpose(0, 2, 1)
    by_t = (sized[..., None] * away[:, None, :]).reshape(len(theta), len(away), -1)
    return np.asarray(by_t * np.cosh(theta)[:, None, :])


def exponents_and_sizes(theta: Array, coefficients: Array, frame: Frame) -> tuple[Array, Array]:
    """t (parts, d) with rows that sum to zero, and the k (parts,) that go with them."""
    free = np.sinh(theta).reshape(len(coefficients) - 1, -1)
    t = np.concatenate([free, np.zeros((len(free), 1))], axis=1)
    t = t - t.mean(axis=1, keepdims=True)
    return t, np.asarray(coefficients[1:] * np.exp(-t @ frame.centre))


def build(theta: Array, coefficients: Array, frame: Frame) -> Law:
    t, k = exponents_and_sizes(theta, coefficients, frame)
    c, parts = float(coefficients[0]), len(k)
    if parts == 1:
        return Mixing(c, float(k[0]), tuple(t[0].tolist()))
    return Blend((1 / parts,) * parts, (c,) * parts, tuple((parts * k).tolist()), tuple(tuple(x) for x in t.tolist()))


def form(domains: tuple[str, ...], parts: int = 1) -> Form:
    """The law of these domains, in the order of the columns of input "h"; `parts` > 1: a blend of that many.

    theta holds asinh of each domain's t less the last one's: near 0 that is t, far out its logarithm with a sign, so
    that a search finds a t of -3 and one of -100 alike.
    """
    if len(domains) < 2 or len(set(domains)) < len(domains):
        raise ConfigError(f"a mixing law is of two or more different domains, found {domains}")
    if parts < 1:
        raise ConfigError(f"a mixing law of {parts} parts; 1 is the loss of one domain, more a blend of domains")
    marks = [""] if parts == 1 else [f"{i}" for i in range(parts)]

    def settle(inputs: Inputs) -> Settled:
        return undecided(domains, marks, inputs["h"])

    steepest = Exponent(-float(np.arcsinh(STEEPEST)), float(np.arcsinh(STEEPEST)), log=False)
    return Form(
        name="mixing",
        inputs=("h",),
        linear=("c", *(f"k{mark}" for mark in marks)),
        exponents={f"t{mark}_{name}": steepest for mark in marks for name in domains[:-1]},
        frame=look,
        columns=columns,
        build=build,
        settle=settle,
        slopes=slopes,
        spans_sizes=False,
    )


def undecided(domains: tuple[str, ...], marks: list[str], h: Array) -> Settled:
    """Shares that never move, or only with others, have t of 0: as the last domain's. Too few mixtures: no c."""
    away = (h - h.mean(axis=0))[:, :-1] / np.sqrt(len(h))
    _, triangle, order = qr(away, mode="economic", pivoting=True)
    rank = int(np.count_nonzero(np.abs(np.diagonal(triangle)) > VARIED))
    still = [domains[j] for j in sorted(order[rank:])]
    reasons = (
        [f"the shares of {', '.join(still)} do not vary by themselves: t is that of {domains[-1]}"] if still else []
    )
    mixtures = len(np.unique(h, axis=0))
    absent: tuple[str, ...] = ()
    if mixtures < rank + 2:
        absent = ("c",)
        reasons.append(f"{mixtures} different mixtures: c is fixed at 0")
    return Settled({f"t{mark}_{name}": 0.0 for mark in marks for name in still}, absent=absent, reasons=tuple(reasons))
