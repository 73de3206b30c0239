"""Learning rate as a pure function of the update: no state, so that a run resumed at any step is on its curve.

A schedule is a row of phases, each a formula in t, the updates done: update n runs at the rate of t = n + 1. W warm-up,
T the whole run, S where the decay starts, p the peak, f the floor, x = (t - S) / (T - S) through a decay.
    warm-up       p t / W
    constant      p
    linear        p (f + (1 - f) (1 - x)), S = W
    cosine        p (f + (1 - f) (1 + cos(pi x)) / 2), S = W
    rewarm        p (s + (1 - s) t / W) from the parent's last rate s p, then the cosine (arXiv 2308.04014, 2403.08763)
    wsd           p, then a tail over the last decay_share of T (arXiv 2404.06395)
    wsd_s         a wsd in each cycle, on from the weights that the one before decayed (arXiv 2410.05192)
    infinite      a cosine over C from p to the level l p; l p; then l p (f / l)^x (arXiv 2403.08763, 2503.02844)
    power_tokens  min(p, a B (c t)^b), c tokens and B = c / 4096 sequences in a step; then a tail (arXiv 2408.13359)
    power_steps   p (t / W)^b, then a tail (OLMo-core)
    anneal        p from the first update on, then a tail (OLMo's mid-training is all tail)
Tails go from the rate r at S to f p; with g = f p / r they are r (g + (1 - g) h):
    linear 1 - x (arXiv 2405.18392)    cosine (1 + cos(pi x)) / 2    sqrt 1 - sqrt(x) (arXiv 2405.18392)
and, for f > 0, exponential r g^x (arXiv 2404.06395: half-life (T - S) / log2(1 / g)) and inverse r / (x / g + 1 - x)
(arXiv 2410.05192: 1 / rate is a straight line).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from ratoon.config import ConfigError, Schedule
from ratoon.config.schedule import (
    KINDS,
    Constant,
    Infinite,
    Linear,
    PowerSteps,
    PowerTokens,
    Rewarm,
    Tail,
    Tailed,
    Warmed,
    WsdS,
)

LearningRate = Callable[[int], float]
Curve = Callable[[float], float]  # rate against updates done

POWER_SEQUENCE = 4096  # tokens of one sequence, the paper's unit of batch


class Phase(NamedTuple):
    """Updates start + 1 to end, counted from 1."""

    name: str
    start: int
    end: int
    rate: Curve


def learning_rate(schedule: Schedule, peak: float, steps: int, step_tokens: int | None = None) -> LearningRate:
    """Learning rate of update number 0, 1, ... steps - 1. `step_tokens` is asked for by power_tokens alone.

    Raises ConfigError where a run of `steps` has no room for the phases.
    """
    found = phases(schedule, peak, steps, step_tokens)

    def at(step: int) -> float:
        assert 0 <= step < steps, f"step {step} of a run of {steps}"
        phase = next(phase for phase in found if step < phase.end)
        return phase.rate(step + 1)

    return at


def decay_start(schedule: Schedule, steps: int) -> int:
    """First step whose learning rate depends on where the run ends: before it, runs of any length agree.

    Raises ConfigError, with the reason, for a schedule whose runs do not share a beginning worth training once.
    """
    kind = schedule.root
    if kind.no_trunk:
        able = [name for name, other in KINDS.items() if name != "infinite" and other().no_trunk is None]
        raise ConfigError(
            f"train.schedule: {kind.name} cannot be the trunk of a sweep: {kind.no_trunk}; "
            f"for a sweep take {', '.join(able)}, or infinite with cooldown_steps"
        )
    if isinstance(kind, Infinite):
        return _cooled(kind, steps)[1]
    return tail_start(kind, steps) if isinstance(kind, Tailed) else steps


def tail_start(kind: Tailed | Infinite, steps: int) -> int:
    return max(min(kind.warmup_steps, steps), steps - round(steps * kind.decay_share))


def phases(schedule: Schedule, peak: float, steps: int, step_tokens: int | None = None) -> tuple[Phase, ...]:
    """The phases that a run of `steps` has, in order and without gaps, from 0 to `steps`."""
    kind = schedule.root
    if kind.warmup_steps >= steps:
        raise ConfigError(
            f"train.schedule.warmup_steps: {kind.warmup_steps} steps of warm-up in a run of {steps}; "
            f"lower warmup_steps, or raise the tokens of the run"
        )
    match kind:
        case Infinite():
            found = _infinite(kind, peak, steps)
        case WsdS():
            found = _cycles(kind, peak, steps)
        case Tailed():
            body = _power(kind, peak, step_tokens) if isinstance(kind, PowerTokens | PowerSteps) else _flat(peak)
            found = _tailed(kind, peak, steps, body)
        case Constant():
            found = [_warm_up(kind, peak), Phase("constant", kind.warmup_steps, steps, _flat(peak))]
        case _:
            tail: Tail = "linear" if isinstance(kind, Linear) else "cosine"
            start = kind.warmup_steps
            found = [_warm_up(kind, peak), Phase("decay", start, steps, fall(peak, kind.floor, tail, start, steps))]
    return tuple(phase for phase in found if phase.end > phase.start)


def fall(top: float, floor: float, tail: Tail, start: int, end: int) -> Curve:
    """From `top` at `start` to floor x top at `end`."""
    shapes: dict[Tail, Curve] = {
        "linear": lambda x: 1 - x,
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
        "sqrt": lambda x: 1 - math.sqrt(x),
    }

    def rate(t: float) -> float:
        through = (t - start) / (end - start)
        if tail == "exponential":
            return top * floor**through
        if tail == "inverse":
            return top / (through / floor + 1 - through)
        return top * (floor + (1 - floor) * shapes[tail](through))

    return rate


def _flat(rate: float) -> Curve:
    return lambda t: rate


def _warm_up(kind: Warmed, top: float) -> Phase:
    warmup = kind.warmup_steps
    if isinstance(kind, Rewarm):
        start = kind.floor if kind.start is None else kind.start
        return Phase("warm-up", 0, warmup, lambda t: top * (start + (1 - start) * t / warmup))
    return Phase("warm-up", 0, warmup, lambda t: top * t / warmup)


def _tailed(kind: Tailed, peak: float, steps: int, body: Curve) -> list[Phase]:
    start = tail_start(kind, steps)
    # Power may lie below the peak at the end of the warm-up already: the warm-up leads to where it begins.
    first, last = body(kind.warmup_steps) if kind.warmup_steps else peak, body(start) if start else peak
    if kind.floor * peak > last:
        raise ConfigError(
            f"train.schedule.floor: {kind.floor:g} of the peak is {kind.floor * peak:.3g}, above the {last:.3g} that "
            f"{kind.name} has come to where its decay starts; lower floor"
        )
    name = "power" if kind.name.startswith("power") else "constant"
    # Equal to the floor, and not to its bits: a peak divided by itself is 1, a product divided by it need not be.
    floor = kind.floor if last == peak else kind.floor * peak / last
    return [
        _warm_up(kind, first),
        Phase(name, kind.warmup_steps, start, body),
        Phase("decay", start, steps, fall(last, floor, kind.tail, start, steps)),
    ]


def _cycles(kind: WsdS, peak: float, steps: int) -> list[Phase]:
    marks = [0, *(round(steps * end) for end in kind.ends)]
    found = [_warm_up(kind, peak)]
    for begin, end in pairwise(marks):
        stable = begin or kind.warmup_steps
        start = max(stable, end - round((end - begin) * kind.decay_share))
        if len(kind.ends) > 1 and not stable <= start < end:
            raise ConfigError(
                f"train.schedule.ends: the cycle of steps {begin} to {end} has no room for its warm-up and a decay; "
                f"give fewer ends, raise decay_share, lower warmup_steps, or raise the tokens of the run"
            )
        found += [
            Phase("constant", stable, start, _flat(peak)),
            Phase("decay", start, end, fall(peak, kind.floor, kind.tail, start, end)),
        ]
    return found


def _cooled(kind: Infinite, steps: int) -> tuple[int, int]:
    """Where the cooldown ends and where the anneal starts."""
    share = round(steps * kind.cooldown_share) if kind.cooldown_share is not None else 0
    cooled = kind.warmup_steps + (share if kind.cooldown_steps is None else kind.cooldown_steps)
    start = tail_start(kind, steps)
    if cooled > start:
        raise ConfigError(
            f"train.schedule: warm-up and cooldown end at step {cooled}, in a run of {steps} steps the anneal starts "
            f"at {start}; shorten cooldown or decay_share, or raise the tokens of the run"
        )
    return cooled, start


def _infinite(kind: Infinite, peak: float, steps: int) -> list[Phase]:
    cooled, start = _cooled(kind, steps)
    kept = peak * kind.level
    return [
        _warm_up(kind, peak),
        Phase("cooldown", kind.warmup_steps, cooled, fall(peak, kind.level, "cosine", kind.warmup_steps, cooled)),
        Phase("constant", cooled, start, _flat(kept)),
        Phase("anneal", start, steps, fall(kept, kind.floor / kind.level, "exponential", start, steps)),
    ]


def _power(kind: PowerTokens | PowerSteps, peak: float, step_tokens: int | None) -> Curve:
    if isinstance(kind, PowerSteps):
        return lambda t: peak * (t / kind.warmup_steps) ** kind.exponent
    if step_tokens is None:
        raise ConfigError(
            "train.schedule: power_tokens follows the tokens read, and how many a step has is not known here; "
            "take power_steps"
        )
    tokens, batch = step_tokens, step_tokens / POWER_SEQUENCE
    return lambda t: min(peak, kind.factor * batch * (tokens * t) ** kind.exponent)
