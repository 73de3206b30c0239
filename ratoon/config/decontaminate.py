"""prepare.decontaminate: what of the benchmarks no training text may hold."""

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Name

Coverage = Annotated[float, Field(gt=0, le=1)]


class HeldOutTargets(Declared):
    """Held-out documents as something no training document may hold, besides itself. Near-copies are deduplication's;
    this finds a held-out text inside a longer one, and in sources that `dedup.across` does not name."""

    sources: tuple[Name, ...] = Field(min_length=1, description="whose held-out documents are looked for")
    coverage: Coverage = Field(0.5, description="share of a held-out document's words in one other document")
    min_words: PositiveInt = Field(50, description="shorter held-out documents are not looked for")


class Decontaminate(Declared):
    """A document goes that holds an item of a benchmark of kind items.

    A short item is held where its question stands whole and its answer soon after. A longer one is held where n-grams
    found in one document cover a share of its words (arXiv:2411.15124).
    """

    ngram: Annotated[int, Field(ge=3)] = Field(8, description="words")
    coverage: Coverage = Field(0.5, description="share of an item's words in one document; what is less stays")
    short: PositiveInt = Field(13, description="items of fewer words are found whole or not at all")
    least: Annotated[int, Field(ge=3)] = Field(
        5, description="items of fewer words could be chance; reported, not sought"
    )
    answer_gap: Annotated[int, Field(ge=0)] = Field(
        4, description="words that may stand between a short item's question and its answer"
    )
    common: PositiveInt = Field(
        10, description="an n-gram in more items of one benchmark than this is its wording, and counts for none of them"
    )
    report_ngram: Annotated[int, Field(ge=3)] = Field(
        13, description="any one of these shared is reported; nothing goes"
    )
    held_out: HeldOutTargets | None = Field(None, description="none: held-out documents are not looked for")

    @model_validator(mode="after")
    def check(self) -> "Decontaminate":
        if not self.ngram <= self.report_ngram <= self.short:
            raise ValueError(
                f"ngram is {self.ngram}, report_ngram {self.report_ngram}, short {self.short}; none may be smaller "
                f"than the one before: an item of `short` words or more is found by its n-grams"
            )
        return self
