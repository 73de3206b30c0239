"""Fit a law to runs, and show the evidence: many starts, what was held out, what the runs did not decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ratoon.config import ConfigError
from ratoon.laws.fitting import varpro
from ratoon.laws.fitting.folds import Fold, leave_out
from ratoon.laws.fitting.identify import Identification, identify
from ratoon.laws.fitting.objective import HUBER, Objective
from ratoon.laws.fitting.polish import polish
from ratoon.laws.fitting.refuse import refuse, refuse_rising
from ratoon.laws.fitting.runs import Runs, enough, num_free, refuse_too_few
from ratoon.laws.fitting.search import draw_starts, masks, problem, repeat, search
from ratoon.laws.form import Array, Form, Inputs, Law, Settled

FOLD_STARTS = 12
SAME = 1e-3  # relative difference of objective within which two starts reached the same optimum


@dataclass(frozen=True)
class HeldOut:
    """One split: `name` says what was left out; errors are relative and signed, (predicted - measured)/measured."""

    name: str  # "longest runs", "a ratio", "largest models", "mixtures"
    errors: Array
    own: Array  # own share of each; 1 where the law has none

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def rms_where_seen(self) -> float:
        """Without runs that never saw the corpus: the rows that every law speaks about."""
        errors = self.errors[self.own > 0]
        return float(np.sqrt(np.mean(errors**2))) if len(errors) else self.rms


@dataclass(frozen=True)
class Fit:
    law: Law
    form: Form
    params: dict[str, float]  # in units of N/1e9 and D/1e9
    seen_error: float  # relative, median over the observations fitted
    unseen_error: float | None  # relative, median over those held out in turn. None: nothing could be
    agreement: float  # share of the starts descended from that reached this optimum
    converged: bool  # the best start's last steps no longer lowered the objective
    at_bounds: tuple[str, ...]  # parameters the data did not decide: at the end of their range, or fixed
    identification: Identification
    objective: float  # sum of the objective over observations
    held_out: tuple[HeldOut, ...]
    reasons: tuple[str, ...]  # why parameters were fixed
    observations: int
    frame: Any
    theta: Array  # the exponents as the form counts them
    coefficients: Array
    settled: Settled
    loss_kind: Objective

    def loss(self, *inputs: ArrayLike) -> Array:
        """Nats per token at these inputs, in the order of `form.inputs`."""
        return self.law.loss(*inputs)

    def predict(self, inputs: Inputs) -> Array:
        """(n,) nats per token, as the search sees them."""
        return np.asarray(self.form.columns(self.theta[None], inputs, self.frame)[0] @ self.coefficients)

    @property
    def num_free(self) -> int:
        return num_free(self.form, self.settled)

    def misfit(self, tokens: float, longest: float, shorter: float) -> float:
        """Relative error to expect at `tokens` beyond sampling noise: the larger of the two held-out errors.

        What was held out was `longest` predicted from `shorter`. A law that is tangent to the truth errs by what
        it lacks in curvature, so the error is scaled by the square of the stretch in log tokens.
        """
        stretch = np.log(max(tokens / longest, 1.0)) / max(np.log(longest / shorter), 1e-9) if shorter < longest else 1
        scales = {"longest runs": float(np.clip(stretch**2, 1.0, 10.0))}
        return max((split.rms_where_seen * scales.get(split.name, 1.0) for split in self.held_out), default=0.0)


def fit(
    form: Form,
    inputs: Mapping[str, ArrayLike],
    loss: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    reach: Mapping[str, ArrayLike] | None = None,
    folds: Sequence[Fold] | None = None,
    hold_out: bool = True,
    objective: Objective = HUBER,
    seed: int = 0,
) -> Fit:
    """The law `form` on n observations of its inputs (counts, shares in 0..1, learning rates) and loss in nats.

    weights   how much each observation counts; 1 when not given
    reach     inputs the law will be asked about; its monotonicities are kept up to there
    folds     what to leave out in turn for `unseen_error`; when not given the longest runs, each inner ratio, the
              largest models, or mixtures, as far as the inputs have them
    hold_out  False: leave nothing out

    Raises ConfigError when the runs cannot pin the law, naming what would.
    """
    missing = [name for name in form.inputs if name not in inputs]
    if missing:
        raise ConfigError(f"{form.name}: no {', '.join(missing)} among the inputs; it is a law of {form.inputs}")
    runs = Runs.gather({name: inputs[name] for name in form.inputs}, loss, weights)
    if not form.speaks_at_zero and "r" in runs.inputs:
        runs = runs.where(runs.own > 0)
    asked = None if reach is None else {name: np.atleast_1d(np.asarray(x, dtype=float)) for name, x in reach.items()}
    refuse(form, runs.inputs, runs.loss)
    frame, settled = form.frame(runs.inputs, asked), form.settle(runs.inputs)
    refuse_too_few(form, runs, settled)
    optimum = search(form, runs, frame, settled, objective, seed)
    splits = _held_out(form, runs, frame, folds, objective, seed) if hold_out else ()
    found = _evidence(form, runs, frame, settled, objective, optimum, splits)
    refuse_rising(form, found.law, runs.inputs, asked)
    return found


def _evidence(
    form: Form,
    runs: Runs,
    frame: Any,
    settled: Settled,
    objective: Objective,
    optimum: varpro.Optimum,
    splits: tuple[HeldOut, ...],
) -> Fit:
    best = int(optimum.value.argmin())
    lowest = float(optimum.value[best])
    posed = problem(form, runs, frame, objective, settled)
    free, present = masks(form, settled)
    theta, coefficients = polish(posed, optimum.theta[best], optimum.coefficients[best], runs.weights, free)
    law = form.build(theta, coefficients, frame)
    predicted = form.columns(theta[None], runs.inputs, frame)[0] @ coefficients
    unseen = np.concatenate([split.errors for split in splits]) if splits else None
    return Fit(
        law=law,
        form=form,
        params=flat(law),
        seen_error=float(np.median(np.abs(predicted / runs.loss - 1))),
        unseen_error=None if unseen is None else float(np.median(np.abs(unseen))),
        agreement=float(np.mean(optimum.value <= lowest * (1 + SAME) + objective.delta**2 * 1e-6 * len(runs))),
        converged=bool(optimum.settled[best]),
        at_bounds=_undecided(form, theta, coefficients, settled),
        identification=identify(posed, theta, coefficients, runs.weights, free, present, form),
        objective=float(objective.value(predicted, runs.loss, runs.weights)),
        held_out=splits,
        reasons=settled.reasons,
        observations=len(runs),
        frame=frame,
        theta=theta,
        coefficients=coefficients,
        settled=settled,
        loss_kind=objective,
    )


def flat(law: Law) -> dict[str, float]:
    """Parameters by name; a vector's entries are numbered."""
    found: dict[str, float] = {}
    for name, value in law._asdict().items():
        if isinstance(value, str) or value is None or callable(value):
            continue
        values = np.asarray(value, dtype=float)
        if values.ndim == 0:
            found[name] = float(values)
        else:
            found.update({f"{name}{i}": float(x) for i, x in enumerate(values.ravel())})
    return found


def _held_out(
    form: Form, runs: Runs, frame: Any, folds: Sequence[Fold] | None, objective: Objective, seed: int
) -> tuple[HeldOut, ...]:
    """Refits with zero weight on what is left out: all folds and all their starts are one batch."""
    asked = leave_out(runs.inputs) if folds is None else list(folds)
    usable = [fold for fold in asked if enough(form, runs.where(fold.keep))]
    if not usable:
        return ()
    starts, weights, may_move, may_differ = [], [], [], []
    for number, fold in enumerate(usable):
        settled = form.settle(runs.where(fold.keep).inputs)
        theta = draw_starts(form, settled, FOLD_STARTS, seed + 1 + number)
        weight, free, present = repeat(runs.weights * fold.keep, *masks(form, settled), FOLD_STARTS)
        starts.append(theta)
        weights.append(weight)
        may_move.append(free)
        may_differ.append(present)
    found = varpro.descend(
        problem(form, runs, frame, objective, form.settle(runs.inputs)),
        np.concatenate(starts),
        np.concatenate(weights),
        np.concatenate(may_move),
        np.concatenate(may_differ),
        iterations=60,
    )
    errors: dict[str, list[tuple[Array, Array]]] = {}
    for number, fold in enumerate(usable):
        start = number * FOLD_STARTS
        best = start + int(found.value[start : start + FOLD_STARTS].argmin())
        out = runs.where(~fold.keep)
        predicted = form.columns(found.theta[best][None], out.inputs, frame)[0] @ found.coefficients[best]
        own = out.inputs.get("r", np.ones(len(out)))
        errors.setdefault(fold.name, []).append((predicted / out.loss - 1, own))
    return tuple(
        HeldOut(name, *(np.concatenate(column) for column in zip(*parts, strict=True)))
        for name, parts in errors.items()
    )


def _undecided(form: Form, theta: Array, coefficients: Array, settled: Settled) -> tuple[str, ...]:
    fixed = [*settled.exponents, *settled.absent, *settled.given]
    slack = np.where(form.logarithmic, 1e-3 * np.abs(theta), 1e-3 * (form.high - form.low))
    ends = (theta <= form.low + slack) | (theta >= form.high - slack)
    at_ends = [name for name, end in zip(form.exponents, ends, strict=True) if end and name not in fixed]
    zeros = [
        name
        for name, value in zip(form.linear, coefficients, strict=True)
        if value == 0 and name not in settled.absent and name not in form.free
    ]
    return tuple(fixed + at_ends + zeros)
