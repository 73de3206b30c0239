"""Scaling laws for optimal mixtures: held-out loss against size, tokens and the whole mixture (arXiv:2507.09404).

    additive  L(N, D, h) = E + 1/sum_i C_i h_i^g_i + A/N^a + B/D^b
    joint     L(N, D, h) = E + 1/sum_i C_i h_i^g_i + A_h/N^a + B_h/D^b,  A_h = (sum_i CA_i h_i)^gA,  B_h alike

N  parameters, embeddings excluded, in billions     h  shares of the training tokens, one per domain, summing to 1
D  tokens seen, in billions                         L  nats per token, on text never trained on

`.loss` takes plain counts and divides by 1e9 itself. All parameters are >= 0, so loss falls with N and D. A share of
exactly zero takes that domain's term out of the sum and is no trouble. The best mixture of the additive law is the
same at every size and length; that of the joint law moves. A_h and B_h were not checked against the paper: they are
the forms with which its joint law has the 37 parameters it reports for eight domains.

A mixture is of fresh tokens: repetition is beyond both laws. So are domains that only help together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import softmax

from ratoon.config import ConfigError
from ratoon.laws.equations.dcpt import CAPACITY, DATA
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, centre, count_levels

RETURNS = 0.5  # g where the mixtures are too few to tell: a share has diminishing returns, those of its root
VARIED = 1e-4  # by which a share must move to be told apart
FLAT = 1e-200  # stands for a mixture term of zero, whose C are infinite
SAME = 1e-12  # relative difference of loss that is rounding
SEED = 0.9  # the share of one domain where the search for the best mixture starts


class Additive(NamedTuple):
    E: float
    C: tuple[float, ...]
    g: tuple[float, ...]
    A: float
    a: float
    B: float
    b: float

    def loss(self, N: ArrayLike, D: ArrayLike, h: ArrayLike) -> Array:
        """h (..., d); N and D (...) or numbers."""
        return np.asarray(self.E + _mixed(self.C, self.g, h) + _power(self.A, N, self.a) + _power(self.B, D, self.b))

    def best(self) -> Array:
        """(d,): the mixture of least loss, whatever N and D."""
        return _least(lambda h: float(self.loss(BILLION, BILLION, h)), len(self.C))


class Joint(NamedTuple):
    E: float
    C: tuple[float, ...]
    g: tuple[float, ...]
    CA: tuple[float, ...]
    gA: float
    a: float
    CB: tuple[float, ...]
    gB: float
    b: float

    def loss(self, N: ArrayLike, D: ArrayLike, h: ArrayLike) -> Array:
        """h (..., d); N and D (...) or numbers."""
        A = np.power(np.asarray(h, dtype=float) @ np.asarray(self.CA), self.gA)
        B = np.power(np.asarray(h, dtype=float) @ np.asarray(self.CB), self.gB)
        return np.asarray(self.E + _mixed(self.C, self.g, h) + _power(A, N, self.a) + _power(B, D, self.b))

    def best(self, N: float, D: float) -> Array:
        """(d,): the mixture of least loss at this size and length."""
        return _least(lambda h: float(self.loss(N, D, h)), len(self.C))


def _mixed(C: tuple[float, ...], g: tuple[float, ...], h: ArrayLike) -> Array:
    return np.asarray(1 / np.sum(np.asarray(C) * np.power(np.asarray(h, dtype=float), np.asarray(g)), axis=-1))


def _power(factor: ArrayLike, count: ArrayLike, exponent: float) -> Array:
    return np.asarray(factor * np.power(np.asarray(count, dtype=float) / BILLION, -exponent))


def _least(loss: Callable[[Array], float], domains: int) -> Array:
    """Over the simplex, from its middle and from near each corner: with g above 1 there may be several minima."""
    corners = np.eye(domains) * (SEED - (1 - SEED) / (domains - 1)) + (1 - SEED) / (domains - 1)
    seeds = np.concatenate([np.full((1, domains), 1 / domains), corners])
    values = [loss(h) for h in seeds]
    if np.ptp(values) <= SAME * np.max(values):
        raise ConfigError(
            "to this law no mixture is better than another: they make no difference, or it was fitted on too few; "
            "run at least one more mixture than there are domains"
        )
    starts = np.log(seeds)
    found = [minimize(lambda z: loss(softmax(z)), start, method="BFGS", options={"gtol": 1e-9}) for start in starts]
    return np.asarray(softmax(min(found, key=lambda each: float(each.fun)).x))


@dataclass(frozen=True)
class Frame:
    params_scale: float
    tokens_scale: float
    share_scale: Array  # (d,): mean shares; 1 for a domain that no run has


def frame(inputs: Inputs, reach: Inputs | None = None) -> Frame:
    mean = inputs["h"].mean(axis=0)
    return Frame(centre(inputs["N"]), centre(inputs["D"]), np.where(mean > 0, mean, 1.0))


class _Parts(NamedTuple):
    """theta by what it means, each (B, 1, ...) against n observations. The first domain's weights are 1."""

    w: Array  # (B, 1, d): a domain's term at its mean share, beside the first domain's
    g: Array  # (B, 1, d)
    a: Array  # (B, 1)
    b: Array
    v: tuple[Array, ...] = ()  # (B, 1, d) of the joint law's A_h and B_h
    powers: tuple[Array, ...] = ()  # (B, 1): gA and gB


def _parts(theta: Array, d: int) -> _Parts:
    def weights(start: int) -> Array:
        ones = np.ones((len(theta), 1))
        return np.asarray(np.concatenate([ones, theta[:, start : start + d - 1]], axis=1)[:, None, :])

    own = 2 * d - 1
    plain = _Parts(weights(0), theta[:, None, d - 1 : own], theta[:, own, None], theta[:, own + 1, None])
    if theta.shape[1] == own + 2:
        return plain
    starts = (own + 2, own + 2 + d)
    powers = tuple(theta[:, start + d - 1, None] for start in starts)
    return plain._replace(v=tuple(weights(start) for start in starts), powers=powers)


def _terms(parts: _Parts, inputs: Inputs, frame: Frame) -> Array:
    """(B, n, d): what each domain adds to the sum under the bar."""
    return np.asarray(parts.w * np.power(inputs["h"] / frame.share_scale, parts.g))


def columns(theta: Array, inputs: Inputs, frame: Frame) -> Array:
    """(B, n, 4) for E, the mixture, A and B."""
    parts = _parts(theta, inputs["h"].shape[1])
    size = np.power(inputs["N"] / frame.params_scale, -parts.a)
    length = np.power(inputs["D"] / frame.tokens_scale, -parts.b)
    if parts.v:
        size, length = (
            column * np.power(np.sum(v * inputs["h"], axis=2), power)
            for column, v, power in zip((size, length), parts.v, parts.powers, strict=True)
        )
    return np.stack(np.broadcast_arrays(1.0, 1 / _terms(parts, inputs, frame).sum(axis=2), size, length), axis=-1)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, frame: Frame) -> Array:
    h = inputs["h"]
    parts = _parts(theta, h.shape[1])
    terms = _terms(parts, inputs, frame)
    sized = columns(theta, inputs, frame) * coefficients[:, None, :]
    pull = -sized[..., 1, None] * terms / terms.sum(axis=2, keepdims=True)
    logs = np.log(np.where(h > 0, h / frame.share_scale, 1.0))  # a share of zero: the term is zero at every g
    found = [(pull / parts.w)[..., 1:], pull * logs]
    found.append(-sized[..., 2, None] * np.log(inputs["N"] / frame.params_scale)[:, None])
    found.append(-sized[..., 3, None] * np.log(inputs["D"] / frame.tokens_scale)[:, None])
    for column, v, power in zip((2, 3), parts.v, parts.powers, strict=False):
        total = np.sum(v * h, axis=2)
        found.append((sized[..., column] * power / total)[..., None] * h[:, 1:])
        found.append((sized[..., column] * np.log(total))[..., None])
    return np.asarray(np.concatenate(found, axis=2))


def build(theta: Array, coefficients: Array, frame: Frame) -> Law:
    parts = _parts(theta[None], len(frame.share_scale))
    g, a, b = parts.g.ravel(), float(parts.a[0, 0]), float(parts.b[0, 0])
    C = parts.w.ravel() * frame.share_scale**-g / max(float(coefficients[1]), FLAT)
    E, mixture = float(coefficients[0]), (tuple(C.tolist()), tuple(g.tolist()))
    A = float(coefficients[2]) * (frame.params_scale / BILLION) ** a
    B = float(coefficients[3]) * (frame.tokens_scale / BILLION) ** b
    if not parts.v:
        return Additive(E, *mixture, A, a, B, b)
    gA, gB = (float(power[0, 0]) for power in parts.powers)
    CA, CB = (
        tuple((v.ravel() * factor ** (1 / power)).tolist())
        for v, factor, power in zip(parts.v, (A, B), (gA, gB), strict=True)
    )
    return Joint(E, *mixture, CA, gA, a, CB, gB, b)


def _settle(domains: tuple[str, ...], joint: bool, inputs: Inputs) -> Settled:
    fixed: dict[str, float] = {}
    absent: list[str] = []
    reasons: list[str] = []
    for count, name, factor, typical, what in (
        ("N", "a", "A", CAPACITY, "model size"),
        ("D", "b", "B", DATA, "run length"),
    ):
        levels = count_levels(inputs[count])
        if levels < 3:
            fixed[name] = typical
            reasons.append(f"{levels} {what}{'s' * (levels > 1)}: {name} is fixed at {typical}")
        if levels == 1:
            absent.append(factor)
            fixed.update({f"{factor}_{domain}": 1.0 for domain in domains[1:]} if joint else {})
            fixed.update({f"g{factor}": 1.0} if joint else {})
    mixtures, d = len(np.unique(inputs["h"], axis=0)), len(domains)
    found = f"{mixtures} mixture{'s' * (mixtures > 1)} of {d} domains"
    still = [domain for domain, spread in zip(domains, np.ptp(inputs["h"], axis=0), strict=True) if spread < VARIED]
    if still:
        reasons.append(f"the shares of {', '.join(still)} do not vary: g is fixed at {RETURNS}, weights at 1")
    if mixtures < 2 * d + 1:
        reasons.append(f"{found}: g is fixed at {RETURNS}")
    if mixtures < d + 1:
        absent.append("mixture")
        reasons.append(f"{found}: the mixture is taken not to matter")
    curved = still if mixtures >= 2 * d + 1 else domains
    weighed = [*(still if mixtures >= d + 1 else domains)]
    if not inputs["h"][:, 0].any():  # the first domain weighs nothing: another one has to be the unit
        weighed += [domain for domain in domains if domain not in weighed][:1]
    fixed.update({f"g_{domain}": RETURNS for domain in curved})
    for mark in ("w", "A", "B") if joint else ("w",):
        fixed.update({f"{mark}_{domain}": 1.0 for domain in weighed if domain != domains[0]})
    fixed.update({f"g{factor}": 1.0 for factor in "AB"} if joint and mixtures < 2 * d + 1 else {})
    return Settled(fixed, absent=tuple(absent), reasons=tuple(reasons))


def form(domains: tuple[str, ...], *, joint: bool = False) -> Form:
    """The additive or the joint law of these domains, in the order of the columns of input "h"."""
    if len(domains) < 2 or len(set(domains)) < len(domains):
        raise ConfigError(f"a law of mixtures is of two or more different domains, found {domains}")
    weight, scaling = Exponent(1e-3, 1e3), Exponent(0.05, 1.5)
    exponents = {f"w_{domain}": weight for domain in domains[1:]}
    exponents |= {f"g_{domain}": Exponent(0.05, 3.0) for domain in domains}
    exponents |= {"a": scaling, "b": scaling}
    for mark in "AB" if joint else "":
        exponents |= {f"{mark}_{domain}": weight for domain in domains[1:]} | {f"g{mark}": Exponent(0.05, 4.0)}

    def settle(inputs: Inputs) -> Settled:
        return _settle(domains, joint, inputs)

    return Form(
        name="joint" if joint else "additive",
        inputs=("N", "D", "h"),
        linear=("E", "mixture", "A", "B"),
        exponents=exponents,
        frame=frame,
        columns=columns,
        build=build,
        settle=settle,
        slopes=slopes,
        falls=("N", "D"),
    )
