"""assess and promote: how the candidate is measured, and what it must show."""

from typing import Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt

from ratoon.config.declaration import Declared, Name, Share
from ratoon.config.generation import GenerationConfig
from ratoon.config.history import DriftConfig, HistoryConfig, NoiseConfig, PeriodsConfig, ProbeConfig, TrajectoryConfig

WRITING = GenerationConfig()  # type: ignore[call-arg]


class AssessConfig(Declared):
    max_documents: PositiveInt = Field(300, description="held-out documents scored per source")
    max_bytes: PositiveInt = Field(4096, description="of each of these documents")
    choices: PositiveInt = Field(4, ge=2, description="passages to choose from in a multiple-choice item")
    items: PositiveInt = Field(200, description="multiple-choice items per source")
    bootstrap: PositiveInt = Field(
        2000,
        ge=200,
        description="draws for history, noise and periods; the gate's own intervals are worked out, not drawn",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of intervals; the gate tests at half of the rest")
    seed: int = 0
    runner: Literal["ratoon", "lm_eval"] = Field(
        "ratoon",
        description="who scores: both give the same numbers, ratoon sooner",
        exclude_if=lambda it: it == "ratoon",
    )
    generation: GenerationConfig | None = Field(
        WRITING, description="health of what the models write; none: not looked at", exclude_if=lambda it: it == WRITING
    )
    # Left at their defaults these are no part of a refresh's identity. None: off
    history: HistoryConfig | None = Field(HistoryConfig(), exclude_if=lambda it: it == HistoryConfig())
    probe: ProbeConfig | None = Field(ProbeConfig(), exclude_if=lambda it: it == ProbeConfig())
    noise: NoiseConfig | None = Field(NoiseConfig(), exclude_if=lambda it: it == NoiseConfig())
    trajectory: TrajectoryConfig | None = Field(None, exclude_if=lambda it: it is None)
    periods: PeriodsConfig | None = Field(PeriodsConfig(), exclude_if=lambda it: it == PeriodsConfig())
    drift: DriftConfig = Field(DriftConfig(), exclude_if=lambda it: it == DriftConfig())

    @property
    def level(self) -> float:
        """Of the gate's one-sided tests, together: what lies beyond one end of an interval."""
        return (1 - self.confidence) / 2


class Unshown(Declared):
    """What the gate does where a demand is neither shown to be met nor shown to be broken."""

    gain: Literal["refuse", "ask"] = Field("refuse", description="of domain text; a model without one is of no use")
    retention: Literal["refuse", "ask"] = Field("ask", description="of general text")
    benchmarks: Literal["refuse", "ask"] = Field("ask", description="of every accuracy")


class GateConfig(Declared):
    # A margin without an end would let everything pass, and one that is no number nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_domain_gain: NonNegativeFloat = Field(
        0.0, lt=1, description="relative fall of domain bits per byte that must be shown to be exceeded"
    )
    max_general_loss: NonNegativeFloat = Field(
        0.02, description="relative rise of general bits per byte that must be shown not to be exceeded"
    )
    max_benchmark_loss: Share = Field(
        0.1, description="absolute fall in accuracy that must be excluded, for every benchmark"
    )
    unshown: Unshown = Field(Unshown(), exclude_if=lambda found: found == Unshown())  # type: ignore[call-arg]
    golden: dict[Name, Literal["all"] | tuple[str, ...]] = Field(
        default_factory=dict,
        description="benchmark -> ids of items, or `all`: answered right before, they may not be wrong now",
        exclude_if=lambda found: not found,
    )
    approve: Literal["gate", "person"] = Field(
        "gate",
        description="person: what the gate would promote waits for `ratoon promote`",
        exclude_if=lambda found: found == "gate",
    )


class Approval(Declared):
    """A person's word that a version may become the champion."""

    version: PositiveInt = Field(description="of the registered model")
    model: Name | None = Field(None, description="registered model; none: the one of params.yaml")
    by: str = Field(min_length=1, max_length=200, description="who decides")
    because: str = Field(min_length=1, max_length=2000, description="why, in a sentence")


class Retreat(Declared):
    """Back to the champion before."""

    model: Name | None = Field(None, description="registered model; none: the one of params.yaml")
    by: str | None = Field(None, max_length=200, description="who decides")
    because: str | None = Field(None, max_length=2000, description="why, in a sentence")
