"""Distillation from a smaller or larger model; for the first part of a run alone it is SALT (arXiv:2410.18779).

    loss = (1 - w) CE + w t^2 KL(p_teacher || p),    p = softmax(logits / t), summed over the words

    w(n) = weight                         n < until
           weight (end - n) / (end - n')  down a line from n' = until to end
           0                              from end on: the plain loss to the bit, and the teacher's memory is given back

t^2 keeps the gradient's scale whatever the temperature (arXiv:1503.02531). The teacher speaks about every token with a
loss, also where other methods make the text itself count less.
"""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ratoon.config.loss import Distill
from ratoon.training.loop import IGNORE, forward, precision
from ratoon.training.method import Method, Part, Step
from ratoon.training.methods import divergence
from ratoon.training.methods.other_model import open_to_read

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.methods import Setting


class Weight(NamedTuple):
    """The teacher's part in the loss against step."""

    full: float
    until: int
    end: int

    def at(self, step: int) -> float:
        if step < self.until:
            return self.full
        return self.full * (self.end - step) / (self.end - self.until) if step < self.end else 0.0


def weight_of(config: Distill, steps: int) -> Weight:
    end = round((config.until_share + config.fade_share) * steps)
    return Weight(config.weight, round(config.until_share * steps), end)


class Distilled(Method):
    name = "distill"

    def __init__(self, path: Path, weight: Weight, temperature: float, setting: "Setting") -> None:
        self.path = path
        self.weight = weight
        self.temperature = temperature
        self.setting = setting
        self.teacher: PreTrainedModel | None = None

    def begin(self, model: "PreTrainedModel", step: Step) -> None:
        if self.rests(step):
            if self.teacher is not None:
                self.teacher = None
                gc.collect()  # models hold themselves in circles; their memory is wanted now
        elif self.teacher is None:
            # Not before it is asked: a run resumed after the teacher's time needs none.
            self.teacher = open_to_read(self.path, self.setting)

    def rests(self, step: Step) -> bool:
        return self.weight.at(step.number) == 0

    def weights(self, part: Part) -> Tensor | None:
        return torch.full(part.labels_BT.shape, 1 - self.weight.at(part.step.number), device=part.logits_BTV.device)

    def term(self, part: Part) -> Tensor | None:
        weight = self.weight.at(part.step.number)
        assert self.teacher is not None
        with torch.no_grad(), precision(self.setting.recipe, part.logits_BTV.device):
            teacher_BTV = forward(self.teacher, part.step, part.rows).logits_BTV
        apart_BT = divergence.full(teacher_BTV, part.logits_BTV, self.temperature)
        return weight * self.temperature**2 * (apart_BT * (part.labels_BT != IGNORE)).sum()
