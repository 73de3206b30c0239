"""models/bases/*.yaml: which models there are to begin with."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Name, Share
from ratoon.config.filters import Day


class Scratch(Declared):
    """A Llama trained here from nothing on the general sources."""

    kind: Literal["scratch"]
    tokenizer: str | None = Field(None, description="take the tokenizer of this base; none: train one")
    vocabulary: PositiveInt = Field(2048, ge=512)
    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    context: PositiveInt = 512
    tokens: PositiveInt = Field(description="tokens of general text to train on")
    learning_rate: PositiveFloat
    rows_per_step: PositiveInt
    decay_share: Share = 0.2
    seed: int = 0

    @model_validator(mode="after")
    def check(self) -> "Scratch":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self


class Pretrained(Declared):
    """A local directory, or a hub id when online, that transformers loads from safetensors."""

    kind: Literal["pretrained"]
    path: str
    revision: str | None = None


class Gguf(Declared):
    """A GGUF file inside an installed Python package, converted once to safetensors."""

    kind: Literal["gguf"]
    package: str
    file: str = Field(description="glob inside the package's folder; it must match one file")


class Base(Declared):
    name: Name
    description: str = ""
    license: str | None = None
    row_tokens: PositiveInt = Field(description="length of the packed rows, at most the model's context")
    family: tuple[Name, ...] = Field((), description="smaller bases that share its tokenizer: cheap proxies")
    cutoff: Day | None = Field(
        None,
        description="the last day of the text it was trained on; none: not known",
        exclude_if=lambda it: it is None,
    )
    weights: Scratch | Pretrained | Gguf = Field(discriminator="kind")

    @model_validator(mode="after")
    def check(self) -> "Base":
        if isinstance(self.weights, Scratch) and self.row_tokens > self.weights.context:
            raise ValueError(f"row_tokens {self.row_tokens} is more than the context {self.weights.context}")
        return self

    def digest(self) -> str:
        """What is merely said of a model makes no other model of it."""
        return super().digest() if self.cutoff is None else self.model_copy(update={"cutoff": None}).digest()
