"""train.loss: which tokens count, how much, and what else is asked of them. Everything is off unless asked for.

Defaults are the published ones, where a source gives them. What each does: ratoon/training/methods/losses.py.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from ratoon.config.declaration import Declared, Name, Share

PARENT = "parent"


class Reweight(Declared):
    """Rows count by their loss among the rows of their step (arXiv:2502.06733)."""

    form: Literal["linear_upper", "quadratic", "extremes"] = Field(
        "linear_upper",
        description="linear_upper: below the middle of the step less; quadratic: the middle more; extremes: it less",
    )
    delta: PositiveFloat = Field(1.0, description="reach of the scaled loss: from -delta to delta")
    temperature: PositiveFloat = Field(0.4, description="the higher, the more alike rows count")
    burn_in_steps: NonNegativeInt = Field(1000, description="plain steps first; absolute, as the warm-up is")


class Select(Declared):
    """Of each step, the tokens whose loss is the furthest above a reference model's (Rho-1, arXiv:2404.07965)."""

    keep: float = Field(0.6, gt=0, le=1, description="share of a step's tokens that have a loss; 1: all")
    reference: str = Field(description="directory of a model with the same vocabulary, or parent")
    cache: str | None = Field(
        None, description="directory where the reference's losses are kept, so that rows are scored once; none: nowhere"
    )


class Distill(Declared):
    """A smaller or larger model's distribution beside the text; for the beginning of a run alone: SALT
    (arXiv:2410.18779)."""

    teacher: str = Field(description="directory of a model with the same vocabulary, or parent")
    weight: Share = Field(0.5, description="of the teacher; the text has the rest")
    temperature: PositiveFloat = Field(1.0, description="of both distributions; above 1, unlikely words matter more")
    until_share: Share = Field(1.0, description="of the run's steps, in which the weight is full")
    fade_share: Share = Field(0.0, description="of the run's steps after these, in which it goes down to 0")

    @model_validator(mode="after")
    def check(self) -> "Distill":
        if self.until_share + self.fade_share > 1 + 1e-9:
            raise ValueError(
                f"until_share {self.until_share:g} and fade_share {self.fade_share:g} are more than the run together; "
                f"lower one of them"
            )
        return self


class Prefix(Declared):
    """Documents are read behind what is known of them, which has no loss; then plainly (MeCo, arXiv:2501.01956)."""

    until_share: Share = Field(0.9, description="of the run's steps, in which rows have prefixes; 0: none has")
    sources: tuple[Name, ...] = Field((), description="sources whose documents have prefixes; none: all that are read")


class Loss(Declared):
    """Each setting's default is neutral: training is then the same to the bit as without it."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each target spread over all words")
    reweight: Reweight | None = Field(None, description="rows count by their loss")
    select: Select | None = Field(None, description="tokens count or not, by a reference model")
    distill: Distill | None = Field(None, description="learn from a teacher's distribution too")
    prefix: Prefix | None = Field(
        None,
        description="documents are read behind their packed prefixes at first",
        exclude_if=lambda found: found is None,  # digests are what they were before it could be asked for
    )
    noise_alpha: NonNegativeFloat = Field(
        0.0, description="noise on embeddings in training, alpha / sqrt(row tokens x width) (NEFTune, arXiv:2310.05914)"
    )

    @model_validator(mode="after")
    def check(self) -> "Loss":
        if self.reweight and self.select:
            raise ValueError("found reweight and select; both decide how much a token counts: give one of them")
        return self

    @property
    def no_trunk(self) -> str | None:
        """Why runs of several lengths do not share a beginning worth training once; None: they do."""
        distill = self.distill
        if distill and distill.weight and distill.until_share < 1 and distill.until_share + distill.fade_share > 0:
            return "distill ends at a share of the run's length"
        if self.prefix and 0 < self.prefix.until_share < 1:
            return "prefix ends at a share of the run's length"
        return None

    def essence(self) -> "Loss":
        """Without what is asked for at a setting that does nothing."""
        select, distill, prefix = self.select, self.distill, self.prefix
        off = {
            "select": select is not None and select.keep == 1,
            "distill": distill is not None and distill.weight == 0,
            "prefix": prefix is not None and prefix.until_share == 0,
        }
        return self.model_copy(update={name: None for name, is_off in off.items() if is_off})

    def content(self) -> dict[str, Any]:
        """What decides a run's numbers: models by their names, as the run's own is; where things are kept left out."""
        neutral = {name for name, field in Loss.model_fields.items() if getattr(self, name) == field.default}
        found = self.model_dump(mode="json", exclude=neutral)
        for section, key in (("select", "reference"), ("distill", "teacher")):
            if section in found:
                found[section][key] = Path(found[section][key]).name
                found[section].pop("cache", None)
        return found
