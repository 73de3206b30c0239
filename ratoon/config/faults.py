"""train.faults: what a run does when something goes wrong, and how it saves itself against it.

No part of a run's identity: a run may be taken up again with other settings here. What they led to is in its record.
"""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ratoon.config.declaration import Declared


class Spike(Declared):
    """A loss is a spike where it lies above the median of the losses before it by so many robust deviations."""

    window: int = Field(64, ge=8, description="losses before it that it is measured by; none is a spike before that")
    deviations: PositiveFloat = Field(10.0, description="robust deviations, 1.4826 times the median distance to it")
    steps: PositiveInt = Field(1, description="steps whose rows are left out, the last of them the one that spiked")


class Faults(Declared):
    rollbacks: NonNegativeInt = Field(
        3, description="times a run goes back and leaves out the rows that broke it; 0: it ends at the first"
    )
    spike: Spike | None = Field(
        None, description="what counts as a spike of the loss; none: only a gradient that is no number is a fault"
    )
    saving: Literal["auto", "beside", "waiting"] = Field(
        "auto",
        description="beside: checkpoints are written beside the training, from a copy in memory; waiting: it waits and "
        "needs no copy; auto: beside on a GPU, whose steps are short, waiting on a CPU, whose memory is the machine's",
    )
    grace_seconds: PositiveFloat = Field(
        25.0, description="asked to end, a run may take so long to finish its step and save; then it ends without"
    )
