"""assess and promote: how the candidate is measured, and what it must show."""

from pydantic import Field, NonNegativeFloat, PositiveInt

from ratoon.config.declaration import Declared, Share
from ratoon.config.history import DriftConfig, HistoryConfig, NoiseConfig, PeriodsConfig, ProbeConfig, TrajectoryConfig


class AssessConfig(Declared):
    max_documents: PositiveInt = Field(300, description="held-out documents scored per source")
    max_bytes: PositiveInt = Field(4096, description="of each of these documents")
    choices: PositiveInt = Field(4, ge=2, description="passages to choose from in a multiple-choice item")
    items: PositiveInt = Field(200, description="multiple-choice items per source")
    bootstrap: PositiveInt = Field(2000, ge=200)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0
    # Left at their defaults these are no part of a refresh's identity. None: off
    history: HistoryConfig | None = Field(HistoryConfig(), exclude_if=lambda it: it == HistoryConfig())
    probe: ProbeConfig | None = Field(ProbeConfig(), exclude_if=lambda it: it == ProbeConfig())
    noise: NoiseConfig | None = Field(NoiseConfig(), exclude_if=lambda it: it == NoiseConfig())
    trajectory: TrajectoryConfig | None = Field(None, exclude_if=lambda it: it is None)
    periods: PeriodsConfig | None = Field(PeriodsConfig(), exclude_if=lambda it: it == PeriodsConfig())
    drift: DriftConfig = Field(DriftConfig(), exclude_if=lambda it: it == DriftConfig())


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
