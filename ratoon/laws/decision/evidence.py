"""A fitted law with what speaks for and against it: standard errors, residuals, what it said of runs it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.decision.believe import SPREAD
from ratoon.laws.fitting.fit import Fit, fit, flat
from ratoon.laws.fitting.folds import leave_out
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array
from ratoon.laws.intervals.forecast import Forecast, forecast

REPLICATES = 200  # of a fold or of standard errors: an interval's end is then known to about a tenth of its width
LEVELS = (1 - SPREAD) / 2, (1 + SPREAD) / 2
ONE_SIGMA = NormalDist().cdf(-1), NormalDist().cdf(1)


@dataclass(frozen=True)
class HeldOutPoint:
    """One run that was left out, and what the others said of it. Nats per token."""

    split: str
    inputs: dict[str, float]
    measured: float
    predicted: float
    low: float
    high: float
    rank: float  # share of the draws below what was measured: even over 0..1 where intervals are right

    @property
    def inside(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class Evidence:
    """A law fitted on the losses of one text.

    on       "general", "domain" or "loss"
    errors   standard errors of `fit.params`, among the laws these runs allow; a parameter that was fixed has 0
    belief   its share of what is believed of this loss; 0: fitted, and not believed
    """

    law: str
    on: str
    fit: Fit
    runs: Runs
    groups: tuple[str, ...]
    outlook: Forecast
    errors: dict[str, float]
    belief: float

    @property
    def predicted(self) -> Array:
        """(n,) of the runs it was fitted on."""
        return self.fit.predict(self.runs.inputs)

    def draws(self, inputs: Mapping[str, ArrayLike]) -> Array:
        """(R, n) nats per token at these inputs."""
        return self.outlook.at({name: np.atleast_1d(np.asarray(inputs[name])) for name in self.fit.form.inputs})

    def document(self) -> dict[str, object]:
        """For JSON: everything a fit should show."""
        found = self.fit
        return {
            "law": self.law,
            "role": self.on,
            "believed": self.belief,
            "params": found.params,
            "standard_errors": self.errors,
            "seen_error": found.seen_error,
            "unseen_error": found.unseen_error,
            "held_out": {split.name: split.rms for split in found.held_out},
            "agreement": found.agreement,
            "converged": found.converged,
            "at_bounds": list(found.at_bounds),
            "fixed": list(found.reasons),
            "loose": list(found.identification.loose),
            "condition": found.identification.condition,
            "noise": found.identification.noise,
            "observations": found.observations,
            "groups": len(set(self.groups)),
        }


def gather(
    law: str, on: str, fitted: Fit, runs: Runs, groups: Sequence[str], *, belief: float = 0.0, tokens: float, seed: int
) -> Evidence:
    """What there is to say of a fit. `tokens`: of the run it will be asked about."""
    outlook = forecast(fitted, runs, groups, tokens=tokens, replicates=REPLICATES, seed=seed)
    return Evidence(law, on, fitted, runs, tuple(groups), outlook, standard_errors(outlook), belief)


def standard_errors(outlook: Forecast) -> dict[str, float]:
    """Of the reported parameters: half the central 68% of the draws'."""
    drawn = outlook.replicates
    found = [flat(drawn.form.build(t, c, drawn.frame)) for t, c in zip(drawn.theta, drawn.coefficients, strict=True)]
    errors = {}
    for name in outlook.fit.params:
        low, high = np.quantile([each[name] for each in found], ONE_SIGMA)
        errors[name] = float(outlook.inflation * (high - low) / 2)
    return errors


def calibrate(evidence: Evidence, *, seed: int = 0) -> tuple[HeldOutPoint, ...]:
    """Every run that can be left out in turn, foretold by a fit without it, with the interval that fit gave.

    The refits know nothing of what was left out: their intervals rest on what they themselves held out.
    """
    points: list[HeldOutPoint] = []
    runs, form = evidence.runs, evidence.fit.form
    for fold in leave_out(runs.inputs):
        kept, out = runs.where(fold.keep), runs.where(~fold.keep)
        groups = [name for name, keep in zip(evidence.groups, fold.keep, strict=True) if keep]
        try:
            fitted = fit(form, kept.inputs, kept.loss, reach=out.inputs, objective=evidence.fit.loss_kind, seed=seed)
        except ConfigError:  # too little is left to be fitted: nothing was foretold
            continue
        tokens = float(out.tokens.max()) if "D" in out.inputs else 0.0
        outlook = forecast(fitted, kept, groups, tokens=tokens, replicates=REPLICATES, seed=seed)
        foretold = _measured(outlook, out, seed)
        low, high = np.quantile(foretold, LEVELS, axis=0)
        points += [
            HeldOutPoint(
                fold.name,
                {name: float(values[k]) for name, values in out.inputs.items() if values.ndim == 1},
                float(out.loss[k]),
                float(value),
                float(low[k]),
                float(high[k]),
                float((foretold[:, k] < out.loss[k]).mean()),
            )
            for k, value in enumerate(fitted.predict(out.inputs))
        ]
    return tuple(points)


def _measured(outlook: Forecast, out: Runs, seed: int) -> Array:
    """(R, n) what a measurement of these runs would show: the loss foretold, and the noise of a run."""
    foretold = outlook.at(out.inputs)
    noise = outlook.noise
    level = outlook.fit.identification.noise if noise is None else np.hypot(noise.luck, noise.measurement)[:, None]
    shock = level * np.random.default_rng(seed).standard_normal(foretold.shape)
    return np.asarray(foretold + shock if outlook.fit.loss_kind.space == "raw" else foretold * (1 + shock))
