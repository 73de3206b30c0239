"""prepare.scores and prepare.select: numbers for documents, and how much of a source is trained on by them."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Name, unknown
from ratoon.config.filters import Day

Sources = Annotated[tuple[Name, ...], Field(min_length=1)]
# Scores every document has, without a model.
CONTROLS = ("random", "longest", "shortest")


class Scored(Declared):
    sources: tuple[Name, ...] = Field((), description="sources that are scored; none: all")


class Trained(Scored):
    until: Day | None = Field(
        None,
        description="trained on text dated up to this day alone; none: up to prepare.dates.max_date, or on all",
        exclude_if=lambda day: day is None,
    )
    kept: PositiveInt | None = Field(
        None,
        description="trained once, then kept whatever text comes; another number trains it anew. None: on all text",
        exclude_if=lambda number: number is None,
    )


def apart(sides: dict[str, tuple[str, ...]]) -> None:
    (first, ours), (second, theirs) = sides.items()
    if both := sorted({*ours} & {*theirs}):
        raise ValueError(f"{both[0]!r} is both {first} and {second}; it can be one of them")


class Classifier(Trained):
    """Log-odds that a text is of the positive sources: hashed words and pairs of words, averaged, one linear layer."""

    kind: Literal["classifier"]
    positive: Sources = Field(description="sources that look like what is wanted")
    negative: Sources = Field(description="sources that look like what is not")
    buckets: PositiveInt = Field(1 << 20, le=1 << 26, description="words and pairs are hashed into")
    epochs: PositiveInt = Field(5, description="times the training text is read")
    learning_rate: PositiveFloat = 0.5
    max_bytes: PositiveInt = Field(32 << 20, description="of training text per side, about; a sample by hash")
    seed: int = 0

    @model_validator(mode="after")
    def check(self) -> "Classifier":
        apart(self.references())
        return self

    def references(self) -> dict[str, tuple[str, ...]]:
        """Side -> the sources it is trained on."""
        return {"positive": self.positive, "negative": self.negative}


class Perplexity(Trained):
    """Bits per byte of a text under an n-gram model of bytes; low: like the reference."""

    kind: Literal["perplexity"]
    reference: Sources = Field(description="sources the model is trained on")
    order: int = Field(6, ge=2, le=7, description="bytes in an n-gram")
    max_bytes: PositiveInt = Field(8 << 20, description="of training text, about; a sample by hash")

    def references(self) -> dict[str, tuple[str, ...]]:
        return {"reference": self.reference}


class Importance(Trained):
    """Log of how much likelier a text is in the target than in the raw sources (DSIR, arXiv:2302.03169)."""

    kind: Literal["importance"]
    target: Sources = Field(description="sources to be alike")
    raw: Sources = Field(description="sources that are chosen from")
    buckets: PositiveInt = Field(10_000, le=1 << 26, description="words and pairs are hashed into")
    per_word: bool = Field(False, description="weight of a word and not of the document: its length does not count")
    max_bytes: PositiveInt = Field(256 << 20, description="of text counted per side, about; a sample by hash")

    @model_validator(mode="after")
    def check(self) -> "Importance":
        apart(self.references())
        return self

    def references(self) -> dict[str, tuple[str, ...]]:
        return {"target": self.target, "raw": self.raw}


class Retrieval(Trained):
    """Similarity of a text to the target document it is nearest to: cosine of TF-IDF."""

    kind: Literal["retrieval"]
    target: Sources = Field(description="sources whose documents are asked for")
    background: Sources = Field(description="sources that say which words are rare")
    buckets: PositiveInt = Field(1 << 18, le=1 << 26, description="words are hashed into")
    max_share: float = Field(0.1, gt=0, le=1, description="of documents a word is in; a commoner word does not count")
    max_targets: PositiveInt = Field(2000, description="target documents, about; a sample by hash")
    max_bytes: PositiveInt = Field(64 << 20, description="of background text, about; a sample by hash")

    def references(self) -> dict[str, tuple[str, ...]]:
        return {"target": self.target, "background": self.background}


class ModelPerplexity(Scored):
    """Bits per byte of a text under a declared base, run forward; low: what it knows well. Nothing is trained."""

    kind: Literal["model"]
    base: Name = Field(description="declared in models/bases, with weights that are there already")
    max_tokens: PositiveInt = Field(1024, description="read of each text, from its beginning")
    batch_tokens: PositiveInt = Field(
        2048, description="run through the model at once: as many rows of its vocabulary in memory, twice"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="cpu: one core per worker, the same bytes for any number")

    def references(self) -> dict[str, tuple[str, ...]]:
        return {}


Learned = Classifier | Perplexity | Importance | Retrieval
Scorer = Annotated[Learned | ModelPerplexity, Field(discriminator="kind")]


class Select(Declared):
    """How much of a source is trained on, best score first. What is held out is not touched.

    One of keep, bytes, tokens and per_target. Never more is kept than asked for, and one document more would be.
    """

    score: str = Field(description="one of prepare.scores, or random, longest or shortest")
    sources: tuple[Name, ...] = Field((), description="sources selected from; none: all the score is for")
    keep: float | None = Field(None, gt=0, le=1, description="share of the bytes")
    bytes: PositiveInt | None = Field(None, description="of text")
    tokens: PositiveInt | None = Field(None, description="about, by bytes_per_token")
    per_target: PositiveInt | None = Field(None, description="retrieval: documents for each target document")
    bytes_per_token: PositiveFloat = Field(4.0, description="what a token is counted as; measure it for your text")
    prefer: Literal["high", "low"] = "high"
    method: Literal["top", "gumbel"] = Field(
        "top", description="gumbel: drawn without replacement, with odds that are the exponential of the score"
    )
    seed: int = 0

    @model_validator(mode="after")
    def check(self) -> "Select":
        given = [key for key in ("keep", "bytes", "tokens", "per_target") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"found {', '.join(given) or 'no budget'}; give one of keep, bytes, tokens, per_target")
        if self.score in CONTROLS and (self.method, self.prefer) != ("top", "high"):
            raise ValueError(f"{self.score} has its own direction and is no odds; leave method and prefer out")
        if self.per_target and self.prefer == "low":
            raise ValueError("per_target keeps what is nearest to its target; leave prefer out")
        return self

    def budget(self, available: int) -> int:
        """Bytes to keep of `available`."""
        if self.keep is not None:
            return int(self.keep * available)
        return self.bytes if self.bytes is not None else int((self.tokens or 0) * self.bytes_per_token)


class Scoring(Declared):
    """The part of prepare that scores and selects. Off: every document of every source is trained on."""

    scores: dict[Name, Scorer] = Field(default_factory=dict, description="name of a score -> how it is made")
    select: tuple[Select, ...] = Field((), description="one after the other, each from what the one before kept")

    @model_validator(mode="after")
    def scores_are_known(self) -> "Scoring":
        if taken := sorted({*self.scores} & {*CONTROLS, "id"}):
            raise ValueError(f"scores: {taken[0]!r} is there already; choose another name")
        for item in self.select:
            if item.score in CONTROLS:
                continue
            if item.score not in self.scores:
                raise ValueError(f"select: {unknown('score', item.score, [*sorted(self.scores), *CONTROLS])}")
            scorer = self.scores[item.score]
            if item.per_target and scorer.kind != "retrieval":
                raise ValueError(f"select: per_target is of retrieval; {item.score!r} is {scorer.kind}")
            if scorer.sources and (bare := sorted({*item.sources} - {*scorer.sources})):
                raise ValueError(f"select: {item.score!r} is not made for {bare[0]!r}; add it to that score's sources")
        return self

    def named(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every list of sources: its place, and the names."""
        for name, scorer in sorted(self.scores.items()):
            for side, names in {"sources": scorer.sources, **scorer.references()}.items():
                yield f"scores.{name}.{side}", names
        for number, item in enumerate(self.select):
            yield f"select.{number}.sources", item.sources

    def scorers(self, source: str) -> dict[str, Learned | ModelPerplexity]:
        """What `source` is scored by."""
        return {name: each for name, each in sorted(self.scores.items()) if source in (each.sources or (source,))}

    def selects(self, source: str) -> tuple[Select, ...]:
        """What decides about `source`, in order."""
        made = {*CONTROLS, *self.scorers(source)}
        return tuple(each for each in self.select if source in (each.sources or (source,)) and each.score in made)
