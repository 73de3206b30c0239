"""What models lost before they were trained: a table's rows at 0 tokens.

A parent is compared with runs through the mean loss over the sources of a role, so it must have been measured on every
source that its runs were: a mean over fewer is another quantity.
"""

import math
from collections.abc import Iterable, Sequence
from typing import get_args

from ratoon.config import ConfigError, Role
from ratoon.records import Observation

SAME = 1.02  # sizes, or lengths, within this factor are one


def same_size(one: float, other: float) -> bool:
    return abs(math.log(one / other)) <= math.log(SAME)


def starts(observations: Sequence[Observation]) -> dict[Role, dict[float, float]]:
    """Mean losses of rows at 0 tokens, for the sizes that were measured then on every source of the role."""
    return {role: _whole(observations, role) for role in get_args(Role)}


def own_start(observations: Sequence[Observation], params: float, role: Role) -> float | None:
    """That of the model nearest to `params`; None: none of its size was measured on every source of the role."""
    known = _whole(observations, role)
    own = _nearest(known, params)
    return None if own is None else known[own]


def parent_losses(
    observations: Iterable[Observation], params_non_embedding: int, roles: Sequence[Role] = ("general", "domain")
) -> dict[Role, float]:
    """Mean held-out loss per role of the model of that size before training.

    Raises ConfigError where the table has none of one of the `roles`, or not on every source that its runs have.
    """
    rows = list(observations)
    return {role: _parent(rows, params_non_embedding, role) for role in roles}


def _parent(observations: Sequence[Observation], params: float, role: Role) -> float:
    measured, sources = _measured(observations, role), _sources(observations, role)
    own = _nearest(measured, params)
    if own is None:
        raise ConfigError(
            f"the table has no {role} loss of the parent ({params:,} parameters at 0 tokens); "
            f"add a row with tokens 0, or pass --parent-{role}"
        )
    if missing := sorted(sources - set(measured[own])):
        raise ConfigError(
            f"the parent ({own:,.0f} parameters at 0 tokens) has no {role} loss on {', '.join(missing)}, and its runs "
            f"have: their {role} loss is the mean over {', '.join(sorted(sources))}. Measure the parent there too, "
            f"pass that mean as --parent-{role}, or leave {', '.join(missing)} out of the runs"
        )
    return _mean_over(measured[own], sources)


def _whole(observations: Sequence[Observation], role: Role) -> dict[float, float]:
    sources = _sources(observations, role)
    measured = _measured(observations, role)
    return {params: _mean_over(losses, sources) for params, losses in measured.items() if sources <= set(losses)}


def _sources(observations: Sequence[Observation], role: Role) -> set[str]:
    """On which finished runs were measured."""
    trained = (x for x in observations if x.role == role and x.finished and x.tokens > 0)
    return {x.evaluated for x in trained if x.loss_nats is not None}


def _measured(observations: Sequence[Observation], role: Role) -> dict[float, dict[str, float]]:
    """Parameters -> source -> mean of the losses at 0 tokens: a table may have such a row per run."""
    found: dict[float, dict[str, list[float]]] = {}
    for x in observations:
        if x.role == role and x.tokens == 0 and x.loss_nats is not None:
            found.setdefault(float(x.params_non_embedding), {}).setdefault(x.evaluated, []).append(x.loss_nats)
    return {params: {source: _mean(each) for source, each in losses.items()} for params, losses in found.items()}


def _mean(values: Sequence[float]) -> float:
    """To the last digit that of one value where all are equal."""
    first = values[0]
    return first + sum(value - first for value in values) / len(values)


def _mean_over(losses: dict[str, float], sources: set[str]) -> float:
    """Over the sources of the runs; over all where no run has finished."""
    found = [loss for source, loss in losses.items() if source in sources or not sources]
    return sum(found) / len(found)


def _nearest(sizes: Iterable[float], params: float) -> float | None:
    near = [size for size in sizes if same_size(size, params)]
    return min(near, key=lambda size: abs(math.log(size / params)), default=None)
