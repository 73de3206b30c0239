"""A run like the target's but for one thing: what the candidate is held against."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ratoon import records
from ratoon.config import ConfigError, TrainConfig
from ratoon.config.arms import Seeded, Trained
from ratoon.config.forgetting import Forgetting
from ratoon.lm.fresh import forget
from ratoon.training.request import Request, ended

SHARES = {"domain_only": 1.0, "replay_only": 0.0}  # of the domain; of the other arms the target's own


def control(name: str, asked: Trained, target: Request, recipe: TrainConfig, folder: Path) -> Request:
    """The request of an arm, in `folder`.

    target  what the candidate was asked, at the arm's share
    recipe  that of params.yaml, for weights that have no trunk to go on from
    """
    changes: dict[str, Any] = {"trunk": "none"}  # nothing goes on from an arm
    if asked.tokens != "same":
        changes["tokens"] = asked.tokens
    moved: dict[str, Any] = {"name": f"{target.name}-{name}", "out": str(folder / "train")}
    used = target.recipe
    if name in SHARES:  # phases have shares of their own
        changes["mixture"] = used.mixture.model_copy(update={"phases": ()}).model_dump()
    if isinstance(asked, Seeded) and name == "second_seed":
        if asked.seed == used.seed:  # it would be the candidate itself, and noise nothing
            raise ConfigError(
                f"params.yaml: arms.second_seed.seed: {asked.seed}, and the candidate was trained with train.seed "
                f"{used.seed}; give another"
            )
        changes["seed"] = asked.seed
    elif isinstance(asked, Seeded):
        # What holds a model near its parent, or adds to it, has nothing to hold or to add to.
        changes |= {"forgetting": Forgetting().model_dump(), "adapter": None}
        used = recipe if target.trunk else used
        moved |= {"model": str(forget(Path(target.model), asked.seed, folder / f"init-{asked.seed}")), "trunk": None}
    return Request.model_validate({**target.model_dump(), **moved, "recipe": {**used.model_dump(), **changes}})


def same_request(request: Request, folders: Iterable[Path]) -> Path | None:
    """Of these finished runs one that was asked the same of the same weights. Equal requests give equal weights."""
    for folder in folders:
        if (folder / "request.json").exists() and ended(folder):
            other = records.read(folder / "request.json", Request)
            if other.identity() == request.identity() and other.model == request.model:
                return folder
    return None
