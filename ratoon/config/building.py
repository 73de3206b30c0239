"""`ratoon bench build`: what a benchmark is made of."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ratoon.config.declaration import Declared, Kind, Name, Role

QuestionKind = Literal["number", "name", "definition", "title", "passage"]
KINDS: tuple[QuestionKind, ...] = ("number", "name", "definition", "title", "passage")


class BuildRecipe(Declared):
    """Everything that decides the items beside the text itself."""

    source: Name
    kinds: tuple[QuestionKind, ...] = Field(KINDS, min_length=1)
    items: PositiveInt = Field(200, description="of each kind, at most")
    choices: Annotated[int, Field(ge=2, le=26)] = 4
    context_bytes: Annotated[int, Field(ge=40)] = Field(240, description="of the document, shown before the choices")
    answer_bytes: Annotated[int, Field(ge=20)] = Field(60, description="of a choice that is a passage")
    least: PositiveInt = Field(20, description="items; a kind that has fewer is left out and said so")
    documents: PositiveInt = Field(20_000, description="held-out documents looked at, chosen by hash")
    per_document: PositiveInt = Field(3, description="items of one kind from one document, at most")
    known: int = Field(2, ge=0, description="times a name must stand in training text: nobody can know others")
    significance: float = Field(0.01, gt=0, lt=0.5, description="of the tests that choices alone tell nothing")
    seed: int = 0
    # Of the source, not asked for: they decide which patterns are looked for and where the gate puts the result.
    text: Kind = "prose"
    role: Role = "domain"
