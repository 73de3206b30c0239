"""Reptile beside replay: meta-experience replay (arXiv:2508.01908).

    after every k-th update:  theta = anchor + epsilon (theta - anchor);  anchor = theta

The anchor begins as the parent. Replay, the other half, is the mixture's general share: it takes the place of new text
and adds no rows. Silent about the optimizer's moments: they stay, as in the authors' code.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ratoon.config.forgetting import Anchor as Recipe
from ratoon.training.checkpoint import trainable
from ratoon.training.method import Method
from ratoon.training.optimizers.rounding import Chance, write_all

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State

SEED = -1  # not the optimizer's: its noise and this one's have nothing in common


class Anchor(Method):
    """model  with the parent's weights"""

    name = "anchor"

    def __init__(self, recipe: Recipe, model: "PreTrainedModel") -> None:
        self.recipe = recipe
        self.anchor = {name: p.detach().clone() for name, p in trainable(model)}

    @torch.no_grad()
    def after_update(self, state: "State") -> None:
        if (state.step + 1) % self.recipe.every:
            return
        for place, (name, parameter) in enumerate(trainable(state.model)):
            # In place: the optimizer goes on from these very tensors. lerp is exact at both ends.
            kept = torch.lerp(self.anchor[name].float(), parameter.float(), self.recipe.epsilon)
            write_all(parameter, kept, Chance.of(SEED, place, state.step))
            self.anchor[name].copy_(parameter)

    def tensors(self) -> dict[str, Tensor]:
        return self.anchor

    def restore(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self.anchor[name].copy_(tensor)
