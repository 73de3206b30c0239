"""What every record is made of."""

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Record):
    """A number with the range it lies in at the stated confidence."""

    value: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)
