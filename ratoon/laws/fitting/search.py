"""The search for one optimum of a law on runs: many starts scored, the better ones descended from."""

from dataclasses import replace
from typing import Any

import numpy as np

from ratoon.laws.fitting import varpro
from ratoon.laws.fitting.objective import HUBER, Objective
from ratoon.laws.fitting.polish import WIDE
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Array, Form, Mask, Settled

NOTHING_SETTLED = Settled()
SCORED = 384  # starts tried
POLISHED = 24  # of them descended from


def problem(
    form: Form, runs: Runs, frame: Any, objective: Objective = HUBER, settled: Settled = NOTHING_SETTLED
) -> varpro.Problem:
    def columns(theta: Array) -> Array:
        return form.columns(theta, runs.inputs, frame)

    def slopes(theta: Array, coefficients: Array) -> Array:
        assert form.slopes is not None
        return form.slopes(theta, coefficients, runs.inputs, frame)

    return varpro.Problem(
        columns=columns,
        slopes=None if form.slopes is None else slopes,
        loss=runs.loss,
        low=form.low,
        high=form.high,
        logarithmic=form.logarithmic,
        signed=form.signed,
        given=np.array([settled.given.get(name, np.nan) for name in form.linear]),
        objective=objective,
    )


def masks(form: Form, settled: Settled) -> tuple[Mask, Mask]:
    """(k,) which exponents may move, (m,) which coefficients may differ from 0."""
    free = np.array([name not in settled.exponents for name in form.exponents], dtype=bool)
    present = np.array([name not in settled.absent for name in form.linear], dtype=bool)
    return free, present


def draw_starts(form: Form, settled: Settled, number: int, seed: int) -> Array:
    """(number, k): log-uniform over the bounds; where the scale is linear dense in the middle; those that are fixed
    at their value."""
    random = np.random.default_rng(seed)
    draws = random.uniform(-1, 1, (number, len(form.exponents)))
    low, high = (np.where(form.logarithmic, np.log(np.abs(x) + 1e-300), x) for x in (form.low, form.high))
    draws = np.where(form.logarithmic, draws, draws**3)
    theta = (low + high) / 2 + draws * (high - low) / 2
    theta = np.where(form.logarithmic, np.exp(np.where(form.logarithmic, theta, 0.0)), theta)
    for k, name in enumerate(form.exponents):
        if name in settled.exponents:
            theta[:, k] = settled.exponents[name]
    return np.asarray(theta)


def search(form: Form, runs: Runs, frame: Any, settled: Settled, objective: Objective, seed: int) -> varpro.Optimum:
    """Score many starts without moving, then descend from the better ones."""
    # Reweighting towards absolute values is slow at first: the way there is searched with wider squares.
    posed = problem(form, runs, frame, replace(objective, delta=max(objective.delta, WIDE)), settled)
    free, present = masks(form, settled)
    if not free.any():
        starts = draw_starts(form, settled, 1, seed)
    else:
        starts = draw_starts(form, settled, SCORED, seed)
        scored = varpro.descend(posed, starts, *repeat(runs.weights, free, present, len(starts)), iterations=0)
        starts = starts[np.argsort(scored.value, kind="stable")[:POLISHED]]
    return varpro.descend(posed, starts, *repeat(runs.weights, free, present, len(starts)), iterations=80)


def repeat(weights: Array, free: Mask, present: Mask, times: int) -> tuple[Array, Mask, Mask]:
    return tuple(np.broadcast_to(x, (times, len(x))).copy() for x in (weights, free, present))  # type: ignore[return-value]
