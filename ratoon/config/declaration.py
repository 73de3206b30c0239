"""What every declaration is: frozen, with known keys, and named by its content."""

import difflib
import hashlib
import json
import re
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T", bound=BaseModel)
Role = Literal["general", "domain"]
Kind = Literal["prose", "web", "code", "table"]
Share = Annotated[float, Field(ge=0, le=1)]
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # becomes part of paths: no slash, no leading dot
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=64)]


class ConfigError(ValueError):
    """What a person asked for cannot be done as asked. The message is the whole letter."""


class Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Twelve hex digits that name this content, the same on every machine."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def unknown(word: str, name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(allowed) or 'none yet'}"
    return f"no {word} {name!r}{hint}"
