"""Proxies whose longer horizons are left out, by a rule that was declared beforehand.

Judged at a horizon, on losses at the end of its own decay, from that group's observations alone: which groups ran
beside it, and how fast, decides nothing. Never inside the stability gap, where a run is worse than it will be
(dip.py). What is left out is recorded with the reason, and the laws are told that it is missing.
"""

from collections.abc import Callable, Sequence

from pydantic import NonNegativeFloat

from ratoon.config import Declared
from ratoon.config.sweep import Hopeless
from ratoon.records import Observation, Record
from ratoon.training import dip

Inside = Callable[[Sequence[Observation], int], bool]  # of a group's observations, in a run of so many steps


class Bound(Declared):
    """A sweep's rule, with what it needs to know of the choice that is to be made."""

    rule: Hopeless
    tolerance: NonNegativeFloat | None  # of general loss above the parent's; None: the goal has no ceiling


class Stopped(Record):
    """A group that was not run to its longest horizon: hopeless, or broken on the way."""

    group: str
    tokens: int  # the last horizon that was run
    left_out: tuple[int, ...]  # horizons
    reason: str
    spent: int | None = None  # tokens trained, of one that broke: in no horizon; None: those up to `tokens`

    @property
    def said(self) -> str:
        left = ", ".join(f"{tokens:,}" for tokens in self.left_out)
        return f"{self.group} was stopped at {self.tokens:,} tokens: {self.reason}; its {left} tokens are missing"


def why_stop(bound: Bound, curve: Sequence[Observation], steps: int, inside: Inside = dip.inside) -> str | None:
    """Why nothing more is to be hoped of a group that stands so; None: it goes on.

    curve  its observations so far, the parent's at step 0 among them
    steps  of its longest horizon
    """
    general, domain = dip.losses(curve, "general"), dip.losses(curve, "domain")
    if len(general) < 2 or len(domain) < 2 or general[0][0] != 0 or domain[0][0] != 0:
        return None  # not measured: nothing is known, so nothing is stopped
    rule = bound.rule
    if general[-1][0] < rule.after * steps or inside(curve, steps):
        return None
    rises = {role: line[-1][1] / line[0][1] - 1 for role, line in (("general", general), ("domain", domain))}
    if bound.tolerance is not None and (1 + rises["general"]) > (1 + bound.tolerance) * (1 + rule.margin):
        return (
            f"general loss is {rises['general']:.1%} above the parent's, more than {rule.margin:.1%} above the "
            f"ceiling of {bound.tolerance:.1%}"
        )
    if rule.parent is not None and min(rises.values()) > rule.parent:
        return (
            f"the parent dominates it: general loss {rises['general']:+.1%}, domain loss {rises['domain']:+.1%} of its"
        )
    return None
