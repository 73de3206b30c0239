"""Between the parent and what became of it (WiSE-FT, arXiv:2109.01903).

    after training: theta = parent + w (theta - parent)

w = 0 is the parent again, w = 1 the trained weights, both to the bit. Training itself is the plain one.
"""

from typing import TYPE_CHECKING

import torch

from ratoon.training.checkpoint import trainable
from ratoon.training.method import Method
from ratoon.training.methods.other_model import open_to_read

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.methods import Setting


class Interpolation(Method):
    name = "interpolation"

    def __init__(self, weight: float, setting: "Setting") -> None:
        self.weight = weight
        self.setting = setting

    @torch.no_grad()
    def finish(self, model: "PreTrainedModel") -> None:
        # Read again rather than held all along: it is asked for once.
        parent = dict(open_to_read(self.setting.parent, self.setting).named_parameters())
        for name, parameter in trainable(model):
            parameter.copy_(torch.lerp(parent[name].to(parameter.dtype), parameter, self.weight))
