"""train: how one model is continued."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ratoon.config.adapter import Adapter
from ratoon.config.budget import Budget
from ratoon.config.declaration import Declared
from ratoon.config.faults import Faults
from ratoon.config.forgetting import Forgetting
from ratoon.config.loss import Loss
from ratoon.config.mixture import MixtureConfig
from ratoon.config.optimizer import Optimizer
from ratoon.config.schedule import Schedule

# How a run is carried out: its numbers are the same, to rounding, whatever these say.
MACHINE = (
    "device",
    "threads",
    "processes",
    "micro_rows",
    "checkpoints",
    "activation_checkpointing",
    "budget",
    "faults",
)


class TrainConfig(Declared):
    """How one model is continued. The same recipe serves proxies and target, so that they compare."""

    tokens: PositiveInt = Field(description="tokens of the target run")
    learning_rate: PositiveFloat
    rows_per_step: PositiveInt
    micro_rows: PositiveInt | None = Field(
        None, description="rows per forward pass; none: rows_per_step. Gradients accumulate over the rest"
    )
    attention: Literal["row", "document"] = Field(
        "row",
        description="what a token sees of the packed row before it: all, or its own document alone; positions then "
        "start again at each document, whose first token has no loss",
    )
    schedule: Schedule = Schedule()
    mixture: MixtureConfig = MixtureConfig()
    loss: Loss = Loss()
    forgetting: Forgetting = Forgetting()
    optimizer: Optimizer = Optimizer()
    adapter: Adapter | None = Field(None, description="train an addition to the weights instead of them")
    weight_decay: NonNegativeFloat = 0.1
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    max_norm: PositiveFloat = 1.0
    precision: Literal["fp32", "bf16", "bf16_pure"] = Field(
        "fp32",
        description="bf16: reckoned in bf16 over float32 weights; bf16_pure: weights and gradients are bf16 too, "
        "rounded by chance so that small steps are not lost",
    )
    activation_checkpointing: bool | Literal["light", "lean", "auto"] = Field(
        "auto",
        description="true: forget what layers put out and reckon it again for the gradient; light: the same, "
        "but keep what products of matrices and attention put out; lean: layers of known families are read by leaner "
        "functions, on a CPU; auto: lean where it can be, else light on a CPU for wide models. Same result, to "
        "rounding",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt | None = Field(None, description="CPU threads; none: all cores")
    processes: PositiveInt = Field(
        1,
        description="of the target run on this machine, a GPU each where there are some: weights and rows are shared "
        "out over them; proxies are one process each. Over several machines start it with torchrun, and leave this 1",
        exclude_if=lambda number: number == 1,  # digests are what they were before there were ranks
    )
    block_rows: PositiveInt = Field(100, description="rows over which the shares hold exactly")
    evaluations: PositiveInt = Field(10, description="held-out evaluations over the run, the last at its end")
    early_evaluations: NonNegativeInt = Field(
        0, description="further ones, evenly in logarithm from the first step on, to see the stability gap; 0: none"
    )
    early_share: float = Field(0.2, gt=0, le=1, description="of the run, over which the early evaluations lie")
    checkpoints: PositiveInt = Field(4, description="times the exact state is saved over the run")
    subset_epochs: float | None = Field(
        None,
        ge=1,
        description="read a fixed part of each domain source so many times, sized for the run; none: all that there is",
    )
    budget: Budget = Field(Budget(), description="what the run may cost; not part of what it is")
    trunk: Literal["keep", "continue", "none"] = Field(
        "keep",
        description="where a constant rate ends: keep the state there beside the model; continue: begin from the one "
        "that the parent's run kept, if it did; none: neither",
    )
    seed: int = 0
    faults: Faults = Faults()

    @model_validator(mode="after")
    def check(self) -> "TrainConfig":
        if self.micro_rows and self.rows_per_step % self.micro_rows:
            raise ValueError(f"rows_per_step {self.rows_per_step} is not a multiple of micro_rows {self.micro_rows}")
        if self.processes > 1:
            self.check_ranks(self.processes)
        return self

    def check_ranks(self, count: int) -> None:
        """Raises ValueError for what would be wrong, or is not known to be right, on so many ranks."""
        if self.rows_per_step < count:
            raise ValueError(
                f"rows_per_step: {self.rows_per_step} rows for {count} ranks, and some would have none; allowed: "
                f"{count} or more, or fewer ranks"
            )
        for key, found, instead in self.needs_whole_weights():
            raise ValueError(
                f"{key}: {found} on {count} ranks is not supported: weights are cut up there, and it needs whole "
                f"ones; {instead}, or train on one rank"
            )

    def needs_whole_weights(self) -> Iterator[tuple[str, str, str]]:
        """(key, what was found, what to set in its place)"""
        if self.optimizer.name != "adamw":
            yield "optimizer.name", self.optimizer.name, "take adamw"
        if self.precision == "bf16_pure":
            yield "precision", self.precision, "take bf16"
        if self.optimizer.moments not in (None, "fp32"):
            yield "optimizer.moments", self.optimizer.moments, "take fp32"
        if self.adapter is not None:
            yield "adapter", self.adapter.name, "leave it out"
        for name in Forgetting.model_fields:
            asked = getattr(self.forgetting, name)
            if name != "parent" and asked != getattr(Forgetting(), name):
                found = f"{asked:g}" if isinstance(asked, float) else "it is set, and"
                yield f"forgetting.{name}", found, "leave it out"

    def essence(self) -> "TrainConfig":
        """What decides the numbers: how it is carried out, and what the options of something say that is off, are as by
        default. Recipes of equal essence ask for the same."""
        fields = TrainConfig.model_fields
        changes: dict[str, Any] = {name: fields[name].default for name in MACHINE}
        changes |= {name: getattr(self, name).essence() for name in ("mixture", "loss", "forgetting")}
        if not self.early_evaluations:
            changes["early_share"] = fields["early_share"].default
        return self.model_copy(update=changes)
