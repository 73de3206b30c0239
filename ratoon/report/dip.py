"""The stability gap of a target run, in words."""

from collections.abc import Sequence

from ratoon.records import Observation
from ratoon.report import wording
from ratoon.training.dip import Dip, dips

SEEN = 0.005  # of the loss at the start: less is not worth a line
BACK = 0.25  # of the depth made good: less is no gap, and the end of the run says all


def gaps(curve: Sequence[Observation]) -> list[str]:
    """A sentence for each role that got worse on the way and then better again."""
    return [
        said(found)
        for found in dips(curve)
        if found.depth_nats > SEEN * found.start_nats and (found.regained or 0) >= BACK
    ]


def said(found: Dip) -> str:
    rise = wording.change(found.depth_nats / found.start_nats)
    if found.recovery_step is None:
        back = f"{wording.share(found.regained)} of it made good by the end"
    else:
        back = f"back where it was by step {found.recovery_step:,}"
    return f"{found.role} loss was {rise} at step {found.bottom_step:,}, {back}"
