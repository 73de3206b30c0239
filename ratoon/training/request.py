"""What a training process is asked to do, resolved to paths and numbers, and what it answers."""

import hashlib
import json
from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from ratoon.config import Declared, Role, Share, TrainConfig
from ratoon.records import Observation, Record


class Portion(Declared):
    """One source in the mixture, or one that is only evaluated (share 0)."""

    rows: str = Field(description="directory of packed rows")
    role: Role
    share: Share
    limit_rows: PositiveInt | None = Field(None, description="rows to use; none: all")


class Request(Declared):
    """One run. Everything that changes its numbers is here, so that equal requests give equal weights."""

    name: str
    label: str = Field(description="what the model is called in the records, such as its base")
    model: str = Field(description="directory to start from")
    portions: dict[str, Portion]
    row_tokens: PositiveInt
    recipe: TrainConfig
    held_out_tokens: PositiveInt
    out: str = Field(description="directory of checkpoints, metrics and result")
    commit: str | None = None

    @model_validator(mode="after")
    def check(self) -> "Request":
        if self.recipe.tokens < self.step_tokens:
            raise ValueError(
                f"train.tokens {self.recipe.tokens:,} is less than one step of {self.step_tokens:,} tokens"
            )
        return self

    @property
    def step_tokens(self) -> int:
        return self.recipe.rows_per_step * self.row_tokens

    @property
    def steps(self) -> int:
        return self.recipe.tokens // self.step_tokens

    @property
    def domain_share(self) -> float:
        return sum(p.share for p in self.portions.values() if p.role == "domain")

    def identity(self) -> str:
        """Digest of what decides the numbers: paths and machine settings left out, contents kept by the caller."""
        content = self.model_dump(mode="json", exclude={"name", "out", "commit", "model"})
        content["model"] = Path(self.model).name
        for portion in content["portions"].values():
            portion["rows"] = "/".join(Path(portion["rows"]).parts[-2:])
        for machine in ("device", "threads", "checkpoints"):
            content["recipe"].pop(machine)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class Result(Record):
    """What a finished run leaves in `result.json`."""

    name: str
    model: str = Field(description="directory of the final checkpoint")
    steps: int
    tokens: int
    params_non_embedding: int
    seconds: float
    tokens_per_second: float
    observations: tuple[Observation, ...]
