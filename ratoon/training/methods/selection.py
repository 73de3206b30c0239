"""Token selection against a reference model: Rho-1 (arXiv:2404.07965).

    s_i = l_i(theta) - l_i(reference)
    loss = sum of l_i over the K tokens with the highest s_i / K,    K = ceil(keep x tokens of the step, all ranks)

What the reference finds hard too is noise, what the model has already is learned: both are left out. Ties go to the
earlier token of the step. Silent about the reference's own taste: it must have read text like the one that is wanted.
"""

import math

import torch
from torch import Tensor

from ratoon.config import TrainConfig
from ratoon.training.method import Step
from ratoon.training.methods.ahead import Gather, LooksAhead, Scored, alone
from ratoon.training.methods.reference import Reference


def kept(scores_N: Tensor, number: int) -> Tensor:
    """bool (N,): the `number` highest, the first of equal ones. -inf  never to be kept"""
    order_N = torch.sort(scores_N, descending=True, stable=True).indices
    chosen_N = torch.zeros_like(scores_N, dtype=torch.bool)
    chosen_N[order_N[:number]] = True
    return chosen_N


class Selected(LooksAhead):
    name = "select"

    def __init__(self, recipe: TrainConfig, keep: float, reference: Reference, gather: Gather = alone) -> None:
        super().__init__(recipe, gather)
        self.keep = keep
        self.reference = reference

    def weigh(self, step: Step, scored: Scored) -> Tensor:
        scores_BT = scored.losses_BT - self.reference.losses(step)
        own_N = scores_BT.masked_fill(~scored.labelled_BT, -math.inf).reshape(-1)
        all_N, first = self.gather(own_N)
        number = math.ceil(self.keep * step.predicted - 1e-9)  # 0.07 * 100 is 7.000000000000001 in binary
        chosen_N = kept(all_N, number)[first : first + len(own_N)]
        # The loop divides by all tokens of the step; what is kept is to be divided by its own number.
        return chosen_N.reshape(scores_BT.shape) * (step.predicted / number)
