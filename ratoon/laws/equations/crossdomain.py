"""Cross-domain D-CPT law: held-out loss of a domain nobody has swept, from about 1% of a run (arXiv:2406.01375).

    L(N, D, r, K) = E + A/N^a + B r^n / D^b + C/(r + e)^c + F/K^m,     K = w1/k1 + w2 k2

N, D, r  as in dcpt.py, r the domain's own share           k1  the domain's loss at the start of a run, nats
L        nats per token, on text never trained on          k2  how fast it falls at first, nats per billion tokens

K is the paper's K3, the learnability of a domain. Sources disagree on whether a small K is easy or hard: F may have
either sign. w1 and w2 are known up to a common factor, which F absorbs; the fit puts w1/k1 + w2 k2 at 1 for a domain
with average k1 and k2. All other parameters are >= 0, with the monotonicities of dcpt.py.

Domains differ by one number each, the same at every size, length and ratio, which the law must read off k1 and k2.
Four domains are as many numbers as E, F, m and w2/w1: they decide them and leave nothing to check them by; leave a
domain out, or sweep more. k1 and k2 must come from runs that are alike (size, ratio, schedule, batch). Silent about
domains whose K lies far from those fitted.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.equations import dcpt
from ratoon.laws.equations.box import Box, enclose
from ratoon.laws.form import BILLION, Array, Exponent, Form, Inputs, Law, Settled, centre

EVEN = 0.5  # both features count alike: where the domains do not decide it
POWER = 1.0  # m, where the domains do not decide it: the plainest
OWN = 5  # exponents that are dcpt.py's


def learnability(initial_loss: ArrayLike, decline_rate: ArrayLike, w1: float, w2: float) -> Array:
    """K = w1/k1 + w2 k2."""
    return np.asarray(w1 / np.asarray(initial_loss, dtype=float) + w2 * np.asarray(decline_rate, dtype=float))


def probe(tokens: ArrayLike, losses: ArrayLike) -> tuple[float, float]:
    """k1 and k2 of the first stretch of a run (about 1% of it): the first loss, and less the least-squares slope."""
    D, L = np.asarray(tokens, dtype=float) / BILLION, np.asarray(losses, dtype=float)
    if len(D) < 2 or len(D) != len(L) or (np.diff(D) <= 0).any() or not (np.isfinite(L) & (L > 0)).all():
        raise ConfigError(
            f"a probe needs two or more losses above 0 at growing token counts, found {len(D)} counts and "
            f"{len(L)} losses; evaluate the first percent of the run at least twice"
        )
    away = D - D.mean()
    return float(L[0]), float(-(away @ L) / (away @ away))


class CrossDomain(NamedTuple):
    E: float
    A: float
    a: float
    B: float
    n: float
    b: float
    C: float
    e: float
    c: float
    F: float
    m: float
    w1: float
    w2: float

    def loss(self, N: ArrayLike, D: ArrayLike, r: ArrayLike, k1: ArrayLike, k2: ArrayLike) -> Array:
        own = dcpt.DCPT(*self[:9]).loss(N, D, r)
        return np.asarray(own + self.F * np.power(learnability(k1, k2, self.w1, self.w2), -self.m))


@dataclass(frozen=True)
class Frame:
    box: Box
    initial: float  # geometric means over the observations
    decline: float


def frame(inputs: Inputs, reach: Inputs | None = None) -> Frame:
    for name, asked in (("the runs", inputs), ("what is asked", reach or {})):
        below = [key for key in ("k1", "k2") if key in asked and (asked[key] <= 0).any()]
        if below:
            raise ConfigError(
                f"crossdomain: {' and '.join(below)} of {name} not above 0; a domain whose loss does not fall in its "
                f"first percent has no decline rate: probe it for longer, or leave it out"
            )
    return Frame(enclose(inputs, reach), centre(inputs["k1"]), centre(inputs["k2"]))


def _easy(share: Array, inputs: Inputs, frame: Frame) -> Array:
    """K with w1 = (1 - share) initial and w2 = share / decline: 1 for a domain with average k1 and k2."""
    return np.asarray((1 - share) * frame.initial / inputs["k1"] + share * inputs["k2"] / frame.decline)


def columns(theta: Array, inputs: Inputs, frame: Frame) -> Array:
    """(B, n, 5): those of dcpt.py and F's."""
    m, share = theta[:, OWN, None], theta[:, OWN + 1, None]
    own = dcpt.columns(theta[:, :OWN], inputs, frame.box)
    return np.concatenate([own, np.power(_easy(share, inputs, frame), -m)[..., None]], axis=2)


def build(theta: Array, coefficients: Array, frame: Frame) -> Law:
    own = dcpt.build(theta[:OWN], coefficients[:4], frame.box)
    m, share = (float(x) for x in theta[OWN:])
    return CrossDomain(
        **own._asdict(), F=float(coefficients[4]), m=m, w1=(1 - share) * frame.initial, w2=share / frame.decline
    )


def settle(inputs: Inputs) -> Settled:
    own = dcpt.settle(inputs)
    domains = len(np.unique(np.stack([inputs["k1"], inputs["k2"]]), axis=1).T)
    exponents, absent, reasons = dict(own.exponents), own.absent, list(own.reasons)
    if domains < 4:
        exponents["w"] = EVEN
        reasons.append(f"{domains} domain{'s' * (domains > 1)}: w1/k1 and w2 k2 are taken to count alike")
    if domains < 3:
        exponents["m"] = POWER
        reasons.append(f"{domains} domain{'s' * (domains > 1)}: m is fixed at {POWER:g}")
    if domains == 1:
        absent = (*absent, "F")
        reasons.append("one domain: F is fixed at 0, other domains cannot be predicted")
    return Settled(exponents, absent=absent, reasons=tuple(reasons))


FORM = Form(
    name="crossdomain",
    inputs=("N", "D", "r", "k1", "k2"),
    linear=("E", "A", "B", "C", "F"),
    exponents={**dcpt.FORM.exponents, "m": Exponent(0.05, 5.0), "w": Exponent(0.0, 1.0, False)},
    frame=frame,
    columns=columns,
    build=build,
    settle=settle,
    free=frozenset({"F"}),
    falls=dcpt.FORM.falls,
    speaks_at_zero=False,
)
