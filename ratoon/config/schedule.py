"""train.schedule: learning rate against step. What each looks like: ratoon/training/schedules.py.

Defaults are the published ones, where a source gives them; of wsd and cosine they are ours.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, RootModel, model_validator

from ratoon.config.declaration import Declared, Share, unknown

Tail = Literal["linear", "cosine", "sqrt", "exponential", "inverse"]
PUBLISHED_COOLDOWN = 0.6  # of the steps (arXiv:2503.02844, Mistral-7B)


class Warmed(Declared):
    """Linear from 0 to the peak, and then as the name says."""

    name: str
    warmup_steps: NonNegativeInt = Field(20, description="absolute, so that runs of any length start alike")

    @property
    def no_trunk(self) -> str | None:
        """Why runs of several lengths do not share a beginning worth training once; None: they do."""
        return None


class Constant(Warmed):
    """The peak to the end. Every step of it can be the last."""

    name: Literal["constant"] = "constant"


class Falling(Warmed):
    floor: Share = Field(0.0, description="last learning rate as a share of the peak")

    @property
    def no_trunk(self) -> str | None:
        return "its rate falls towards the end of the run from the warm-up on"


class Linear(Falling):
    """A straight line to the floor. With warmup_steps 0, the mid-training anneal of OLMo-core."""

    name: Literal["linear"] = "linear"


class Cosine(Falling):
    name: Literal["cosine"] = "cosine"


class Rewarm(Falling):
    """Up from where the parent ended and down a cosine again (arXiv:2308.04014, arXiv:2403.08763: 3e-4 to 3e-5)."""

    name: Literal["rewarm"] = "rewarm"
    floor: Share = Field(0.1, description="last learning rate as a share of the peak")
    start: Share | None = Field(
        None, description="rate the parent ended at, as a share of this peak; none: the floor, as after the same stage"
    )


class Tailed(Warmed):
    """A part that does not know its end, and a decay over the last of the steps."""

    decay_share: Share = Field(0.1, description="of the steps, for the decay (OLMo-core; less than 0.1 is too short)")
    tail: Tail = Field("linear", description="shape of the decay; exponential and inverse need a floor above 0")
    floor: Share = Field(0.0, description="last learning rate as a share of the peak")

    @model_validator(mode="after")
    def check(self) -> "Tailed":
        if self.tail in ("exponential", "inverse") and self.floor == 0:
            raise ValueError(f"tail {self.tail} never comes down to 0; give a floor above 0, or another tail")
        return self

    @property
    def no_trunk(self) -> str | None:
        return "decay_share 1 leaves nothing before the decay" if self.decay_share == 1 else None


class Wsd(Tailed):
    """Constant, then a short decay (arXiv:2404.06395; the linear tail arXiv:2405.18392)."""

    name: Literal["wsd"] = "wsd"
    decay_share: Share = Field(0.2, description="of the steps, for the decay")


class WsdS(Tailed):
    """One run, several lengths: each cycle goes on from the decayed weights, at the peak at once (arXiv:2410.05192)."""

    name: Literal["wsd_s"] = "wsd_s"
    decay_share: Share = Field(0.1, description="of each cycle's steps, for its decay (OLMo-core)")
    ends: tuple[Share, ...] = Field((0.25, 0.5, 1.0), description="of the cycles, as shares of the run")

    @model_validator(mode="after")
    def rising(self) -> "WsdS":
        if self.ends[-1:] != (1,) or any(a >= b for a, b in pairwise((0.0, *self.ends))):
            raise ValueError(f"ends {list(self.ends)}: shares of the run above 0, rising, the last 1")
        return self

    @property
    def no_trunk(self) -> str | None:
        if len(self.ends) > 1:
            return "it decays inside the run, at shares of its length; wsd decays on branches"
        return super().no_trunk


class Infinite(Warmed):
    """Cooldown to a rate that can be kept for ever, and an exponential anneal (arXiv:2403.08763, arXiv:2503.02844).

    The defaults are those of the Mistral-7B run: 3e-5, 1.65e-5, 2e-6.
    """

    name: Literal["infinite"] = "infinite"
    cooldown_share: Share | None = Field(
        None, description=f"of the steps, for the cosine to the level; none: {PUBLISHED_COOLDOWN} or cooldown_steps"
    )
    cooldown_steps: NonNegativeInt | None = Field(
        None, description="the same in steps, so that runs of any length cool down alike, as a trunk must"
    )
    level: float = Field(0.55, gt=0, le=1, description="rate that is kept, as a share of the peak")
    decay_share: Share = Field(0.14, description="of the steps, for the anneal")
    floor: float = Field(2 / 30, gt=0, le=1, description="last learning rate as a share of the peak; above 0")

    @model_validator(mode="before")
    @classmethod
    def published(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("cooldown_share") is None and raw.get("cooldown_steps") is None:
            return {**raw, "cooldown_share": PUBLISHED_COOLDOWN}
        return raw

    @model_validator(mode="after")
    def check(self) -> "Infinite":
        if self.cooldown_share is not None and self.cooldown_steps is not None:
            raise ValueError("found cooldown_share and cooldown_steps; give one of them")
        if self.floor > self.level:
            raise ValueError(f"floor {self.floor:g} is above level {self.level:g}; the anneal goes down")
        return self

    @property
    def no_trunk(self) -> str | None:
        if self.cooldown_share is not None:
            return "its cooldown is a share of the run's own length; give cooldown_steps in place of cooldown_share"
        return "decay_share 1 leaves nothing before the anneal" if self.decay_share == 1 else None


class PowerTokens(Tailed):
    """The form of the paper and of dolomite-engine (arXiv:2408.13359): the rate follows the tokens read, whatever the
    batch; the peak only caps it."""

    name: Literal["power_tokens"] = "power_tokens"
    factor: PositiveFloat = Field(4.0, description="per sequence of 4096 tokens in a step")
    exponent: float = Field(-0.51, lt=0, description="of the tokens read so far")


class PowerSteps(Tailed):
    """The form of OLMo-core: the peak falls with the steps, counted in warm-ups."""

    name: Literal["power_steps"] = "power_steps"
    warmup_steps: PositiveInt = Field(20, description="absolute, and the unit in which steps are counted")
    exponent: float = Field(-0.51, lt=0, description="of the steps")


class Anneal(Tailed):
    """The parent's own constant rate, gone on with as it was left, and annealed: a trunk's release."""

    name: Literal["anneal"] = "anneal"
    warmup_steps: NonNegativeInt = Field(0, description="0: learning_rate is the rate the parent was left at")


Kind = Constant | Linear | Cosine | Rewarm | Wsd | WsdS | Infinite | PowerTokens | PowerSteps | Anneal
KINDS: dict[str, type[Kind]] = {
    kind.model_fields["name"].default: kind
    for kind in (Wsd, Cosine, Linear, Rewarm, WsdS, Infinite, PowerTokens, PowerSteps, Anneal, Constant)
}


class Schedule(RootModel[Annotated[Kind, Field(discriminator="name")]]):
    """Learning rate against step, of one kind by its name. An option that is null is as if it were not there."""

    model_config = ConfigDict(frozen=True)

    root: Annotated[Kind, Field(discriminator="name")] = Wsd()

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def warmup_steps(self) -> int:
        return self.root.warmup_steps

    @property
    def no_trunk(self) -> str | None:
        """Why a sweep cannot branch its run lengths off one trunk; None: it can."""
        return self.root.no_trunk

    @model_validator(mode="before")
    @classmethod
    def fits_its_name(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        given = {"name": "wsd", **{key: value for key, value in raw.items() if value is not None}}
        if given["name"] not in KINDS:
            raise ValueError(unknown("schedule", str(given["name"]), list(KINDS)))
        takes = [option for option in KINDS[given["name"]].model_fields if option != "name"]
        for option in sorted(given.keys() - {"name", *takes}):
            owners = [name for name, kind in KINDS.items() if option in kind.model_fields]
            if owners:
                raise ValueError(
                    f"{option} is of {', '.join(owners)}, not of {given['name']}, which takes {', '.join(takes)}; "
                    f"leave it out, or make it null where it comes from a section under this one"
                )
            raise ValueError(f"{given['name']}: {unknown('option', option, takes)}")
        return given
