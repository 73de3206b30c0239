"""Which further run would pin the parameters that the runs leave open."""

import itertools
from dataclasses import dataclass

import numpy as np

from ratoon.laws.fitting.fit import Fit
from ratoon.laws.form import Array, Inputs

RATIOS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
REACH = 2.0  # times beyond the smallest and the largest tried that a further run may lie
LEVELS = 5  # of each input, among those tried
NUDGE = 1e-5
SHARES = ("p", "new")  # beside r: at most 1
MEASURED = ("L0", "k1", "k2")  # what was found of a model or a domain, which no run can choose
OWN_MIXTURE = 0.9  # the share of one domain in a mixture made to tell its effect


@dataclass(frozen=True)
class Pin:
    """A run at `inputs` cuts the standard error of the loosest parameter, `parameter`, from `now` to `after`."""

    parameter: str
    inputs: dict[str, float | tuple[float, ...]]
    now: float
    after: float

    def __str__(self) -> str:
        def written(value: float | tuple[float, ...]) -> str:
            return f"{value:.3g}" if isinstance(value, float) else "(" + ", ".join(f"{x:.2g}" for x in value) + ")"

        at = ", ".join(f"{name} {written(value)}" for name, value in self.inputs.items())
        return f"a run at {at} would pin {self.parameter} best: standard error {self.now:.2g} to {self.after:.2g}"


def would_pin(fitted: Fit, inputs: Inputs) -> Pin | None:
    """The observation, near those at `inputs`, that tells most about the loosest fitted parameter; None where none is
    loose, or none tells."""
    loose = fitted.identification.loose
    if not loose:
        return None
    names = list(fitted.identification.errors)
    worst = max(loose, key=lambda name: fitted.identification.errors[name])
    column = names.index(worst)
    candidates = _candidates(fitted, inputs)
    slopes = _slopes(fitted, candidates)
    covariance = fitted.identification.covariance
    noise = fitted.identification.noise * (
        1.0 if fitted.loss_kind.space == "raw" else np.abs(fitted.predict(candidates))
    )
    moved = slopes @ covariance  # (c, p)
    told = moved[:, column] ** 2 / (noise**2 + np.einsum("cp,cp->c", moved, slopes))
    best = int(told.argmax())
    now = float(covariance[column, column])
    if not told[best] > 0.01 * now:
        return None
    at = {
        name: float(values[best]) if values.ndim == 1 else tuple(float(x) for x in values[best])
        for name, values in candidates.items()
    }
    return Pin(worst, at, float(np.sqrt(now)), float(np.sqrt(max(now - told[best], 0.0))))


def _candidates(fitted: Fit, inputs: Inputs) -> dict[str, Array]:
    """Every combination of a few levels of each input."""
    axes = [_levels(name, np.asarray(inputs[name])) for name in fitted.form.inputs]
    picked = list(itertools.product(*(range(len(axis)) for axis in axes)))
    return {
        name: axis[[row[i] for row in picked]]
        for i, (name, axis) in enumerate(zip(fitted.form.inputs, axes, strict=True))
    }


def _levels(name: str, values: Array) -> Array:
    if values.ndim == 2:
        d = values.shape[1]
        corner = np.full((d, d), (1 - OWN_MIXTURE) / max(d - 1, 1))
        np.fill_diagonal(corner, OWN_MIXTURE)
        return corner
    if name == "r":
        return np.array(RATIOS)
    tried = np.unique(values)
    tried = tried[np.linspace(0, len(tried) - 1, min(LEVELS, len(tried))).round().astype(int)]
    if name in MEASURED:
        return tried
    reached = np.unique(np.concatenate([tried, [tried.min() / REACH, tried.max() * REACH]]))
    return np.unique(np.minimum(reached, 1.0)) if name in SHARES else reached


def _slopes(fitted: Fit, inputs: Inputs) -> Array:
    """(c, p): d predicted by each fitted parameter, on the scale of `Identification.errors`."""
    form, theta, coefficients = fitted.form, fitted.theta, fitted.coefficients
    columns = form.columns(theta[None], inputs, fitted.frame)[0]
    nudged = theta[None] + np.diag(NUDGE * np.where(form.logarithmic, theta, form.high - form.low))
    moved = form.columns(nudged, inputs, fitted.frame) if len(theta) else np.zeros((0, *columns.shape))
    change = (moved - columns) @ coefficients  # (k, c)
    step = NUDGE * np.where(form.logarithmic, 1.0, form.high - form.low)
    by_exponent = change.T / step if len(theta) else np.zeros((len(columns), 0))
    by_coefficient = columns * np.where(form.signed, coefficients, 1.0)
    return np.asarray(np.concatenate([by_exponent, by_coefficient], axis=1)[:, fitted.identification.used])
