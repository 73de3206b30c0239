"""assess.generation: what parent and candidate are made to write, and what is looked at in it."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ratoon.config.declaration import Declared


class GenerationConfig(Declared):
    """Beginnings of held-out documents are continued by both models. Where a row has less room, less is written."""

    documents: PositiveInt = Field(32, description="held-out documents begun, per source")
    prompt_tokens: PositiveInt = Field(32, description="of each, from its first")
    tokens: PositiveInt = Field(64, ge=16, description="written behind it, at most")
    temperature: NonNegativeFloat = Field(0.0, description="0: always the likeliest token")
    searched_tokens: NonNegativeInt = Field(
        50_000_000, description="of each source's training text, searched for what was copied; 0: not searched"
    )
