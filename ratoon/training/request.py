"""What a training process is asked to do, resolved to paths and numbers, and what it answers."""

import hashlib
import json
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ratoon import records
from ratoon.config import Declared, Role, Share, TrainConfig
from ratoon.config.train import MACHINE
from ratoon.records import Observation, Record
from ratoon.training.dip import Dip
from ratoon.training.faults import Fault

# Left at its default, such a section changes nothing, now or later: what it may hold is no part of a run's identity,
# and a checkpoint made before an option was thought of is still its run's.
NEUTRAL = (
    "attention",
    "mixture",
    "loss",
    "forgetting",
    "optimizer",
    "adapter",
    "early_evaluations",
    "early_share",
    "subset_epochs",
)


class Portion(Declared):
    """One source in the mixture, or one that is only evaluated (share 0)."""

    rows: str = Field(description="directory of packed rows")
    role: Role
    share: Share
    limit_rows: PositiveInt | None = Field(None, description="rows to use; none: all")


class Trunk(Declared):
    """Where a run's constant rate ended: what the next may go on from in place of the annealed model."""

    folder: str = Field(description="checkpoint with the optimizer's state")
    hash: str = Field(description="of its weights and optimizer's state")
    learning_rate: PositiveFloat = Field(description="it was left at")
    peak: PositiveFloat = Field(description="train.learning_rate of the run that began the trunk")
    step: PositiveInt
    parent: str | None = Field(None, description="hash of the trunk that it continued; none: it began here")
    memory: str | None = Field(None, description="whose the optimizer's state is, in words; none: it was not recorded")


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
    trunk: Trunk | None = Field(None, description="to begin with, in place of `model`, which stays the parent")
    # Left out for a base: such a request is what it was before lines were read on.
    continues: int | None = Field(
        None,
        description="version that is continued: what follows on it reads in an order of its own",
        exclude_if=lambda version: version is None,
    )

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

    @property
    def grace_seconds(self) -> float:
        return self.recipe.faults.grace_seconds

    def identity(self) -> str:
        """Digest of what decides the numbers: paths and machine settings left out, contents kept by the caller."""
        recipe = self.recipe.essence()
        content = self.model_dump(mode="json", exclude={"name", "out", "commit", "model", "recipe"})
        content["recipe"] = recipe.model_dump(mode="json")
        content["model"] = Path(self.model).name
        content.pop("trunk")
        if self.trunk is not None:
            content["trunk"] = self.trunk.hash
        for portion in content["portions"].values():
            portion["rows"] = "/".join(Path(portion["rows"]).parts[-2:])
        for machine in (*MACHINE, "trunk"):
            content["recipe"].pop(machine, None)
        content["recipe"]["loss"] = recipe.loss.content()
        content["recipe"]["micro_rows"] = None  # kept for the digest's sake: it was there before the others
        for section in NEUTRAL:
            if getattr(recipe, section) == TrainConfig.model_fields[section].default:
                content["recipe"].pop(section)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class SourceRead(Record):
    """What a run read of one source, and what repeats were worth (arXiv:2305.16264)."""

    tokens: int
    unique_tokens: int
    epochs: float
    effective_tokens: float = Field(description="fresh tokens that would have been worth as much")
    # Left out where there are none: such a record is what it was before prefixes could be read.
    prefix_tokens: int = Field(0, description="beside them, read without a loss", exclude_if=lambda number: number == 0)


class Result(Record):
    """What a finished run leaves in `result.json`."""

    name: str
    model: str = Field(description="directory of the final checkpoint")
    steps: int
    tokens: int
    params_non_embedding: int
    seconds: float = Field(description="of all tries, each to its last sign of life; what was done twice counts twice")
    tokens_per_second: float = Field(description="of the try that ended it")
    observations: tuple[Observation, ...]
    data: dict[str, SourceRead] = Field(default_factory=dict, description="source -> what was read of it")
    trunk: Trunk | None = Field(None, description="kept where the decay began; none: the schedule has no such place")
    dips: tuple[Dip, ...] = Field((), description="the stability gap of each role, as its evaluations saw it")
    faults: tuple[Fault, ...] = Field((), description="what broke on the way, and what was done about it")


def ended(run: Path) -> Result | None:
    """What the run in this folder ended with. None: it has not ended, or its weights are gone since, as `ratoon gc`
    lets them go: then there is nothing to go on from."""
    if not (run / "result.json").exists():
        return None
    found = records.read(run / "result.json", Result)
    return found if Path(found.model).is_dir() else None
