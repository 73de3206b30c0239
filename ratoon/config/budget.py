"""train.budget: what a run may cost, and what its hardware does. No part of a run's identity: it changes no number."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared


class Budget(Declared):
    """A limit that is not given is not asked about. With one, a run that would pass it is not begun."""

    hours: PositiveFloat | None = Field(None, description="wall time of the run, evaluations and checkpoints included")
    money: PositiveFloat | None = Field(None, description="hours x price x devices, in the unit of price")
    flops: PositiveFloat | None = Field(None, description="of training, by formula: 6 per weight and token, attention")
    memory: PositiveFloat | None = Field(None, description="GiB at the peak: of the GPU, or of the process on a CPU")
    price: NonNegativeFloat | None = Field(None, description="of one device for one hour; none: money is not known")
    devices: PositiveInt = Field(1, description="paid for while the run lasts; time is measured on one")
    power: PositiveFloat | None = Field(
        None,
        description="watts of one device with its share of the machine while it trains; none: energy is estimated",
        exclude_if=lambda it: it is None,
    )
    carbon: NonNegativeFloat | None = Field(
        None, description="grams of CO2 equivalent per kWh; none: not worked out", exclude_if=lambda it: it is None
    )

    @model_validator(mode="after")
    def check(self) -> "Budget":
        if self.money is not None and not self.price:
            raise ValueError("money is limited, and price (of one device for one hour) is not given; give it")
        return self

    @property
    def limited(self) -> bool:
        return any(limit is not None for limit in (self.hours, self.money, self.flops, self.memory))
