"""Which tasks say something: low-noise and growing with training. Others may be shown, and should decide nothing.

    noise     sd of the last checkpoints of a run / mean, a mean over runs
    signal    largest - smallest / mean, over the models compared
    snr       signal / noise                                                  (arXiv:2508.13144)
    spearman  of step and score (its sign turned for a loss), a mean over runs
    mde       (z_{1 - alpha} + z_power) * sqrt(se^2 + 2 sd^2): the least difference of two models that a test finds,
              with the sampling error of the items and the scatter of a model's own last checkpoints

The models compared are the final ones of all runs and the parent they came from: where a task cannot tell those apart
by more than a run differs from itself a few steps earlier, it tells nothing. What is to be learned (role domain) must
grow. What is to be kept (role general) need not: it must go one way, down as well as up, or it shows no forgetting.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from ratoon.config import QualityConfig, Role
from ratoon.records import Record

ALPHA, POWER = 0.05, 0.8

Run = Sequence[tuple[int, float]]  # (step, score), the parent's at step 0 first


class TaskQuality(Record):
    """What a task is worth as a judge."""

    task: str
    metric: Literal["bits_per_byte", "accuracy"]
    role: Role
    runs: int = Field(description="reference runs, such as seeds")
    checkpoints: int = Field(description="of each, beside the parent; the fewest")
    mean: float = Field(description="of the last checkpoints of all runs")
    spearman: float | None = Field(description="of step and score, better is more; None: fewer than three points")
    noise: float | None = Field(description="relative; None: fewer than two last checkpoints")
    signal: float | None
    snr: float | None = Field(description="None: no noise was seen, or none could be")
    mde: float | None = Field(description="least difference found with 80% power, in the task's own unit")
    use: Literal["gate", "show"]
    why: str


def quality(
    task: str,
    metric: Literal["bits_per_byte", "accuracy"],
    role: Role,
    runs: Mapping[str, Run],
    standard_error: float | None,
    asked: QualityConfig,
) -> TaskQuality:
    """runs: name -> its checkpoints; standard_error: of the paired difference of two models on the task's items."""
    tails = [[score for step, score in sorted(run) if step > 0][-asked.last :] for run in runs.values()]
    mean = float(np.mean([score for tail in tails for score in tail]))
    spreads = [float(np.std(tail, ddof=1)) for tail in tails if len(tail) > 1]
    spread = float(np.mean(spreads)) if spreads else None
    noise = None if spread is None or not mean else spread / abs(mean)
    signal = _signal(runs, mean)
    growth = _growth(runs, metric)
    snr = signal / noise if signal is not None and noise else None
    found = TaskQuality(
        task=task,
        metric=metric,
        role=role,
        runs=len(runs),
        checkpoints=min(sum(step > 0 for step, _ in run) for run in runs.values()),
        mean=mean,
        spearman=growth,
        noise=noise,
        signal=signal,
        snr=snr,
        mde=_mde(standard_error, spread),
        use="show",
        why="",
    )
    lacks = list(_lacks(found, asked))
    return found.model_copy(
        update={"use": "show" if lacks else "gate", "why": "; ".join(lacks) or "low-noise and steady"}
    )


def _lacks(found: TaskQuality, asked: QualityConfig) -> list[str]:
    lacks = []
    if found.runs < asked.min_runs:
        lacks.append(f"{found.runs} of {asked.min_runs} reference runs")
    if found.checkpoints < asked.last:
        lacks.append(f"{found.checkpoints} of {asked.last} checkpoints")
    way, steady = found.spearman, "grows" if found.role == "domain" else "goes one way"
    if way is None or (way if found.role == "domain" else abs(way)) < asked.min_spearman:
        lacks.append(f"{steady} with training at {_number(way)}, asked for {asked.min_spearman:g}")
    # No spread at all is no noise: whatever signal there is stands out.
    silent = found.noise == 0 and bool(found.signal)
    if not silent and (found.snr is None or found.snr < asked.min_snr):
        lacks.append(f"signal to noise {_number(found.snr)}, asked for {asked.min_snr:g}")
    return lacks


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _signal(runs: Mapping[str, Run], mean: float) -> float | None:
    models = [max(run)[1] for run in runs.values()]
    models += [score for run in runs.values() for step, score in run if step == 0][:1]
    return (max(models) - min(models)) / abs(mean) if len(models) > 1 and mean else None


def _growth(runs: Mapping[str, Run], metric: str) -> float | None:
    sign = -1 if metric == "bits_per_byte" else 1
    found = [spearman([step for step, _ in run], [sign * score for _, score in run]) for run in runs.values()]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def spearman(steps: Sequence[float], scores: Sequence[float]) -> float | None:
    """Rank correlation; None with fewer than three points, 0 where nothing moves."""
    from scipy.stats import spearmanr

    if len(steps) < 3:
        return None
    if len(set(scores)) == 1:
        return 0.0
    return float(spearmanr(steps, scores).statistic)


def _mde(standard_error: float | None, spread: float | None) -> float | None:
    from scipy.stats import norm

    if standard_error is None:
        return None
    reach = float(norm.ppf(1 - ALPHA) + norm.ppf(POWER))
    return reach * math.sqrt(standard_error**2 + 2 * (spread or 0.0) ** 2)
