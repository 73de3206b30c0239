"""train.mixture: what is read when. Everything is off unless asked for: one mixture, rows of one length, each epoch
of a source in an order that says nothing.

A point of the run is written as `until`: at most 1, a share of the run; above 1, tokens.
"""

import math
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Name, Share

Order = Literal["vanilla", "paced", "interleaved", "warmup"]
# Options of each order and their defaults. The pace and its start are those of arXiv:1903.09848; the others are ours.
OPTIONS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "paced": {"pace": "sqrt", "start": 0.01, "full": 0.5},
    "interleaved": {"passes": 4},
    "warmup": {"share": 0.1},
}


class Until(Declared):
    until: PositiveFloat = Field(description="its end: at most 1, a share of the run; above 1, tokens")


class Phase(Until):
    """Other shares up to a point of the run. It begins where the one before ends, on a multiple of block_rows."""

    share: Share | dict[Name, Share] = Field(
        description="of the domain, divided within a role as the run's own; or of each source, those left out have none"
    )


class Length(Until):
    """Shorter rows up to a point of the run, as many more in a step."""

    row_tokens: PositiveInt = Field(description="divides the base's row_tokens: its rows are cut in equal parts")


class Curriculum(Declared):
    """Rows of a source in order of a score, easy to hard or the other way (arXiv:2506.11300).

    A row's score is the mean over its tokens of their documents' scores. Of each source as many rows are ordered as the
    run will read; an epoch that it does not finish is read in the uniform order.
    """

    score: Name = Field(description="one of prepare.scores, packed with the rows")
    order: Order = Field(
        "vanilla",
        description="vanilla: sorted; interleaved: sorted in each of several passes; paced: from a pool that grows "
        "along the sorted rows, in the first epoch; warmup: sorted in the first part of the run, then uniform",
    )
    direction: Literal["ascending", "descending"] = Field("ascending", description="least score first, or greatest")
    sources: tuple[Name, ...] = Field((), description="sources that are ordered; none: all that have the score")
    passes: PositiveInt | None = Field(None, description="interleaved: passes per epoch; none: 4")
    pace: Literal["linear", "sqrt"] | None = Field(None, description="paced: how the pool grows; none: sqrt")
    start: float | None = Field(None, gt=0, le=1, description="paced: share of the rows in the first pool; none: 0.01")
    full: float | None = Field(None, gt=0, le=1, description="paced: share of the epoch after which all are in it")
    share: float | None = Field(None, gt=0, le=1, description="warmup: part of the run that is sorted; none: 0.1")

    @model_validator(mode="before")
    @classmethod
    def fits_its_order(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or raw.get("order", "vanilla") not in OPTIONS:
            return raw
        given = {key: value for key, value in raw.items() if value is not None}
        order = given.get("order", "vanilla")
        for owner, options in OPTIONS.items():
            if strange := sorted({*options} & {*given} - {*OPTIONS[order]}):
                takes = ", ".join(OPTIONS[order]) or "no option"
                raise ValueError(f"{strange[0]} is of {owner}, not of {order}, which takes {takes}; leave it out")
        return {**OPTIONS[order], **given}

    @property
    def uniform(self) -> bool:
        """Whether it asks for the uniform order: all rows are in the pool from the first on."""
        return self.order == "paced" and self.start == 1


class MixtureConfig(Declared):
    temperature: float | None = Field(
        None,
        ge=0.5,
        description="shares within a role follow weight * tokens^(1/temperature): 1, as much of each as there is; "
        "above, scarce sources more often; none or .inf: by weight alone (1/temperature 0.3 in arXiv:1911.02116)",
    )
    phases: tuple[Phase, ...] = Field((), description="shares that change over the run; after the last, the run's own")
    lengths: tuple[Length, ...] = Field(
        (), description="rows that grow over the run (arXiv:2310.00576); after the last, the base's row_tokens"
    )
    curriculum: Curriculum | None = Field(None, description="none: uniform order")
    max_epochs: PositiveFloat | dict[Name, PositiveFloat] | None = Field(
        None, description="times a source is read at most: one number for all, or by source; none: as often as it takes"
    )
    at_cap: Literal["stop", "others"] = Field(
        "stop",
        description="what a source's end at max_epochs does: stop, the run is refused before it begins; others, from "
        "there on its share goes to the others of its role in proportion to theirs, or where there is none, to all",
    )

    @model_validator(mode="before")
    @classmethod
    def without_end(cls, raw: Any) -> Any:
        # JSON has no infinity, and it says the same as none.
        if isinstance(raw, dict) and raw.get("temperature") == math.inf:
            return {**raw, "temperature": None}
        return raw

    def essence(self) -> "MixtureConfig":
        """Without a curriculum that asks for the uniform order, and what happens at caps where there are none."""
        curriculum = None if self.curriculum is not None and self.curriculum.uniform else self.curriculum
        at_cap = self.at_cap if self.max_epochs else MixtureConfig.model_fields["at_cap"].default
        return self.model_copy(update={"curriculum": curriculum, "at_cap": at_cap})

    @property
    def depends_on_length(self) -> bool:
        """Whether a longer run begins otherwise than a shorter one, so that they cannot share a trunk."""
        parts: tuple[Until, ...] = (*self.phases, *self.lengths)
        return any(part.until <= 1 for part in parts) or self.curriculum is not None

    def cap(self, source: str) -> float | None:
        """Times `source` may be read; None: no limit."""
        return self.max_epochs.get(source) if isinstance(self.max_epochs, dict) else self.max_epochs
