"""Learning dynamics of continued pretraining: loss at every step of a schedule (arXiv:2505.07796, base 2408.11029).

    L = L0 + A (S1pt + S1cpt)^-alpha - C1 N^g1 S2pt - C2 N^g2 exp(a1 r) S2cpt + B X(r) (1 - (1 + E S1cpt)^-beta)
        + F N^-g3,     X(r) = (1 - exp(-a2 r)) / (1 - exp(-a2))

    S1 = sum_i eta_i      S2 = sum_i m_i,   m_i = decay m_(i-1) + eta_(i-1) - eta_i

eta  raw learning rates, one per step; S1 and S2 of pretraining (pt) at its end, of this stage (cpt) up to a step
r    share of new text (D_cpt) in this stage's tokens, whichever text is evaluated; the rest is replay of D_pt
N    parameters, in millions, embeddings excluded: the printed constants hold in this unit
L    nats per token. B > 0 on D_pt (the shift costs), B < 0 on D_cpt: its sign is free

The law of the paper's tables is g1 = g2 = a1 = F = 0 and X = 1. A learning rate that rises makes S2 fall below zero:
the bump of a new warm-up. On replay the paper has exp(a1 r_pt) on D_pt, which is exp(a1 - a1 r): a1 < 0 here. Its
factor of the shift is 1 - exp(-a2 r) on D_pt and exp(a2 r) - 1 on D_cpt; the second swings 18-fold between r = 0.5
and 1 where the B fitted at each r moves by a fifth, so the saturating form stands for both, scaled to X(1) = 1.

`.loss` takes plain counts for N and divides by 1e6 itself. B, E and beta trade off badly; trust predictions and not
them. S2 keeps moving at a learning rate of zero. Batch size, weight decay and data repetition are beyond the law.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.signal import lfilter

from ratoon.config import ConfigError
from ratoon.laws.form import Array, Exponent, Form, Inputs, Law, Settled, centre, count_levels

MILLION = 1e6
DECAY = 0.999  # lambda, fixed in both papers
ALPHA = 0.5  # where runs cannot decide it: the papers' fits lie at 0.50 to 0.70
SHIFT = (100.0, 0.2)  # E and beta, likewise: the middle of fits that run from 12 to 5662 and 0.15 to 0.37
SATURATED = 1000.0  # a2 with which a shift does not depend on r: X = 1 from a share of one percent up
STEEPEST = 30.0  # a2 that is searched: X = 1 from a share of a tenth up, below which nobody sweeps
SIZE_POWER = 0.2  # g3, likewise: 0.189 and 0.195 are printed
WIDE = 1.5  # S1 must span this factor, largest over smallest, for the curvature in it to show


class Sums(NamedTuple):
    """Up to and including each step: (steps,) each, or the last entry alone."""

    S1: Array
    S2: Array

    @property
    def end(self) -> "Sums":
        return Sums(self.S1[-1], self.S2[-1])


def sums(learning_rates: ArrayLike, decay: float = DECAY, before: float | None = None) -> Sums:
    """S1 and S2 of a stage at each step, in O(steps). `before` is the rate before its first step; when not given,
    that of the first step, so that a stage starts without momentum of annealing."""
    rates = np.asarray(learning_rates, dtype=float)
    if rates.ndim != 1 or not len(rates) or not (np.isfinite(rates).all() and (rates >= 0).all()):
        raise ConfigError("a schedule is one learning rate per step, each a number of 0 or more; write every step out")
    drops = -np.diff(rates, prepend=rates[0] if before is None else before)
    return Sums(np.cumsum(rates), np.cumsum(lfilter([1.0], [1.0, -decay], drops)))


def loss_potential(learning_rates: ArrayLike) -> float:
    """Final over peak learning rate of pretraining: the higher, the better the parent learns new text."""
    rates = np.asarray(learning_rates, dtype=float)
    if not len(rates) or rates.max() <= 0:
        raise ConfigError("a schedule without a learning rate above 0 has no loss potential")
    return float(rates[-1] / rates.max())


class Dynamics(NamedTuple):
    L0: float
    A: float
    alpha: float
    C1: float
    C2: float
    B: float
    E: float
    beta: float
    a1: float = 0.0
    a2: float = SATURATED
    g1: float = 0.0
    g2: float = 0.0
    F: float = 0.0
    g3: float = SIZE_POWER

    def loss(
        self,
        S1pt: ArrayLike,
        S2pt: ArrayLike,
        S1cpt: ArrayLike,
        S2cpt: ArrayLike,
        new: ArrayLike = 1.0,
        N: ArrayLike = MILLION,
    ) -> Array:
        """`new` is r, the share of new text."""
        S1cpt, r, N = (np.asarray(x, dtype=float) for x in (S1cpt, new, np.asarray(N, dtype=float) / MILLION))
        trained = self.L0 + self.A * np.power(S1pt + S1cpt, -self.alpha) + self.F * np.power(N, -self.g3)
        annealed = self.C1 * np.power(N, self.g1) * np.asarray(S2pt)
        annealed = annealed + self.C2 * np.power(N, self.g2) * np.exp(self.a1 * r) * np.asarray(S2cpt)
        return np.asarray(trained - annealed + self.B * _exposure(self.a2, r) * _shifted(self.E, self.beta, S1cpt))

    def trajectory(
        self, parent: Sums, learning_rates: ArrayLike, *, new: float = 1.0, N: float = MILLION, decay: float = DECAY
    ) -> Array:
        """(steps,): the loss after each step of this stage, of a parent with the sums at the end of its own."""
        S1, S2 = sums(learning_rates, decay)
        return self.loss(parent.S1, parent.S2, S1, S2, new, N)

    def turning_sum(self, S1pt: float, new: float = 1.0) -> float | None:
        """S1cpt after which loss is back where this stage began, its learning rate being back at where it began.

        0: it never rose. None: it stays above for ever, since the shift costs more than training on can give back.
        """
        shift, gain = self.B * float(_exposure(self.a2, np.asarray(new))), self.A * S1pt**-self.alpha

        def above(log_S: float) -> float:
            S = np.exp(log_S)
            regained = gain * -np.expm1(-self.alpha * np.log1p(S / S1pt))
            return float(shift * _shifted(self.E, self.beta, S) - regained)

        if shift <= 0:
            return 0.0
        if shift >= gain:
            return None
        logs = np.log(S1pt) + np.linspace(-30, 100, 2000)
        rising = [x for x in logs if above(x) > 0]
        if not rising:
            return 0.0
        return None if rising[-1] == logs[-1] else float(np.exp(brentq(above, rising[-1], rising[-1] + 1)))


def turning_length(losses: ArrayLike, limit: float) -> int | None:
    """Steps of a trajectory after which loss stays at or below `limit`, such as the parent's own loss.

    0: it never rose above. None: it still is above at the last step.
    """
    above = np.flatnonzero(np.asarray(losses, dtype=float) > limit)
    if not len(above):
        return 0
    return None if above[-1] == np.size(losses) - 1 else int(above[-1]) + 2


def _shifted(E: ArrayLike, beta: ArrayLike, S: ArrayLike) -> Array:
    return np.asarray(-np.expm1(-np.asarray(beta) * np.log1p(np.asarray(E) * S)))


def _exposure(a2: ArrayLike, r: Array) -> Array:
    return np.asarray(np.expm1(-np.asarray(a2) * r) / np.expm1(-np.asarray(a2)))


@dataclass(frozen=True)
class Frame:
    """Units of the search: sums where a column is of order one, and the runs' mean size."""

    total: float  # S1pt + S1cpt, geometric mean
    reach: float  # the largest S1cpt
    parent: float  # the largest |S2pt| and |S2cpt|
    stage: float
    params: float


def frame(inputs: Inputs, reach: Inputs | None = None) -> Frame:
    total = inputs["S1pt"] + inputs["S1cpt"]
    if (total <= 0).any() or (inputs["S1cpt"] < 0).any():
        raise ConfigError(
            "dynamics: S1pt + S1cpt must be above 0 and S1cpt at least 0; a row before the first step is no observation"
        )
    stage, parent_S2, stage_S2 = (float(np.abs(inputs[name]).max()) or 1.0 for name in ("S1cpt", "S2pt", "S2cpt"))
    params = centre(inputs["N"]) if "N" in inputs else MILLION
    return Frame(total=centre(total), reach=stage, parent=parent_S2, stage=stage_S2, params=params)


NEUTRAL = np.array([ALPHA, *SHIFT, 0.0, SATURATED, 0.0, 0.0, SIZE_POWER])


def _spell(theta: Array) -> list[Array]:
    """alpha, E reach, beta, a1, a2, g1, g2, g3, each (B, 1); those a form leaves out at their neutral value."""
    rest = np.broadcast_to(NEUTRAL[theta.shape[1] :], (len(theta), len(NEUTRAL) - theta.shape[1]))
    return [*np.concatenate([theta, rest], axis=1).T[:, :, None]]


def columns(theta: Array, inputs: Inputs, frame: Frame) -> Array:
    """(B, n, 5 or 6) for L0, A, C1, C2, B and, over sizes, F."""
    alpha, E, beta, a1, a2, g1, g2, g3 = _spell(theta)
    r, N = inputs.get("new", np.ones(1)), inputs.get("N", np.full(1, frame.params)) / frame.params
    shift = _shifted(E, beta, inputs["S1cpt"] / frame.reach) / _shifted(E, beta, 1.0)
    found = [
        np.ones((1, 1)),
        np.power((inputs["S1pt"] + inputs["S1cpt"]) / frame.total, -alpha),
        -inputs["S2pt"] / frame.parent * np.power(N, g1),
        -inputs["S2cpt"] / frame.stage * np.exp(a1 * r) * np.power(N, g2),
        _exposure(a2, r) * shift,
    ]
    if "N" in inputs:
        found.append(np.power(N, -g3))
    return np.stack(np.broadcast_arrays(*found), axis=-1)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, frame: Frame) -> Array:
    _, E, beta, _, a2, *_ = _spell(theta)
    sized = columns(theta, inputs, frame) * coefficients[:, None, :]
    S = inputs["S1cpt"] / frame.reach
    left, left_at_reach = np.power(1 + E * S, -beta), np.power(1 + E, -beta)
    gone, gone_at_reach = _shifted(E, beta, S), _shifted(E, beta, 1.0)
    shift = np.where(gone > 0, sized[..., 4] / np.where(gone > 0, gone, 1.0), 0.0)
    by_E = shift * beta * (left * S / (1 + E * S) - gone / gone_at_reach * left_at_reach / (1 + E))
    by_beta = shift * (left * np.log1p(E * S) - gone / gone_at_reach * left_at_reach * np.log1p(E))
    found = [-sized[..., 1] * np.log((inputs["S1pt"] + inputs["S1cpt"]) / frame.total), by_E, by_beta]
    if "new" in inputs:
        r = np.maximum(inputs["new"], 1e-12)  # at zero the column and its slope are zero
        found += [sized[..., 3] * r, sized[..., 4] * (_left(a2, r) - _left(a2, np.ones(1)))]
    if "N" in inputs:
        size = np.log(inputs["N"] / frame.params)
        found += [sized[..., 2] * size, sized[..., 3] * size, -sized[..., 5] * size]
    return np.stack(found, axis=-1)


def _left(a2: Array, r: Array) -> Array:
    """d log(1 - exp(-a2 r)) / d a2."""
    return np.asarray(r * np.exp(-a2 * r) / -np.expm1(-a2 * r))


def build(theta: Array, coefficients: Array, frame: Frame) -> Law:
    alpha, E, beta, a1, a2, g1, g2, g3 = (float(x[0, 0]) for x in _spell(theta[None]))
    L0, A, C1, C2, B, F = (float(x) for x in np.resize([*coefficients, 0.0], 6))
    params = frame.params / MILLION
    A, B = A * frame.total**alpha, B / float(_shifted(E, beta, 1.0))
    C1, C2 = C1 / frame.parent * params**-g1, C2 / frame.stage * params**-g2
    return Dynamics(L0, A, alpha, C1, C2, B, E / frame.reach, beta, a1, a2, g1, g2, F * params**g3, g3)


def settle(inputs: Inputs) -> Settled:
    fixed: dict[str, float] = {}
    absent: list[str] = []
    reasons: list[str] = []

    def give_up(reason: str, *missing: str, **exponents: float) -> None:
        fixed.update(exponents)
        absent.extend(missing)
        reasons.append(reason)

    total, stage = inputs["S1pt"] + inputs["S1cpt"], inputs["S1cpt"]
    if count_levels(total) == 1:
        give_up("S1 is the same in all runs: A is fixed at 0, more training changes nothing", "A", alpha=ALPHA)
    elif total.max() < WIDE * total.min():
        give_up(f"S1 spans a factor of {total.max() / total.min():.2f}: alpha is fixed at {ALPHA}", alpha=ALPHA)
    if np.ptp(inputs["S2pt"]) == 0:
        give_up("all parents are annealed alike: C1 is fixed at 0 and its term is part of L0", "C1")
    if np.ptp(inputs["S2cpt"]) == 0:
        give_up("the learning rate of this stage is the same throughout: C2 is fixed at 0", "C2")
    if not stage.any():
        give_up("no step of this stage: B is fixed at 0", "B", E=SHIFT[0], beta=SHIFT[1])
    elif (levels := count_levels(stage[stage > 0])) < 4:
        E = SHIFT[0] * float(stage.max())
        give_up(f"S1cpt at {levels} values: E and beta are fixed at {SHIFT[0]:g} and {SHIFT[1]}", E=E, beta=SHIFT[1])
    if "new" in inputs and (not stage.any() or np.ptp(inputs["new"][stage > 0]) == 0):
        give_up("one share of new text: nothing is learnt of replay", a1=0.0, a2=SATURATED)
    if "N" in inputs and (sizes := count_levels(inputs["N"])) < 3:
        give_up(f"{sizes} model size{'s' * (sizes > 1)}: g3 is fixed at {SIZE_POWER}", g3=SIZE_POWER)
        if sizes == 1:
            give_up("one model size: F is fixed at 0", "F", g1=0.0, g2=0.0)
    return Settled(fixed, absent=tuple(absent), reasons=tuple(reasons))


def form(*, replay: bool = False, sizes: bool = False) -> Form:
    """The law over schedules alone, over shares of new text too, or over sizes and shares.

    Observations are checkpoints. A few dozen per run say all a trajectory says; thin out before fitting.
    """
    exponents = {"alpha": Exponent(0.05, 2.0), "E": Exponent(1e-2, 1e5), "beta": Exponent(5e-3, 3.0)}
    if replay or sizes:
        exponents |= {"a1": Exponent(-3.0, 3.0, False), "a2": Exponent(0.05, STEEPEST)}
    if sizes:
        exponents |= {"g1": Exponent(-0.5, 1.0, False), "g2": Exponent(-0.5, 1.0, False), "g3": Exponent(0.02, 1.0)}
    return Form(
        name="dynamics",
        inputs=("S1pt", "S2pt", "S1cpt", "S2cpt", *(("new",) if replay or sizes else ()), *(("N",) if sizes else ())),
        linear=("L0", "A", "C1", "C2", "B", *(("F",) if sizes else ())),
        exponents=exponents,
        frame=frame,
        columns=columns,
        build=build,
        settle=settle,
        slopes=slopes,
        free=frozenset({"B"}),
        spans_sizes=sizes,
    )


FORM = form()
