"""train.adapter: train a small addition to the weights in place of the weights. None unless asked for.

A run with an adapter releases plain weights in float32, the addition merged into them.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ratoon.config.declaration import Declared, Share


class Targets(Declared):
    targets: tuple[str, ...] = Field(
        (), description="patterns of module names, such as '*.q_proj'; none: every linear layer but the head"
    )
    release_scale: Share = Field(
        1.0, description="part of what was learned that is released: 0 is the parent again (arXiv:2505.17496)"
    )


class LowRank(Targets):
    """W + alpha/rank B A. rslora divides by sqrt(rank), dora learns the norm of each column apart, qlora keeps W in
    4 bits (GPU and bitsandbytes only)."""

    name: Literal["lora", "rslora", "dora", "qlora"]
    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0


class Osf(Targets):
    """The largest singular directions of each weight stay as they are; what is orthogonal to them is trained."""

    name: Literal["osf"]
    keep: float = Field(0.5, gt=0, lt=1, description="share of each weight's singular directions that stay")


Adapter = Annotated[LowRank | Osf, Field(discriminator="name")]
