"""retention: what `ratoon gc` leaves of what no version in use needs. Only it and the deployment `gc` remove."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ratoon.config.declaration import Declared


class RetentionConfig(Declared):
    """Whatever these say, what a champion, its predecessor, a challenger or any promoted version needs stays."""

    refused: NonNegativeInt = Field(3, description="newest versions that were not promoted, with weights and text")
    checkpoints: PositiveInt = Field(1, description="newest of a run that has ended, its model among them")
    editions: NonNegativeInt = Field(3, description="newest refreshes without a version whose text stays")
    days: NonNegativeFloat = Field(30, description="what was written within so many days stays")
