"""prepare: from sources to rows."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from ratoon.config.amend import Amend
from ratoon.config.declaration import Declared, Kind, Name, Share
from ratoon.config.decontaminate import Decontaminate
from ratoon.config.engine import Engine
from ratoon.config.filters import DateFilter, LanguageFilter, LicenseFilter, Toxicity
from ratoon.config.prefixes import Prefixes
from ratoon.config.scores import Scoring

Thresholds = dict[str, float | int | list[float]]


class HeldOut(Declared):
    share: float = Field(0.02, gt=0, lt=0.5, description="of documents, chosen by the hash of their text")
    max_tokens: PositiveInt = Field(50_000, description="tokens of it scored while training, per source")
    min_documents: PositiveInt = Field(20, description="fewer held-out documents than this is refused")


class NearDuplicates(Declared):
    """Two texts are near-duplicates when all rows of one band of their MinHash signatures agree."""

    ngram: PositiveInt = Field(5, description="words; a shorter text is compared as a whole only")
    bands: PositiveInt = Field(14, description="with 8 rows: half the pairs of Jaccard similarity 0.68 are found")
    rows: PositiveInt = Field(8, description="per band")
    agreement: Share = Field(0.0, description="estimated similarity that a pair must reach too; 0: a band is enough")


class Paragraphs(Declared):
    """Documents made of what others say."""

    min_words: PositiveInt = Field(8, description="of a line, to count as a paragraph")
    max_share: float = Field(0.8, ge=0, lt=1, description="of a document's words in paragraphs that others hold")


class Dedup(Declared):
    """Texts that are there more than once. What an earlier edition kept stays; later texts give way."""

    exact: Literal["normalised", "raw"] = Field(
        "normalised", description="normalised: without regard to case and white space; raw: byte for byte"
    )
    near: NearDuplicates | None = Field(None, description="none: exact duplicates alone")
    paragraphs: Paragraphs | None = Field(None, description="none: documents are compared as a whole only")
    across: tuple[Name, ...] = Field((), description="sources, highest priority first: a text is in the first of them")
    copies: dict[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=1, le=255)]] = Field(
        default_factory=dict, description="size of a cluster -> times its survivor is trained on, from that size on"
    )

    @model_validator(mode="after")
    def check(self) -> "Dedup":
        if self.exact == "raw" and (self.near or self.paragraphs or self.across or self.copies):
            raise ValueError(
                "exact: raw keeps apart what the other keys join; set exact: normalised, or leave them out"
            )
        if len(set(self.across)) != len(self.across):
            raise ValueError(f"across: {list(self.across)} names a source twice")
        return self

    @property
    def joint(self) -> bool:
        """Whether more is asked than the first of equal texts."""
        return bool(self.near or self.paragraphs or self.across or self.copies)

    def above(self, source: str) -> tuple[str, ...]:
        """The sources whose texts this one must not repeat."""
        return self.across[: self.across.index(source)] if source in self.across else ()


class PrepareConfig(Scoring):
    bases: tuple[str, ...] = Field(("nano",), description="bases whose tokenizer the corpora are packed with")
    amend: dict[Kind | Literal["auto"], Amend] = Field(
        default_factory=dict,
        description="per kind of source: repair and masking at ingest; sources of a kind left out stay as they are",
    )
    rules: dict[Kind, Thresholds] = Field(description="per kind of text: rule -> threshold; a rule left out is off")
    languages: dict[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], Thresholds] = Field(
        default_factory=dict, description="rules of web text in these languages, in place of rules.web"
    )
    language: LanguageFilter | None = Field(None, description="none: no language is looked for")
    dates: DateFilter | None = Field(None, description="none: text of any time, dated or not")
    licenses: LicenseFilter | None = Field(None, description="none: text under any licence or none")
    toxicity: Toxicity | None = Field(None, description="none: no word of abuse is counted")
    dedup: Dedup = Dedup()
    held_out: HeldOut = HeldOut()
    engine: Engine = Engine()
    decontaminate: Decontaminate | None = Field(
        None, description="none: text is not compared with what models are examined on"
    )
    prefixes: Prefixes | None = Field(
        None,
        description="none: nothing is packed that says where a document is from",
        exclude_if=lambda found: found is None,  # digests are what they were before it could be asked for
    )

    def named(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield from super().named()
        yield "dedup.across", self.dedup.across
        if self.decontaminate and self.decontaminate.held_out:
            yield "decontaminate.held_out.sources", self.decontaminate.held_out.sources
        if self.prefixes:
            yield "prefixes.sources", self.prefixes.sources
