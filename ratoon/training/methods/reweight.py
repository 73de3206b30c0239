"""Rows count by their loss (arXiv:2502.06733): easy ones less, or the middle more, or it less.

    h_i = delta (2 l_i - l_max - l_min) / (l_max - l_min)       in [-delta, delta]; 0 where all losses are equal
    f_i = min(h_i + delta, delta)  linear_upper | 1 - h_i^2 / delta^2  quadratic | |h_i|  extremes
    w_i = softmax(f_i / r)                                      r  temperature
    loss = sum_i w_i n_i l_i / sum_i w_i n_i

l_i  mean loss of row i in nats per token, of n_i tokens; i runs over the rows of the step, on all ranks.

The published sum is over rows of one length, where n_i cancels. With it rows of different lengths keep the rule of the
house at infinite r: the mean over tokens, not a mean of means. Silent about which rows are noise: those count most.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from ratoon.config import TrainConfig
from ratoon.config.loss import Reweight
from ratoon.training.method import Step
from ratoon.training.methods.ahead import Gather, LooksAhead, Scored, alone

Form = Literal["linear_upper", "quadratic", "extremes"]


def preference(losses_N: Tensor, read_N: Tensor, form: Form, delta: float) -> Tensor:
    """f of each row among those that were read."""
    low = losses_N.masked_fill(~read_N, math.inf).min()
    high = losses_N.masked_fill(~read_N, -math.inf).max()
    spread = high - low
    # Equal losses, or a single row: no row is above another, and 0 / 0 is none either.
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    h_N = delta * (2 * losses_N - high - low) / safe
    if form == "linear_upper":
        return (h_N + delta).clamp(max=delta)
    if form == "quadratic":
        return 1 - h_N**2 / delta**2
    return h_N.abs()


def row_factors(losses_N: Tensor, tokens_N: Tensor, config: Reweight) -> Tensor:
    """What each token of a row counts, of mean 1 over tokens. losses_N  mean of each row over its tokens_N.

    A row without a token to predict, whose mean is no loss, says nothing about the others.
    """
    read_N = tokens_N > 0
    f_N = preference(losses_N, read_N, config.form, config.delta)
    share_N = torch.softmax((f_N / config.temperature).masked_fill(~read_N, -math.inf), 0)
    return share_N * (tokens_N.sum() / (share_N * tokens_N).sum())


class Reweighted(LooksAhead):
    name = "reweight"

    def __init__(self, recipe: TrainConfig, config: Reweight, gather: Gather = alone) -> None:
        super().__init__(recipe, gather)
        self.config = config

    def rests(self, step: Step) -> bool:
        return step.number < self.config.burn_in_steps

    def weigh(self, step: Step, scored: Scored) -> Tensor:
        own_N2 = torch.stack([scored.losses_BT.sum(1), scored.labelled_BT.sum(1).float()], 1)
        all_N2, first = self.gather(own_N2)
        summed_N, tokens_N = all_N2.unbind(1)
        factors_N = row_factors(summed_N / tokens_N.clamp(min=1), tokens_N, self.config)
        return factors_N[first : first + len(own_N2), None].expand_as(scored.losses_BT)
