"""assess and promote: how the candidate is measured, and what it must show."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ratoon.config.declaration import Declared, Share
from ratoon.config.generation import GenerationConfig

WRITING = GenerationConfig()  # type: ignore[call-arg]


class AssessConfig(Declared):
    max_documents: PositiveInt = Field(300, description="held-out documents scored per source")
    max_bytes: PositiveInt = Field(4096, description="of each of these documents")
    choices: PositiveInt = Field(4, ge=2, description="passages to choose from in a multiple-choice item")
    items: PositiveInt = Field(200, description="multiple-choice items per source")
    bootstrap: PositiveInt = Field(2000, ge=200)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0
    runner: Literal["ratoon", "lm_eval"] = Field(
        "ratoon",
        description="who scores: both give the same numbers, ratoon sooner",
        exclude_if=lambda it: it == "ratoon",
    )
    generation: GenerationConfig | None = Field(
        WRITING, description="health of what the models write; none: not looked at", exclude_if=lambda it: it == WRITING
    )


class GateConfig(Declared):
    min_domain_gain: NonNegativeFloat = Field(
        0.0, description="relative fall of domain bits per byte that must lie below the whole interval"
    )
    max_general_loss: NonNegativeFloat = Field(
        0.02, description="relative rise of general bits per byte that the whole interval must stay under"
    )
    max_benchmark_loss: Share = Field(
        0.1, description="absolute fall in accuracy that the interval must exclude, for every benchmark"
    )
