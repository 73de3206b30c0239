"""Which loss is a spike, and which rows of a step broke it."""

import statistics
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from ratoon.config.faults import Spike
from ratoon.stream.mixture import Batch
from ratoon.training.loop import accumulate, boundary, new_step
from ratoon.training.ranks import ALONE, Ranks
from ratoon.training.shards import local

if TYPE_CHECKING:
    from ratoon.config import TrainConfig
    from ratoon.training.loop import State

LEAST = 1e-3  # of the median: losses closer to it than that are no spike, however alike the others are


class Spiked(RuntimeError):
    """The loss of the step that was just taken is a spike."""


class Watch:
    """Tells spikes from losses, by those before them alone.

        loss > median + deviations * max(1.4826 median |loss - median|, LEAST median)

    over the last `window` losses. 1.4826 makes the median distance the standard deviation of a normal distribution.
    """

    def __init__(self, rule: Spike | None, before: Iterable[float] = ()) -> None:
        self.rule = rule
        self.losses = deque(before, maxlen=rule.window if rule else 0)

    def see(self, loss: torch.Tensor | float) -> None:
        """Raises Spiked, and does not remember it, where `loss` is a spike."""
        if self.rule is None:
            return
        value = float(loss)
        if len(self.losses) == self.rule.window:
            median = statistics.median(self.losses)
            spread = 1.4826 * statistics.median(abs(x - median) for x in self.losses)
            allowed = median + self.rule.deviations * max(spread, LEAST * median)
            if value > allowed:
                raise Spiked(f"loss {value:.4f}, at most {allowed:.4f} after a median of {median:.4f}")
        self.losses.append(value)


def without(batch: Batch, rows: tuple[int, ...]) -> Batch:
    """`batch` but for some rows, by their place in it."""
    if not rows:
        return batch
    keep = np.ones(len(batch.tokens), bool)
    keep[list(rows)] = False
    return batch.some(keep)


def broken_rows(state: "State", batch: Batch, recipe: "TrainConfig", ranks: Ranks = ALONE) -> list[int]:
    """Rows whose own gradient is no number; all where that of none is: then it is their sum, or a method.

    batch  all rows of the step, also where ranks share it: each row is then tried by all
    """
    found = [row for row in range(len(batch.tokens)) if not ranks.all(has_gradient(state, batch, row, recipe))]
    return found or list(range(len(batch.tokens)))


def has_gradient(state: "State", batch: Batch, row: int, recipe: "TrainConfig") -> bool:
    one = batch.some(slice(row, row + 1))._replace(place=None, parts=1)
    step = new_step(one, boundary(recipe, state.separator), state.step)
    if step.predicted < 1:
        return True
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    accumulate(state.model, step, recipe)
    fine = all(bool(local(p.grad).isfinite().all()) for p in state.model.parameters() if p.grad is not None)
    state.optimizer.zero_grad(set_to_none=True)
    return fine


def weights_are_numbers(model: torch.nn.Module) -> bool:
    """Of what this rank has of them."""
    found = [local(p).isfinite().all() for p in model.parameters() if p.is_floating_point()]
    return bool(torch.stack(found).all())
