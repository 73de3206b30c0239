"""How far the model's next words are from the parent's: nats per place, KL(parent || model).

    full   sum over all words of p ln(p / q)
    rest   sum over the parent's k likeliest of p ln(p / q), and over all others taken as one word

p of the parent, q of the model, both softmax(logits / temperature). Taking words together never makes KL larger, so
`rest` is at most `full`; it is 0, with slope 0, where the model is the parent. Scaling the k to sum to 1 in place of a
rest would be neither: with p scaled alone the parent itself is pulled towards its k likeliest words, with q scaled too
the model may move any mass to the others unseen.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


class Top(NamedTuple):
    """What is kept of the parent's distribution. N places, K words."""

    words_NK: Tensor  # int64
    logs_NL: Tensor  # float32 (N, K + 1), log-probability of each and, last, of all others


def top_of(logits_NV: Tensor, k: int, temperature: float) -> Top:
    """k  below V: there is always a rest"""
    logs_NV = log_softmax(logits_NV.float() / temperature, -1)
    logs_NK, words_NK = logs_NV.topk(k, -1)
    return Top(words_NK, torch.cat([logs_NK, rest_of(logs_NV, words_NK)], -1))


def rest_of(logs_NV: Tensor, words_NK: Tensor) -> Tensor:
    """(N, 1): log-probability of all words but these. Not ln(1 - sum), which has no digit left where the sum is 1."""
    return logs_NV.scatter(-1, words_NK, -torch.inf).logsumexp(-1, keepdim=True)


def full(parent_NV: Tensor, logits_NV: Tensor, temperature: float) -> Tensor:
    """(N,)"""
    p_NV, q_NV = (log_softmax(found.float() / temperature, -1) for found in (parent_NV, logits_NV))
    return kl_div(q_NV, p_NV, reduction="none", log_target=True).sum(-1)


def rest(parent: Top, logits_NV: Tensor, temperature: float) -> Tensor:
    """(N,)"""
    logs_NV = log_softmax(logits_NV.float() / temperature, -1)
    q_NL = torch.cat([logs_NV.gather(-1, parent.words_NK), rest_of(logs_NV, parent.words_NK)], -1)
    return kl_div(q_NL, parent.logs_NL, reduction="none", log_target=True).sum(-1)
