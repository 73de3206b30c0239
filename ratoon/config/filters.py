"""Filters of documents beside the rules: what a document is written in, since when, and under which licence."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Kind, Share

Code = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]  # ISO 639: `de`, or three letters where there are no two


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value  # YAML makes dates of dates


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


Day = Annotated[str, BeforeValidator(_text), Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_day)]


class LanguageFilter(Declared):
    """The language of each document, found in its text. Without limits nothing is dropped, and all is noted."""

    keep: tuple[Code, ...] = Field((), description="none: all")
    label: Literal["detected", "declared"] = Field(
        "detected", description="which one `keep` is asked of; declared: the detected one where none is declared"
    )
    min_score: Share = Field(0.0, description="of the detected language; not asked of a document kept as declared")
    min_scores: dict[Code, Share] = Field(default_factory=dict, description="language -> in place of min_score")
    max_mixing: Share = Field(1.0, description="share of a text that may be in other languages than its own")
    kinds: tuple[Kind, ...] = Field(("prose", "web"), description="kinds of text that are looked at")


class DateFilter(Declared):
    """When documents are from. Both days belong to what is kept; a date with a time zone is taken in UTC."""

    min_date: Day | None = None
    max_date: Day | None = Field(None, description="later text has no part in anything; earlier editions stay")
    undated: Literal["drop", "keep"] = Field("drop", description="documents without a date that can be read")

    @model_validator(mode="after")
    def check(self) -> "DateFilter":
        if self.min_date and self.max_date and self.min_date > self.max_date:
            raise ValueError(f"min_date {self.min_date} is after max_date {self.max_date}: nothing is left")
        return self


class LicenseFilter(Declared):
    """Which licences text may be under: SPDX identifiers, where * stands for anything, in any case."""

    allow: tuple[str, ...] = Field((), description="none: all that are not denied")
    deny: tuple[str, ...] = ()
    unknown: Literal["drop", "keep"] = Field("drop", description="documents of which no licence is said")


class Toxicity(Declared):
    """Words of abuse per thousand, noted of each document. English, by a short list: see corpus/filters/toxicity.py."""

    max_per_thousand: float | None = Field(None, ge=0, description="none: noted only, nothing is dropped for it")
    min_matches: PositiveInt = Field(3, description="found in a document before it may be dropped")
    kinds: tuple[Kind, ...] = Field(("prose", "web"), description="kinds of text that are looked at")
