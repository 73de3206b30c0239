"""A group of a sweep as it is asked for, and what a finished one has left: nothing here trains (group.py does)."""

from pathlib import Path

from pydantic import PositiveInt

from ratoon import records
from ratoon.config import Declared
from ratoon.config.faults import Faults
from ratoon.stream.rows import Rows
from ratoon.training.hopeless import Bound, Stopped
from ratoon.training.reading import limit_over, shares_over
from ratoon.training.request import Request
from ratoon.training.schedules import decay_start


class Group(Declared):
    """One size at one ratio; `request` is its longest run."""

    request: Request
    horizons: tuple[PositiveInt, ...]
    target_tokens: PositiveInt
    bound: Bound | None = None  # of hope: past it, longer horizons are left out
    separate: bool = False  # each horizon a run of its own, whatever the schedule


def limited(group: Group, horizon: int) -> dict[str, int]:
    """source -> rows to use in a run of `horizon` tokens, for sources the target will read more than once."""
    limits = {}
    shares = shares_over(group.request, group.target_tokens)
    for name, portion in group.request.portions.items():
        if shares[name] > 0:
            rows = Rows.open(Path(portion.rows), "train", group.request.row_tokens).num_rows
            part = limit_over(group.request, name, group.target_tokens)
            available = min(rows, part or rows)
            wanted = group.target_tokens * shares[name] / group.request.row_tokens
            if wanted > available:
                limits[name] = max(1, round(available * horizon / group.target_tokens))
    return limits


def group_tokens(group: Group) -> int:
    """Tokens the group will train on, branches included."""
    recipe, step = group.request.recipe, group.request.step_tokens
    if not branches(group):
        return sum(group.horizons)
    steps = [h // step for h in group.horizons]
    starts = [decay_start(recipe.schedule, s) for s in steps]
    return step * (max(starts) + sum(s - a for s, a in zip(steps, starts, strict=True)))


def tokens_run(group: Group) -> int:
    """The same of a finished group, which may have been stopped."""
    halted = stopped(group)
    if halted is None:
        return group_tokens(group)
    if halted.spent is not None:
        return halted.spent
    return group_tokens(group.model_copy(update={"horizons": tuple(h for h in group.horizons if h <= halted.tokens)}))


def branches(group: Group) -> bool:
    """Not where scarce text is repeated, nor where what is read follows the run's length.

    Raises ConfigError, from `decay_start`, for a schedule without a trunk.
    """
    follows = group.request.recipe.mixture.depends_on_length
    return not group.separate and not follows and not limited(group, max(group.horizons))


def table_of(group: Group) -> Path:
    """Where a finished group's observations are; its folder may hold those of other questions too.

    Not by the commit: as of a run's checkpoints, what decides the numbers is the request, and a commit of anything at
    all would have every finished group of an interrupted sweep run again. Each observation says of which it is.
    """
    recipe = group.request.recipe.essence()
    if (spike := group.request.recipe.faults.spike) is not None:  # it decides where a group ends
        recipe = recipe.model_copy(update={"faults": Faults(spike=spike)})
    request = group.request.model_copy(update={"recipe": recipe, "commit": None})
    return Path(request.out) / f"observations-{group.model_copy(update={'request': request}).digest()}.csv"


def stopped(group: Group) -> Stopped | None:
    path = table_of(group).with_suffix(".stopped.json")
    return records.read(path, Stopped) if path.exists() else None
