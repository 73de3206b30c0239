"""Observations no law must be fitted on, and fitted laws no one must be shown."""

import itertools

import numpy as np

from ratoon.config import ConfigError
from ratoon.laws.form import Array, Form, Inputs, Law, count_shares

POSITIVE = ("N", "D", "U")
GRID = 5  # points per input on which a fitted law must keep falling
SLACK = 1e-9  # relative rise that is rounding
SHARES = 1e-3  # by which the shares of a mixture may miss one


def refuse(form: Form, inputs: Inputs, loss: Array) -> None:
    """Everything that would make a fit an opinion."""
    if len(loss) == 0:
        raise ConfigError(f"{form.name}: no observation to fit; loss must be measured at the end of finished runs")
    for name, values in {**inputs, "loss": loss}.items():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad := np.flatnonzero(~finite).tolist():
            raise ConfigError(f"{form.name}: {name} is not a number in observations {bad[:5]}; leave such rows out")
    below = [name for name in POSITIVE if name in inputs and (inputs[name] <= 0).any()]
    if (loss <= 0).any() or below:
        raise ConfigError(f"{form.name}: loss, N and D must be above 0; a row at 0 tokens is the parent, not a run")
    if "r" in inputs:
        _refuse_ratios(form, inputs["r"])
    if "h" in inputs:
        _refuse_mixtures(form, inputs["h"])
    if len(loss) > 1 and np.ptp(loss) < 1e-6 * loss.mean():
        raise ConfigError(
            f"{form.name}: all {len(loss)} losses are {loss[0]:g}; a constant says nothing about the law. "
            f"Check that each run's own loss was recorded"
        )


def _refuse_ratios(form: Form, r: Array) -> None:
    if (r > 1).any() or (r < 0).any():
        raise ConfigError(
            f"{form.name}: shares run from {r.min():g} to {r.max():g}; allowed is 0..1. "
            f"If they are in percent, divide by 100"
        )
    if (ratios := count_shares(r)) < 3:
        found = ", ".join(f"{x:g}" for x in np.unique(r))
        raise ConfigError(
            f"{form.name}: {ratios} ratio{'s' * (ratios > 1)} ({found}) cannot show how loss bends with the ratio; "
            f"run at least three, better five"
        )


def _refuse_mixtures(form: Form, h: Array) -> None:
    total = h.sum(axis=1)
    wrong = np.flatnonzero((np.abs(total - 1) > SHARES) | (h < 0).any(axis=1)).tolist()
    if wrong:
        raise ConfigError(
            f"{form.name}: the shares of observations {wrong[:5]} sum to {total[wrong[0]]:g} or are below 0; shares "
            f"are of tokens, in 0..1, and sum to 1. Nothing is rescaled for you"
        )


def refuse_rising(form: Form, law: Law, inputs: Inputs, reach: Inputs | None) -> None:
    """A law that rises where its form says it falls, anywhere between the runs and what is asked, is not shown."""
    if not form.falls:
        return
    axes, fixed = {}, {}
    for name in form.inputs:
        if inputs[name].ndim > 1:  # a mixture: its mean stands for all
            fixed[name] = inputs[name].mean(axis=0)
            continue
        values = np.concatenate([inputs[name], np.atleast_1d(reach[name]) if reach and name in reach else []])
        low, high = float(values[values > 0].min(initial=np.inf)), float(values.max())
        axes[name] = np.geomspace(low, high, GRID) if 0 < low < high else np.array([high])
    mesh = np.array(list(itertools.product(*axes.values())))

    def loss(name: str, value: float) -> Array:
        at = {key: np.full(len(mesh), value) if key == name else mesh[:, i] for i, key in enumerate(axes)}
        at |= {key: np.tile(values, (len(mesh), 1)) for key, values in fixed.items()}
        return law.loss(*(at[key] for key in form.inputs))

    for name in form.falls:
        values = axes[name]
        tables = np.stack([loss(name, value) for value in values])
        rise = np.diff(tables, axis=0) / np.abs(tables[0])
        if rise.size and rise.max() > SLACK:
            step, row = np.unravel_index(int(rise.argmax()), rise.shape)
            where = ", ".join(f"{key} {mesh[row, i]:.4g}" for i, key in enumerate(axes) if key != name)
            raise ConfigError(
                f"{form.name}: the best fit lets loss rise with {name} ({values[step]:.4g} to "
                f"{values[step + 1]:.4g}{', at ' + where if where else ''}), which this law forbids; the runs "
                f"contradict it, or are too few and too noisy there: add runs between these, or take another law"
            )
