"""The stability gap: a model that turns to new text is worse before it is better (arXiv 2406.14833).

Of one run's held-out losses, a role's plain mean over its sources, l(s) at step s, against l(0):
    depth     max over s of l(s) - l(0), never below 0
    bottom    the step where it is reached
    recovery  the first step evaluated after the bottom where l(s) <= l(0)
    area      integral of max(0, l(s) - l(0)) ds, l taken straight between evaluations; nats x steps

Silent about what was not evaluated: a gap between two evaluations is not seen, hence `early_steps`.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import get_args

from pydantic import Field

from ratoon.config import Role
from ratoon.records import Observation, Record

ROLES: tuple[Role, ...] = get_args(Role)
Curve = list[tuple[int, float]]  # (step, nats per token), step 0 first


class Dip(Record):
    """How far one kind of text got worse on the way, and whether it came back."""

    role: Role
    start_nats: float
    depth_nats: float = Field(description="0: it was never worse than at the start")
    bottom_step: int | None = Field(description="None: there was no dip")
    recovery_step: int | None = Field(description="None: no dip, or not back within the run")
    area: float = Field(description="nats x steps above the start")
    last_nats: float

    @property
    def regained(self) -> float | None:
        """Part of the depth that was made good by the last evaluation; None: there was no dip."""
        lost = self.last_nats - self.start_nats
        return None if self.bottom_step is None else min(1.0, 1 - lost / self.depth_nats)


def early_steps(steps: int, count: int, share: float) -> list[int]:
    """`count` steps evenly in logarithm from 1 to the end of the first `share` of a run; fewer where they coincide."""
    if count == 0:
        return []
    last = max(1, round(steps * share))
    found = [last ** (n / (count - 1)) for n in range(count)] if count > 1 else [last]
    return sorted({min(steps, round(step)) for step in found})


def dips(curve: Sequence[Observation]) -> tuple[Dip, ...]:
    """Of every role that was measured before the first step and after it. `curve` is of one run."""
    return tuple(measure(role, line) for role in ROLES if len(line := losses(curve, role)) > 1 and line[0][0] == 0)


def losses(curve: Iterable[Observation], role: Role) -> Curve:
    """A step where one of the sources has no loss is left out, never averaged around."""
    found: dict[int, list[float | None]] = {}
    for one in curve:
        if one.role == role:
            found.setdefault(one.step, []).append(one.loss_nats)
    means = {step: sum(known) / len(known) for step, all_ in found.items() if (known := measured(all_))}
    return sorted(means.items())


def measured(values: Sequence[float | None]) -> list[float]:
    """All of them, or none where one is missing or no number."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    return found if len(found) == len(values) else []


def measure(role: Role, line: Curve) -> Dip:
    start = line[0][1]
    rises = [(step, loss - start) for step, loss in line]
    bottom, depth = max(rises, key=lambda point: (point[1], -point[0]))
    back = next((step for step, rise in rises if step > bottom and rise <= 0), None)
    return Dip(
        role=role,
        start_nats=start,
        depth_nats=depth,
        bottom_step=bottom if depth > 0 else None,
        recovery_step=back if depth > 0 else None,
        area=sum(above(*piece) for piece in pairwise(rises)),
        last_nats=line[-1][1],
    )


def above(begin: tuple[int, float], end: tuple[int, float]) -> float:
    """Area over zero of a straight line between two points."""
    (left, low), (right, high) = begin, end
    width = right - left
    if low <= 0 and high <= 0:
        return 0.0
    if low >= 0 and high >= 0:
        return width * (low + high) / 2
    top = max(low, high)
    return width * top / (top - min(low, high)) * top / 2


def inside(curve: Sequence[Observation], steps: int, *, until: float = 0.5, flat: float = 0.1) -> bool:
    """Whether a run of `steps` may be in its gap, so that nothing may be concluded from how it stands now.

    Whatever ends a run early by a rule asks this first. Inside: before two evaluations after the start; and while a
    role is worse than at the start and still moves, down or back up. Outside: no role is worse, or those that are have
    come to a level: at their pace between the last two evaluations they would move by less than `flat` of their depth
    in as many steps again. What still moves past `until` of the run is forgetting or divergence, and no gap.
    """
    lines = [line for role in ROLES if (line := losses(curve, role))]
    last = max((line[-1][0] for line in lines), default=0)
    if last >= until * steps:
        return False
    return not lines or any(len(line) < 3 or moving(line, flat) for line in lines)


def moving(line: Curve, flat: float) -> bool:
    """Worse than at the start, and not settled there."""
    start = line[0][1]
    (step, before), (last, now) = line[-2:]
    depth = max(loss for _, loss in line) - start
    return now > start and abs(now - before) * last > flat * depth * (last - step)
