"""Average-parameter law: loss of a model whose size changed while it was trained (arXiv:2501.12486).

    L = E + A/M^a + B/D^b,    M = (1/D) int_0^D N(d) dd

M  parameters averaged over the tokens of training, embeddings excluded, in billions
D  tokens seen, in billions     L  nats per token, on text never trained on

The Chinchilla law (chinchilla.py) with N replaced by M, so that dense, pruned and grown runs share one curve. The
source pruned, in 80 schedules; for models that grow, as before continued pretraining, it is an extrapolation. Its
coefficients are not known here: fit them. All parameters are >= 0, so dL/dM < 0 and dL/dD < 0.

Silent about how the size was changed: a bad cut or a bad initialisation costs extra, and a run that has only just
changed size has not recovered. The source finds pruning best between 25% and 75% of the compute.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.equations import chinchilla
from ratoon.laws.equations.chinchilla import Chinchilla, Units
from ratoon.laws.form import Array, Inputs, Law, Settled


class AverageParameter(NamedTuple):
    E: float
    A: float
    a: float
    B: float
    b: float

    def loss(self, N_mean: ArrayLike, D: ArrayLike) -> Array:
        return Chinchilla(*self).loss(N_mean, D)


def mean_parameters(tokens: ArrayLike, params: ArrayLike) -> float:
    """M of a run that had params[k] parameters until tokens[k] tokens had been seen, counted from the start of
    pretraining. A size that changes smoothly is given as many short stretches."""
    ends, sizes = np.atleast_1d(np.asarray(tokens, dtype=float)), np.atleast_1d(np.asarray(params, dtype=float))
    lengths = np.diff(ends, prepend=0.0)
    if ends.shape != sizes.shape or ends.ndim != 1 or not (lengths > 0).all() or not (sizes > 0).all():
        raise ConfigError(
            f"mean_parameters: tokens {ends.tolist()} and params {sizes.tolist()}; needed are one rising token count "
            f"for each size, the tokens seen when that size ended, and sizes above 0"
        )
    return float(np.average(sizes, weights=lengths))


def _sized(inputs: Inputs) -> Inputs:
    return {"N": inputs["N_mean"], "D": inputs["D"]}


def measure(inputs: Inputs, reach: Inputs | None = None) -> Units:
    return chinchilla.measure(_sized(inputs))


def columns(theta: Array, inputs: Inputs, units: Units) -> Array:
    return chinchilla.columns(theta, _sized(inputs), units)


def slopes(theta: Array, coefficients: Array, inputs: Inputs, units: Units) -> Array:
    return chinchilla.slopes(theta, coefficients, _sized(inputs), units)


def build(theta: Array, coefficients: Array, units: Units) -> Law:
    return AverageParameter(*chinchilla.build(theta, coefficients, units)._asdict().values())


def settle(inputs: Inputs) -> Settled:
    return chinchilla.settle(_sized(inputs))


FORM = replace(
    chinchilla.FORM,
    name="average",
    inputs=("N_mean", "D"),
    frame=measure,
    columns=columns,
    build=build,
    settle=settle,
    slopes=slopes,
    falls=("N_mean", "D"),
)
