"""Learning rate as a pure function of the step.

All warm up linearly over `warmup_steps` from one step's worth to the peak. Then
    constant  stays
    cosine    floor + (1 - floor) (1 + cos(pi t)) / 2, t from 0 to 1 over the rest
    wsd       stays, and falls linearly to the floor over the last `decay_share` of the steps (arXiv 2404.06395
              names the form; the linear tail is the one of arXiv 2405.18392)
"""

import math
from collections.abc import Callable

from ratoon.config import ConfigError, Schedule

LearningRate = Callable[[int], float]


def decay_start(schedule: Schedule, steps: int) -> int:
    """First step whose learning rate depends on where the run ends. Before it, runs of any length agree."""
    if schedule.name == "wsd":
        return max(min(schedule.warmup_steps, steps), steps - round(steps * schedule.decay_share))
    return min(schedule.warmup_steps, steps) if schedule.name == "cosine" else steps


def learning_rate(schedule: Schedule, peak: float, steps: int) -> LearningRate:
    """Learning rate of update number 0, 1, ... steps - 1.

    Raises ConfigError where warm-up and decay are longer than the run.
    """
    warmup = schedule.warmup_steps
    if warmup >= steps:
        raise ConfigError(
            f"train.schedule.warmup_steps: {warmup} steps of warm-up in a run of {steps}; "
            f"lower warmup_steps, or raise the tokens of the run"
        )
    start = decay_start(schedule, steps)

    def at(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        if step < start:
            return peak
        through = (step - start + 1) / (steps - start)
        shape = 1 - through if schedule.name == "wsd" else (1 + math.cos(math.pi * through)) / 2
        return peak * (schedule.floor + (1 - schedule.floor) * shape)

    return at
