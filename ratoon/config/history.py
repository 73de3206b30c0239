"""assess.history and its neighbours: what is kept of earlier refreshes, and what is asked beside the gate."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared


class HistoryConfig(Declared):
    """Held-out text of every edition, kept so that later models can be asked what they forgot of it."""

    documents: PositiveInt = Field(60, ge=2, description="kept of each source or portion and refresh, chosen by hash")
    min_documents: PositiveInt = Field(
        5, ge=2, description="fewer new held-out documents than this wait for the next refresh"
    )


class ProbeConfig(Declared):
    """Learning in context: a random sequence said twice, and next-passage items with solved ones in front."""

    sequences: PositiveInt = Field(32, ge=2, description="random sequences; 0 tokens of any corpus")
    tokens: PositiveInt = Field(64, ge=4, description="of a sequence, which is read twice; cut to half of a row")
    items: PositiveInt = Field(
        60, ge=2, description="next-passage items over all sources, asked with and without shots"
    )
    shots: PositiveInt = Field(2, description="solved items in front; as many of them as a row has room for")
    context_bytes: PositiveInt = Field(60, ge=20, description="of each item's context, its end")
    choice_bytes: PositiveInt = Field(40, ge=10, description="of each choice, its beginning")


class NoiseConfig(Declared):
    """Gaussian noise on the weights: the loss of an overtrained model rises more (arXiv:2503.19206)."""

    scales: tuple[PositiveFloat, ...] = Field((0.02, 0.05), min_length=1, description="of each tensor's rms")
    draws: PositiveInt = Field(2, description="of noise at each scale, the same for both models")
    documents: PositiveInt = Field(12, ge=2, description="held-out documents of each source")
    max_ratio: PositiveFloat = Field(
        2.0, description="alarm: the candidate's rise is more than this times the parent's, on the whole interval"
    )


class QualityConfig(Declared):
    """What a task must show before it should decide anything. Others are shown."""

    last: PositiveInt = Field(5, ge=2, description="checkpoints whose spread is the noise")
    min_runs: PositiveInt = Field(3, description="reference runs, such as seeds")
    min_spearman: float = Field(0.5, ge=-1, le=1, description="of step and score; general text may also fall steadily")
    min_snr: PositiveFloat = Field(2.0, description="signal over noise, as in arXiv:2508.13144")


class TrajectoryConfig(Declared):
    """Checkpoints of the target run, scored on a fixed part of the suite. Their weights are kept, without state."""

    items: PositiveInt = Field(40, ge=2, description="of every task, chosen by hash; the same for every checkpoint")
    probe: bool = Field(True, description="ask each checkpoint what assess.probe asks")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="of the alarm that loss falls while a task gets worse")
    quality: QualityConfig = QualityConfig()


class PeriodsConfig(Declared):
    """Held-out documents by date: before the base's cut-off, between refreshes, since the last one."""

    documents: PositiveInt = Field(40, ge=2, description="of each source and period, chosen by hash")
    min_documents: PositiveInt = Field(10, ge=2, description="a period with fewer is left out, and that is said")


class DriftConfig(Declared):
    """How much worse the champion predicts the newest text than older text of the same source."""

    by: Literal["arrival", "date"] = Field(
        "arrival",
        description="newest: what came since the champion's edition; date: what is dated after its refresh, or after "
        "the base's cutoff where there was none",
    )
    threshold: float = Field(0.03, ge=0, description="relative rise of bits per byte that the whole interval must pass")
    documents: PositiveInt = Field(200, ge=2, description="of each source, new and old, chosen by hash")
    min_documents: PositiveInt = Field(20, ge=2, description="with fewer new or old ones nothing is said of a source")
    confidence: float = Field(0.95, gt=0.5, lt=1)
    bootstrap: PositiveInt = Field(2000, ge=200)
    roles: tuple[Literal["general", "domain", "watched"], ...] = Field(
        ("domain",), min_length=1, description="sources whose drift asks for a refresh; all are measured"
    )

    @model_validator(mode="after")
    def check(self) -> "DriftConfig":
        if self.min_documents > self.documents:
            raise ValueError(f"min_documents {self.min_documents} is more than documents {self.documents}")
        return self
