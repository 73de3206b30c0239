"""train.optimizer: which optimizer moves which weights, and how exactly it remembers."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared


class Muon(Declared):
    """Matrices move by an orthogonal step (kellerjordan.github.io/posts/muon); its size is that of AdamW's, 0.2
    (arXiv:2502.16982), so that learning_rate and weight_decay carry over."""

    momentum: float = Field(0.95, ge=0, lt=1)


class GaLore(Declared):
    """Adam within the directions in which a matrix's gradient is largest (arXiv:2403.03507)."""

    rank: PositiveInt = Field(128, description="directions kept of a matrix; one no larger than this is moved by AdamW")
    gap: PositiveInt = Field(200, description="steps between two looks for the directions")
    scale: PositiveFloat = Field(0.25, description="of the step against AdamW's")


class Optimizer(Declared):
    """The default is fused AdamW. Muon and GaLore move matrices between layers; AdamW moves all else."""

    name: Literal["adamw", "muon", "galore"] = "adamw"
    moments: Literal["fp32", "bf16", "8bit"] | None = Field(
        None,
        description="what the optimizer remembers of a weight: 8, 4 or 2 bytes in AdamW; none: fp32, and bf16 with "
        "precision bf16_pure",
    )
    muon: Muon = Muon()
    galore: GaLore = GaLore()
    freeze: tuple[str, ...] = Field(
        (), description="patterns of parameter names, such as '*embed_tokens*', that are not trained and do not decay"
    )
    rates: dict[str, PositiveFloat] = Field(
        {}, description="pattern of parameter names -> factor of the learning rate; those of several patterns multiply"
    )

    @model_validator(mode="after")
    def check(self) -> "Optimizer":
        for name, own in (("muon", self.muon != Muon()), ("galore", self.galore != GaLore())):
            if own and self.name != name:
                raise ValueError(f"{name} is set and would be ignored: name is {self.name!r}; set name: {name}")
        return self
