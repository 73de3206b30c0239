"""data/benchmarks/*.yaml: what models are asked."""

from typing import Literal

from pydantic import Field, PositiveInt

from ratoon.config.declaration import Declared, Name


class HeldOutText(Declared):
    """How well the model predicts held-out documents: bits per byte, lower is better."""

    kind: Literal["held_out"]


class NextPassage(Declared):
    """Which passage continues this one? Accuracy, higher is better; guessing gives 1 / assess.choices."""

    kind: Literal["next_passage"]
    context_bytes: PositiveInt = Field(240, ge=40, description="of the document, shown before the choices")
    continuation_bytes: PositiveInt = Field(80, ge=40, description="of each choice, the same for all")


class ItemColumns(Declared):
    """Which key of a line holds what."""

    question: str = Field("question", min_length=1, description="what is asked: prompt, context, text to be continued")
    answer: str | None = Field("answer", description="its text; or, with choices, the number or letter of one of them")
    choices: str | None = Field(None, description="a list of texts")
    id: str | None = Field(None, description="none: the number of the item in its file, from 0")


class Items(Declared):
    """Items that come as a file. Training text is kept clear of them; models are not asked them yet."""

    kind: Literal["items"]
    path: str = Field(min_length=1, description="of JSON lines, relative to the project's folder")
    columns: ItemColumns = ItemColumns()  # type: ignore[call-arg]


class Benchmark(Declared):
    """An evaluation set: made from the held-out documents of every source of a refresh, or of items from a file."""

    name: Name
    version: PositiveInt = Field(description="raise it when the same documents would give other items")
    description: str = ""
    min_documents: PositiveInt = Field(20, ge=2, description="fewer usable held-out documents than this is refused")
    form: HeldOutText | NextPassage | Items = Field(discriminator="kind")

    @property
    def metric(self) -> Literal["bits_per_byte", "accuracy"]:
        return "bits_per_byte" if isinstance(self.form, HeldOutText) else "accuracy"
