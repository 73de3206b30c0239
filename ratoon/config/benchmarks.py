"""data/benchmarks/*.yaml: what models are asked."""

import re
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ratoon.config.declaration import Declared, Name, Role

Asked = Literal["rolling", "choice", "generation"]


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
    answer: str | None = Field(
        "answer", description="its text, or several that are right alike; with choices, the number or letter of one"
    )
    choices: str | None = Field(None, description="a list of texts")
    id: str | None = Field(None, description="none: the number of the item in its file, from 0")
    document: str | None = Field(
        None,
        description="what the item was made from; items of one document stand and fall together. none: its own, and "
        "that of the first where the same question with the same choices comes again",
    )


class Prompt(Declared):
    """A way to ask. Of several each model is asked in the one that suits it on development items."""

    name: Name = "plain"
    template: str = Field(
        "{question}", description="{question} is put in; with {choices} they are listed from A, and the letter is asked"
    )
    delimiter: str = Field(" ", description="between the question and its answer")
    shots: NonNegativeInt = Field(0, description="development items with their answers shown before")
    between: str = Field("\n\n", description="between these")

    @model_validator(mode="after")
    def check(self) -> "Prompt":
        if self.template.count("{question}") != 1:
            raise ValueError(f"template {self.template!r} must hold {{question}} once: the item's question goes there")
        return self


class Items(Declared):
    """Items that come as a file. Training text is kept clear of them; `ask` says whether models are asked them."""

    kind: Literal["items"]
    path: str = Field(min_length=1, description="of JSON lines, relative to the project's folder")
    columns: ItemColumns = ItemColumns()  # type: ignore[call-arg]
    ask: Asked | None = Field(None, description="none: models are not asked; rolling: bits per byte of the question")
    source: Name | None = Field(
        None, description="made of held-out documents of this source, which may therefore hold them"
    )
    role: Role = Field("general", description="domain: what is to be learned; general: what is to be kept")
    most: PositiveInt | None = Field(None, description="items asked, chosen by hash; none: all")
    prompts: tuple[Prompt, ...] = Field((Prompt(),), min_length=1)  # type: ignore[call-arg]
    development: float = Field(
        0.2, gt=0, lt=1, description="share of documents whose items choose the prompt and are shown, never asked"
    )
    until: tuple[str, ...] = Field(("\n",), min_length=1, description="generation ends before one of these")
    max_tokens: PositiveInt = Field(16, description="or after so many")
    labels: tuple[str, ...] = Field((), description="valid outputs of a generation; none: see pattern")
    pattern: str | None = Field(None, description="what a valid output matches whole; none: any that is not empty")

    @property
    def picks(self) -> bool:
        """Whether some items are kept for development."""
        return len(self.prompts) > 1 or any(prompt.shots for prompt in self.prompts)

    @model_validator(mode="after")
    def check(self) -> "Items":
        if self.ask == "choice" and not (self.columns.choices and self.columns.answer):
            raise ValueError("ask is choice: columns.choices and columns.answer must name where they are")
        if self.ask == "generation" and not self.columns.answer:
            raise ValueError("ask is generation: columns.answer must name where the answer is")
        if self.ask == "rolling" and self.prompts != (Prompt(),):  # type: ignore[call-arg]
            raise ValueError("ask is rolling: texts are scored as they are; leave prompts out")
        if self.ask != "choice" and any("{choices}" in prompt.template for prompt in self.prompts):
            raise ValueError(f"ask is {self.ask}: there are no {{choices}} to list in a template")
        names = [prompt.name for prompt in self.prompts]
        if len(set(names)) < len(names):
            raise ValueError(f"prompts are called {', '.join(names)}; each needs a name of its own")
        if "" in self.until:
            raise ValueError("until holds an empty text, which ends every generation before it begins; leave it out")
        if self.labels and self.pattern is not None:
            raise ValueError("labels and pattern both say what a valid output is; give one of the two")
        _compiles(self.pattern)
        return self


def _compiles(pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from None


class LmEval(Declared):
    """A task of lm-eval by its name. `ratoon bench fetch` writes its items beside the declaration, prompts included."""

    kind: Literal["lm_eval"]
    task: str = Field(min_length=1, description="one task such as arc_easy, no group of them")
    role: Role = "general"
    shots: NonNegativeInt | None = Field(None, description="examples before each question; none: as the task has it")
    most: PositiveInt | None = Field(None, description="items asked, chosen by hash; none: all")
    cache: str = Field("data/datasets", description="of the datasets library, for every fetch without a network")
    revision: str | None = Field(
        None,
        pattern="^[0-9a-f]{40}$",
        description="commit of the dataset on the hub, never another; none: its newest",
        exclude_if=lambda it: it is None,
    )
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="of items.jsonl, as fetched.json tells it: other items are refused; none: any",
        exclude_if=lambda it: it is None,
    )


class Benchmark(Declared):
    """An evaluation set: made from the held-out documents of every source of a refresh, or items of its own."""

    name: Name
    version: PositiveInt = Field(description="raise it when the same documents would give other items")
    description: str = ""
    min_documents: PositiveInt = Field(20, ge=2, description="fewer usable held-out documents than this is refused")
    form: HeldOutText | NextPassage | Items | LmEval = Field(discriminator="kind")

    @property
    def items(self) -> str | None:
        """Where the items lie, relative to the project's folder; None: they are made from held-out documents."""
        if isinstance(self.form, LmEval):
            return f"data/benchmarks/{self.name}/items.jsonl"
        return self.form.path if isinstance(self.form, Items) else None

    @property
    def asks(self) -> Asked | None:
        """None: models are not asked, or the items say it themselves (lm_eval)."""
        made: dict[str, Asked] = {"held_out": "rolling", "next_passage": "choice"}
        return self.form.ask if isinstance(self.form, Items) else made.get(self.form.kind)

    @property
    def metric(self) -> Literal["bits_per_byte", "accuracy"]:
        return "bits_per_byte" if self.asks == "rolling" else "accuracy"
