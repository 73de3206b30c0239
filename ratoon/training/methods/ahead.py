"""Methods that must see the losses of a whole step before the first backward pass of it.

Where a step is one forward pass, its own losses are there in time. Where it is cut into parts, a pass without gradient
comes first, so that what a row or a token counts does not depend on how the step is cut: about a third more work.
Scores are plain losses, without noise and without dropout: a model that drops out is always looked at first.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ratoon.config import TrainConfig
from ratoon.training.loop import IGNORE, forward, parts, precision, token_losses
from ratoon.training.method import Method, Part, Step
from ratoon.training.model import drops_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The values of all ranks laid end to end along the first axis, and where those of this rank begin.
Gather = Callable[[Tensor], tuple[Tensor, int]]


def alone(values: Tensor) -> tuple[Tensor, int]:
    """The only rank there is."""
    return values, 0


class Scored(NamedTuple):
    """Losses of a step on this rank, without gradient."""

    losses_BT: Tensor  # float32 (B, T - 1), nats; 0 where there is no label
    labelled_BT: Tensor  # bool


class LooksAhead(Method):
    """Turns the losses of a step into what each of its tokens counts."""

    def __init__(self, recipe: TrainConfig, gather: Gather = alone) -> None:
        self.recipe = recipe
        self.gather = gather
        self.factors_BT: Tensor | None = None
        self.drops: bool | None = None  # whether the model drops out; None: not asked yet

    def weigh(self, step: Step, scored: Scored) -> Tensor:
        """(B, T - 1) factors; over all ranks those of labelled tokens have mean 1."""
        raise NotImplementedError

    def begin(self, model: "PreTrainedModel", step: Step) -> None:
        self.factors_BT = None
        if self.drops is None:
            self.drops = drops_out(model.config.to_dict()) is not None
        if not self.rests(step) and (self.drops or self.is_cut(step)):
            self.factors_BT = self.weigh(step, score(model, step, self.recipe))

    def weights(self, part: Part) -> Tensor | None:
        if self.factors_BT is None:
            self.factors_BT = self.weigh(part.step, scored_part(part))
        return self.factors_BT[part.rows]

    def is_cut(self, step: Step) -> bool:
        """Whether no single pass shows the plain losses of all rows."""
        count = len(step.batch.tokens)
        return rows_at_once(step, self.recipe) < count or self.recipe.loss.noise_alpha > 0


def rows_at_once(step: Step, recipe: TrainConfig) -> int:
    return (recipe.micro_rows or len(step.batch.tokens)) * step.batch.parts


@torch.no_grad()
def score(model: "PreTrainedModel", step: Step, recipe: TrainConfig) -> Scored:
    """What `model` loses on each token of a step, read as in evaluation."""
    trained = model.training
    model.eval()
    found = []
    try:
        for rows in parts(len(step.batch.tokens), rows_at_once(step, recipe)):
            with precision(recipe, next(model.parameters()).device):
                found.append(scored_part(forward(model, step, rows)))
    finally:
        model.train(trained)
    return Scored(torch.cat([one.losses_BT for one in found]), torch.cat([one.labelled_BT for one in found]))


@torch.no_grad()
def scored_part(part: Part) -> Scored:
    return Scored(token_losses(part, reduction="none").reshape(part.labels_BT.shape), part.labels_BT != IGNORE)
