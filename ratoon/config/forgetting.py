"""train.forgetting: what keeps the old while the new is learned. Everything is off unless asked for.

What each does: the files of its name in ratoon/training/methods/. Replay is no setting here: it is the share of the
general sources in the mixture.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ratoon.config.declaration import Declared, Share


class Anchor(Declared):
    """Reptile beside replay: meta-experience replay (arXiv:2508.01908)."""

    epsilon: Share = Field(
        1.0, description="share of the way since the last anchor that is kept; 1: off, 0: back to where it was"
    )
    every: PositiveInt = Field(500, description="steps from one anchor to the next (its repository)")


class Average(Declared):
    """An exponential moving average of the weights, which is what is released (arXiv:2506.00288: 0.92 or 0.992)."""

    decay: float = Field(0.0, ge=0, lt=1, description="share of the average that each update of it keeps; 0: off")
    every: PositiveInt = Field(1, description="steps from one update of the average to the next (there: 1, 10, 50)")
    start: NonNegativeInt = Field(0, description="steps before the first, which is a copy of the weights")


class ParentDivergence(Declared):
    """The parent's next words beside the text's: each token's loss is cross-entropy + beta KL(parent || model)."""

    beta: NonNegativeFloat = Field(0.0, description="0: off. No canonical value; try 0.1 to 1")
    on: Literal["general", "all"] = Field("general", description="which sources' tokens have it")
    temperature: PositiveFloat = Field(
        1.0, description="of both distributions; the divergence is multiplied by its square, which keeps its pull"
    )
    top_k: PositiveInt | None = Field(
        None,
        description="words per token, likeliest first, that are kept on disk beside the run and asked of the parent "
        "once, the others as one; none: the parent runs at every step, exact",
    )


class Elastic(Declared):
    """Elastic weight consolidation (arXiv:1612.00796): weights that general text leans on are held by a spring."""

    strength: NonNegativeFloat = Field(0.0, description="lambda; 0: off. Best of 500 to 50,000 in DAS's runs: 5,000")
    rows: PositiveInt = Field(128, description="general rows that the importance is measured on, before training")


class SoftMask(Declared):
    """Heads and feed-forward units that general text leans on move less (DAS, arXiv:2302.03241)."""

    strength: Share = Field(0.0, description="a unit of importance I moves by 1 - strength I; 0: off, 1: as published")
    rows: PositiveInt = Field(128, description="general rows that the importance is measured on, before training")


class Forgetting(Declared):
    """Each setting's default is neutral: training is then the same to the bit as without it."""

    anchor: Anchor = Anchor()
    average: Average = Average()
    parent: ParentDivergence = ParentDivergence()
    elastic: Elastic = Elastic()
    soft_mask: SoftMask = SoftMask()
    interpolation: Share = Field(
        1.0, description="of the trained weights in the released ones, the parent's are the rest (arXiv:2109.01903)"
    )

    def essence(self) -> "Forgetting":
        """With what the others say of one that is off left out."""
        off = {
            "anchor": self.anchor.epsilon == 1,
            "average": self.average.decay == 0,
            "parent": self.parent.beta == 0,
            "elastic": self.elastic.strength == 0,
            "soft_mask": self.soft_mask.strength == 0,
        }
        plain = {name: Forgetting.model_fields[name].default for name, is_off in off.items() if is_off}
        return self.model_copy(update=plain)
