"""Elastic weight consolidation (arXiv:1612.00796), the parent being the task to keep.

    loss + lambda/2 sum_i F_i (theta_i - parent_i)^2,    F_i: mean over general rows of the squared slope

Its gradient, lambda F (theta - parent), is added to each step's before clipping: that of a term of the loss, without a
graph, and once a step however the step is cut up. The reported loss is without it.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ratoon.training.checkpoint import trainable
from ratoon.training.method import Method, Step
from ratoon.training.methods.importance import fisher, general_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State
    from ratoon.training.methods import Setting


class Elastic(Method):
    name = "elastic"

    def __init__(self, setting: "Setting") -> None:
        self.recipe = setting.recipe.forgetting.elastic
        self.rows = general_rows(setting, self.recipe.rows, "train.forgetting.elastic.rows")
        self.parent = {name: p.detach().clone() for name, p in trainable(setting.model)}
        self.importance: dict[str, Tensor] = {}  # empty before the first step

    def begin(self, model: "PreTrainedModel", step: Step) -> None:
        if not self.importance:
            # Nothing has moved yet: a run that has brings its importance back.
            self.importance = fisher(model, self.rows, step.separator)

    @torch.no_grad()
    def after_gradients(self, state: "State") -> None:
        for name, parameter in trainable(state.model):
            if parameter.grad is not None:  # a weight that nothing reads stays where it is by itself
                pull = self.recipe.strength * self.importance[name] * (parameter - self.parent[name])
                parameter.grad.add_(pull)

    def tensors(self) -> dict[str, Tensor]:
        return self.importance

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.importance = {name: tensor.to(self.parent[name].device) for name, tensor in tensors.items()}
