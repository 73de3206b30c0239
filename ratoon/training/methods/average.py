"""An exponential moving average of the weights (arXiv:2506.00288), released in place of the last ones.

    first update: average = theta;  then every k-th: average = decay average + (1 - decay) theta

Training never sees the average. One that feeds back is the anchor with epsilon = 1 - decay: anchor.py.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ratoon.config.forgetting import Average as Recipe
from ratoon.training.checkpoint import trainable
from ratoon.training.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State


class Average(Method):
    name = "average"

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.average: dict[str, Tensor] = {}  # float32; empty before the first update

    @torch.no_grad()
    def after_update(self, state: "State") -> None:
        done = state.step + 1
        if done <= self.recipe.start or (done - self.recipe.start - 1) % self.recipe.every:
            return
        for name, parameter in trainable(state.model):
            if name in self.average:
                average = self.average[name].to(parameter.device)  # a checkpoint brings it on the CPU
                self.average[name] = average.lerp_(parameter.float(), 1 - self.recipe.decay)
            else:
                self.average[name] = parameter.detach().float().clone()

    @torch.no_grad()
    def finish(self, model: "PreTrainedModel") -> None:
        """Weights that were never averaged, in a run that ends before `start`, stay as they are."""
        for name, parameter in trainable(model):
            if name in self.average:
                parameter.copy_(self.average[name])

    def tensors(self) -> dict[str, Tensor]:
        return self.average

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.average = {name: tensor.clone() for name, tensor in tensors.items()}
