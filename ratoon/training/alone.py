"""A run of a sweep by itself: a company of one, with its state in memory where a branch comes back to it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ratoon.lm.adapters import is_adapted, load_adapter
from ratoon.training.checkpoint import (
    method_tensors,
    model_tensors,
    random_state,
    restore_methods,
    set_random_state,
)
from ratoon.training.loop import Diverged, State
from ratoon.training.rollback import Spiked
from ratoon.training.run import Run


@dataclass(frozen=True)
class Snapshot:
    """A run's state in memory, for a branch to come back to."""

    step: int
    weights: dict[str, Any]
    optimizer: dict[str, Any]
    methods: dict[str, Any]
    random: dict[str, Any]  # dropout's


def snapshot(state: State) -> Snapshot:
    weights, optimizer = copy.deepcopy(model_tensors(state.model)), copy.deepcopy(state.optimizer.state_dict())
    return Snapshot(state.step, weights, optimizer, method_tensors(state), random_state(state.model.device))


def put_back(state: State, kept: Snapshot) -> None:
    state.step = kept.step
    if is_adapted(state.model):  # weights in 4 bits would not load
        load_adapter(state.model, kept.weights)
    else:
        state.model.load_state_dict(kept.weights)
    state.optimizer.load_state_dict(kept.optimizer)
    restore_methods(state, kept.methods)
    set_random_state(state.model.device, dict(kept.random))


class Alone:
    """A run by itself."""

    def __init__(self, run: Run) -> None:
        self.runs = (run,)
        self.broken: dict[int, str] = {}

    def advance(self, until: int, steps: int, reports: Sequence[Callable[..., None]]) -> None:
        try:
            self.runs[0].advance(until, steps, reports[0])
        except (Diverged, Spiked) as error:
            self.broken[0] = str(error)

    def snapshot(self) -> Snapshot:
        return snapshot(self.runs[0].state)

    def put_back(self, kept: Snapshot) -> None:
        put_back(self.runs[0].state, kept)
