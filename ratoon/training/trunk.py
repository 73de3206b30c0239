"""The stable trunk of a run: kept where its decay starts, and gone on with by the next.

What is released is annealed and has no way on at the old rate. The trunk has: its weights, its optimizer's moments,
and the constant rate it was left at. A run that continues it takes all three, warms nothing up, and is itself an
annealed branch that leaves a longer trunk. Rows are those of the new mixture from its first position on; what methods
remember begins anew from the trunk's weights.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon import records
from ratoon.config import ConfigError, Schedule, TrainConfig
from ratoon.config.schedule import Anneal, Constant, Infinite, Tailed, Wsd, WsdS
from ratoon.lm.load import check_weights
from ratoon.records import Observation
from ratoon.training.request import Request, Result, Trunk
from ratoon.training.schedules import decay_start, learning_rate

if TYPE_CHECKING:
    from ratoon.training.run import Run

Kept = Wsd | WsdS | Infinite | Anneal | Constant  # rates that are constant before they fall


def keep_at(request: Request) -> int | None:
    """The step at which this run's trunk is kept; None: it has none, or is not to keep it."""
    recipe, kind = request.recipe, request.recipe.schedule.root
    if recipe.trunk == "none" or not isinstance(kind, Kept) or kind.no_trunk or recipe.loss.no_trunk:
        return None
    if recipe.adapter is not None:  # what is continued is a model, and the addition is no model yet
        return None
    start = decay_start(recipe.schedule, request.steps)
    return start if start > kind.warmup_steps else None


def keep(run: "Run", folder: Path) -> Trunk:
    """The run's state as its trunk in `folder`, and what the next needs to know of it."""
    from ratoon.training import checkpoint

    request, state = run.request, run.state
    tokens = state.step * request.step_tokens
    checkpoint.save(state, folder, tokenizer=Path(request.model), identity=request.identity(), tokens=tokens)
    saved = checkpoint.whole(folder)[-1]
    rate = learning_rate(request.recipe.schedule, request.recipe.learning_rate, request.steps, request.step_tokens)
    found = Trunk(
        folder=str(saved),
        hash=digest(saved),
        learning_rate=rate(state.step - 1),
        peak=request.trunk.peak if request.trunk else request.recipe.learning_rate,
        step=state.step,
        parent=request.trunk.hash if request.trunk else None,
        memory=memory_of(request.recipe),
    )
    if run.ranks.first:
        records.write(folder / "trunk.json", found)
    return found


def kept_in(folder: Path) -> Trunk | None:
    path = folder / "trunk.json"
    return records.read(path, Trunk) if path.exists() else None


def memory_of(recipe: TrainConfig) -> str:
    """What decides the shape of an optimizer's state: of another it can make nothing."""
    from ratoon.training.optimizers import is_pure, kept_as

    asked = recipe.optimizer
    name = f"galore of rank {asked.galore.rank}" if asked.name == "galore" else asked.name
    return f"{name}, moments in {kept_as(recipe)}, precision {'bf16_pure' if is_pure(recipe) else 'fp32 or bf16'}"


def digest(folder: Path) -> str:
    """Twelve hex digits of the weights and the optimizer's state."""
    found = hashlib.sha256()
    for file in [*sorted(folder.glob("*.safetensors")), folder / "state" / "optimizer.safetensors"]:
        found.update(file.name.encode())
        with file.open("rb") as handle:
            while piece := handle.read(1 << 20):
                found.update(piece)
    return found.hexdigest()[:12]


def trunk_of(model: Path) -> Trunk | None:
    """The trunk that was kept by the run which released `model`; None: no run did, or it kept none."""
    for folder in model.parents:
        if (folder / "result.json").exists() and (folder / "request.json").exists():
            return records.read(folder / "result.json", Result).trunk
    return None


def go_on(recipe: TrainConfig, trunk: Trunk) -> TrainConfig:
    """The recipe of a run that continues `trunk`: its rate from the first update on, and the same way down.

    Raises ConfigError where the recipe asks for another rate or optimizer, or a schedule that cannot be gone on with.
    """
    kind = recipe.schedule.root
    if recipe.learning_rate != trunk.peak:
        raise ConfigError(
            f"train.learning_rate: {recipe.learning_rate:g}, and the trunk in {trunk.folder} was trained at "
            f"{trunk.peak:g}, the rate it goes on at; give that, or train.trunk: keep to begin a new one"
        )
    if trunk.memory not in (None, memory_of(recipe)):
        raise ConfigError(
            f"train.optimizer: {memory_of(recipe)}; what the trunk in {trunk.folder} remembers is of {trunk.memory}; "
            f"give that, or train.trunk: keep to begin a new one"
        )
    if isinstance(kind, Constant):
        schedule = Schedule.model_validate({"name": "constant", "warmup_steps": 0})
    elif isinstance(kind, Infinite):
        anneal = {"tail": "exponential", "floor": kind.floor / kind.level, "decay_share": kind.decay_share}
        schedule = Schedule.model_validate({"name": "anneal", **anneal})
    elif isinstance(kind, Tailed) and isinstance(kind, Kept) and not kind.no_trunk:
        anneal = {"tail": kind.tail, "floor": kind.floor, "decay_share": kind.decay_share}
        schedule = Schedule.model_validate({"name": "anneal", **anneal})
    else:
        raise ConfigError(
            f"train.trunk: continue: {kind.name} has no constant rate to go on at; take wsd, infinite or constant, or "
            f"train.trunk: keep"
        )
    return recipe.model_copy(update={"schedule": schedule, "learning_rate": trunk.learning_rate})


def beginning(request: Request) -> Path:
    """The directory whose weights the run begins with. Raises ConfigError for a trunk that is not the one named."""
    if request.trunk is None:
        return Path(request.model)
    from ratoon.training import checkpoint

    folder = Path(request.trunk.folder)
    if not checkpoint.is_whole(folder):
        raise ConfigError(f"{folder}: the trunk to be continued is gone or cut short; set train.trunk: keep")
    check_weights(folder)
    if (found := digest(folder)) != request.trunk.hash:
        raise ConfigError(
            f"{folder}: this trunk is {found}, the parent's record says {request.trunk.hash}: it was changed since; "
            f"bring the one that was kept, or set train.trunk: keep"
        )
    if request.recipe.adapter is not None:
        raise ConfigError("train.trunk: continue: an adapter trains an addition, not the trunk; leave one of them out")
    return folder


def take_up(run: "Run") -> None:
    """The optimizer's moments of the trunk whose weights the run began with."""
    if run.request.trunk is not None:
        from safetensors.torch import load_file

        from ratoon.training import checkpoint

        path = Path(run.request.trunk.folder) / "state" / "optimizer.safetensors"
        tensors = {key: value for key, value in load_file(path).items() if "/" in key}  # without the random state
        checkpoint.restore_optimizer(run.state, tensors)


def evaluate_parent(run: "Run", *, name: str, group: str) -> list[Observation]:
    """The rows of 0 tokens: always of the parent as it was released, which is what every loss is held against."""
    if run.request.trunk is None:
        return run.evaluate(run=name, group=group, finished=False)
    from ratoon.training import checkpoint

    begun = {key: value.clone() for key, value in run.model.state_dict().items()}
    checkpoint.load_weights(run.model, Path(run.request.model))
    found = run.evaluate(run=name, group=group, finished=False)
    run.model.load_state_dict(begun)
    return found
