"""params.yaml as a whole, and what a person may ask without editing it."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ratoon.config.arms import ArmsConfig
from ratoon.config.assess import AssessConfig, GateConfig
from ratoon.config.declaration import Declared, Name, Share
from ratoon.config.operate import OperateConfig
from ratoon.config.prepare import PrepareConfig
from ratoon.config.retention import RetentionConfig
from ratoon.config.sweep import ChooseConfig, SweepConfig
from ratoon.config.train import TrainConfig


class RefreshConfig(Declared):
    base: Name = "nano"
    sources: tuple[Name, ...] = Field(min_length=2, description="declared in data/sources")
    watch: tuple[Name, ...] = Field(
        (), description="sources that are scored, never trained on or gated", exclude_if=lambda it: not it
    )
    model: Name | None = Field(None, description="registered model; none: ratoon-<base>")
    budget: str = Field("default", description="an entry of budgets")
    push: bool | Literal["later"] = Field(
        True, description="push the editions to the DVC remote; later: go on without where it is away"
    )
    commit: bool = Field(
        False,
        description="record dvc.lock in Git after each refresh, on the branch ratoon/<model>",
        exclude_if=lambda it: not it,
    )

    @model_validator(mode="after")
    def check(self) -> "RefreshConfig":
        if both := sorted({*self.watch} & {*self.sources}):
            raise ValueError(f"watch: {both[0]!r} is one of sources; what is trained on cannot be watched from outside")
        return self

    @property
    def line(self) -> str:
        return self.model or f"ratoon-{self.base}"


class Params(Declared):
    """params.yaml as a whole: one section per verb."""

    refresh: RefreshConfig
    prepare: PrepareConfig
    sweep: SweepConfig
    choose: ChooseConfig = ChooseConfig()
    train: TrainConfig
    assess: AssessConfig = AssessConfig()
    promote: GateConfig = GateConfig()
    arms: ArmsConfig = Field(
        ArmsConfig(),
        description="measured against once a refresh has ended; none unless named",
        exclude_if=lambda arms: not arms.asked,
    )
    retention: RetentionConfig = Field(
        RetentionConfig(),
        description="what `ratoon gc` leaves",
        exclude_if=lambda it: it == RetentionConfig(),
    )
    operate: OperateConfig = Field(OperateConfig(), exclude_if=lambda it: it == OperateConfig())  # type: ignore[call-arg]
    budgets: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict, description="named changes to the sections above: budget -> section -> key -> value"
    )


class Ask(Declared):
    """What a person may ask of one refresh without editing params.yaml. Empty fields: as params.yaml says."""

    base: str | None = Field(None, description="a base declared in models/bases")
    sources: tuple[Name, ...] | None = Field(None, description="sources to read, in place of refresh.sources: a,b")
    budget: str | None = Field(None, description="an entry of budgets in params.yaml, such as small")
    ratio: Share | None = Field(None, description="take this domain share and do not choose one, 0..1")
    tolerance: PositiveFloat | None = Field(None, lt=1, description="how far general loss may rise, 0.02 for 2%")
    tokens: PositiveInt | None = Field(None, description="tokens of the target run")
    seed: int | None = Field(None, description="order of the data and of every draw")
    force: bool = Field(False, description="go on even where nothing is new since the last refresh")

    @field_validator("sources", mode="before")
    @classmethod
    def split(cls, given: Any) -> Any:
        """As the command line writes a list; an emptied field of the form asks for nothing."""
        found = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
        return found or None

    def changes(self) -> dict[str, dict[str, Any]]:
        """As sections of params.yaml."""
        wanted: dict[str, dict[str, Any]] = {
            "refresh": {"base": self.base, "sources": self.sources},
            "choose": {"ratio": self.ratio, "tolerance": self.tolerance, "seed": self.seed},
            "train": {"tokens": self.tokens, "seed": self.seed},
            "promote": {"max_general_loss": self.tolerance},
        }
        return {
            section: kept
            for section, keys in wanted.items()
            if (kept := {key: value for key, value in keys.items() if value is not None})
        }
