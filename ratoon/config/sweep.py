"""sweep and choose: which proxies run, and what is asked of their laws."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from ratoon.config.declaration import Declared, Share
from ratoon.config.schedule import Schedule


class Hopeless(Declared):
    """When a proxy's longer horizons are not worth running. Judged on decayed losses, at horizons only."""

    margin: NonNegativeFloat = Field(
        0.05, description="general loss this far above its ceiling, relative: stop; the goal weighted has no ceiling"
    )
    parent: NonNegativeFloat | None = Field(
        0.0,
        description="general and domain loss both this far above the parent's, relative: the parent dominates; none: "
        "not asked",
    )
    after: Share = Field(0.25, description="of the longest horizon, before which nothing is stopped")


class SweepConfig(Declared):
    ratios: tuple[Share, ...] | None = Field(
        None,
        description="domain shares to try, each at every size and length, at least five different ones; none: begin "
        "with `start` and add the runs that narrow the choice most per FLOP, until width, price or max_runs says stop",
    )
    start: tuple[Share, ...] = Field(
        (0.1, 0.5, 0.9),
        description="domain shares of the first runs, at the target's own size; the middle one is run at full length, "
        "the others to the second horizon, or to the first where `budget` could else not pay a second full run",
    )
    width: PositiveFloat = Field(0.05, description="of the 90% interval of the best share: narrow enough, stop")
    price: NonNegativeFloat | None = Field(
        None,
        description="nats of domain loss that as many FLOPs as the target run's are worth: a run that saves less than "
        "its part is not made; none: what the same FLOPs would gain in a longer target run; 0: no run is too dear",
    )
    budget: PositiveFloat | None = Field(
        None,
        description="FLOPs of the whole sweep at most, in target runs, spent while the interval is wider than `width`; "
        "none: no limit but the others",
    )
    max_runs: PositiveInt = Field(12, description="groups (one size at one ratio) at most, the first ones included")
    tokens: PositiveInt = Field(description="tokens of the longest proxy run")
    horizons: PositiveInt = Field(4, description="run lengths per ratio and size")
    spacing: Literal["halving", "even"] = Field(
        "halving", description="of the run lengths: each half of the next, or evenly spaced up to the longest"
    )
    learning_rates: tuple[PositiveFloat, ...] | None = Field(
        None, description="peak learning rates, each at every ratio, size and length; none: train.learning_rate"
    )
    schedules: tuple[Schedule, ...] | None = Field(
        None, description="schedules, each at every ratio, size and length; none: train.schedule"
    )
    hopeless: Hopeless | None = Field(None, description="when a proxy's longer horizons are left out; none: never")
    stacked: Literal["auto", "never", "always"] = Field(
        "auto",
        description="proxies of one size trained as one stack of weights; auto: on a GPU, and on CPU where the models "
        "are so small that calls cost more than arithmetic",
    )
    workers: PositiveInt | None = Field(None, description="proxy runs at once; none: one per core on CPU, 1 on GPU")

    @field_validator("ratios")
    @classmethod
    def enough(cls, ratios: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if ratios is None:
            return None
        if len(set(ratios)) != len(ratios):
            raise ValueError(f"ratios {list(ratios)} repeat; each is one run")
        if len(ratios) < 5:
            raise ValueError(f"{len(ratios)} ratios; the laws need at least five")
        return tuple(sorted(ratios))

    @field_validator("learning_rates", "schedules")
    @classmethod
    def different(cls, found: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if found is not None and (not found or any(one in found[:n] for n, one in enumerate(found))):
            raise ValueError("give one or more, each once, or leave it out for that of train")
        return found

    @model_validator(mode="after")
    def crossed(self) -> "SweepConfig":
        """Rounds that grow read the laws, which know one rate and one schedule."""
        asked = [name for name in ("learning_rates", "schedules") if getattr(self, name) is not None]
        if asked and self.ratios is None:
            raise ValueError(f"{' and '.join(asked)}: only a grid crosses them; give ratios, or leave them out")
        return self

    @field_validator("start")
    @classmethod
    def spread(cls, start: tuple[float, ...]) -> tuple[float, ...]:
        if len({round(share, 2) for share in start}) < 3 or len(set(start)) != len(start):
            raise ValueError(f"start {list(start)}: three or more different shares show how loss bends with the share")
        if not (min(start) > 0 and max(start) < 1):
            raise ValueError(f"start {list(start)}: shares of 0 and 1 are another regime, which no law bridges")
        return tuple(sorted(start))


class ChooseConfig(Declared):
    tolerance: PositiveFloat = Field(
        0.02, lt=1, description="how far general loss may rise above the parent's, relative"
    )
    confidence: float = Field(0.9, gt=0.5, lt=1, description="with which the chosen ratio must stay under it")
    goal: Literal["ceiling", "weighted"] = Field(
        "ceiling",
        description="ceiling: least domain loss with general loss within tolerance; weighted: least sum of both, each "
        "relative to the parent's, whatever the tolerance",
    )
    general_weight: Share = Field(0.5, description="of general loss in the weighted goal; domain loss has the rest")
    overrun_price: NonNegativeFloat = Field(
        1.0,
        description="nats of domain loss that a nat of general loss above its ceiling costs, where regret is counted",
    )
    bootstrap: PositiveInt = Field(400, ge=50, description="resamples of whole runs")
    law: Literal["auto", "combined", "warm", "dcpt", "cmr"] = Field(
        "auto", description="auto: the smallest held-out error; combined: all, weighed by their held-out errors"
    )
    near_tie: float = Field(
        1.5,
        ge=1,
        description="auto: held-out errors within this factor of the least are a tie, which goes to the law that stays "
        "bounded; the longest runs of one sweep share their luck, so an error is no surer than this",
    )
    rival: float = Field(
        2.0, ge=1, description="auto: laws within this factor of the least held-out error widen the interval by theirs"
    )
    form_doubt: Share = Field(
        1.0,
        description="part of a law's held-out error that is carried to the target although noise would explain it; 0: "
        "one of the laws is taken to be the truth, as it is in simulations of them, and the next run is chosen so",
    )
    sharpness: NonNegativeFloat = Field(
        2.0, description="combined: a law's weight is its held-out error to minus this power"
    )
    same_size: float = Field(1.25, ge=1, description="a law of one size speaks for a target within this factor of it")
    few_groups: PositiveInt = Field(6, description="fewer trunks than this are warned of")
    min_agreement: Share = Field(0.2, description="share of starts at the optimum below which a fit is warned of")
    extrapolate: bool = Field(False, description="true: answer for targets beyond far_tokens and far_size too")
    far_tokens: float = Field(
        10.0, ge=1, description="times the longest run's tokens, or parts of the shortest's, beyond which it is far"
    )
    far_size: float = Field(
        4.0, ge=1, description="times the largest model run, or parts of the smallest, beyond which it is far"
    )
    domain_epochs: PositiveFloat = Field(
        16.0, description="times the domain text may be read at most (mixtures tolerate 15 to 20, arXiv:2605.12715)"
    )
    ratio: Share | None = Field(None, description="take this domain share and do not choose")
    seed: int = 0
