"""train: how one model is continued."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Share


class Schedule(Declared):
    """Learning rate against step. Warm-up is linear from 0."""

    name: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup_steps: NonNegativeInt = Field(20, description="absolute, so that runs of any length start alike")
    decay_share: Share = Field(0.2, description="wsd: of the steps, linear to the floor at the end")
    floor: Share = Field(0.0, description="last learning rate as a share of the peak")


class TrainConfig(Declared):
    """How one model is continued. The same recipe serves proxies and target, so that they compare."""

    tokens: PositiveInt = Field(description="tokens of the target run")
    learning_rate: PositiveFloat
    rows_per_step: PositiveInt
    micro_rows: PositiveInt | None = Field(
        None, description="rows per forward pass; none: rows_per_step. Gradients accumulate over the rest"
    )
    schedule: Schedule = Schedule()
    weight_decay: NonNegativeFloat = 0.1
    beta1: Share = 0.9
    beta2: Share = 0.95
    max_norm: PositiveFloat = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt | None = Field(None, description="CPU threads; none: all cores")
    block_rows: PositiveInt = Field(100, description="rows over which the shares hold exactly")
    evaluations: PositiveInt = Field(10, description="held-out evaluations over the run, the last at its end")
    checkpoints: PositiveInt = Field(4, description="times the exact state is saved over the run")
    seed: int = 0

    @model_validator(mode="after")
    def check(self) -> "TrainConfig":
        if self.micro_rows and self.rows_per_step % self.micro_rows:
            raise ValueError(f"rows_per_step {self.rows_per_step} is not a multiple of micro_rows {self.micro_rows}")
        return self
