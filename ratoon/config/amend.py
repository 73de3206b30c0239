"""prepare.amend: what is done to a text while it is ingested, before anything of it is stored."""

from typing import Literal, get_args

from pydantic import Field, field_validator

from ratoon.config.declaration import Declared

Private = Literal["email", "ip", "phone", "card", "iban", "private_key", "access_token", "credential"]


class Amend(Declared):
    """Of one kind of text. Code and tables are repaired only where their own entry says so."""

    repair: bool = Field(False, description="undo wrong decoding (mojibake), with ftfy; quotes and letters stay")
    mask: tuple[Private, ...] = Field((), description="private strings that give way to a constant token")

    @field_validator("mask")
    @classmethod
    def in_one_order(cls, kinds: tuple[Private, ...]) -> tuple[Private, ...]:
        """The same kinds in another order are the same request."""
        return tuple(kind for kind in get_args(Private) if kind in kinds)

    @property
    def asked(self) -> bool:
        return self.repair or bool(self.mask)
