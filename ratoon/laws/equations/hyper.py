"""Published rules for the learning rate and the batch. Functions of counts, nothing is fitted here.

    Step Law         eta = 1.79 N^-0.713 D^0.307,  batch = 0.58 D^0.571          (arXiv:2503.04715)
    Power scheduler  eta(n) = min(eta_max, batch 4 n^-0.51), and its proxy fit batch 4.6 T^-0.51  (2408.13359)
    MiniCPM          batch = 1.21e9 / L^6.24                                     (2404.06395)

N  parameters, embeddings excluded     n, T  tokens seen so far, and in all     L  C4 loss, nats per token
D  tokens of the whole run             batch  tokens per step; in the Power scheduler, sequences of 4096 tokens

All come from runs from scratch. A continued run starts near a minimum and keeps what it knows by small steps, so
take the learning rates as upper bounds. The Power scheduler and MiniCPM assume muP; Step Law does not.
"""

import numpy as np
from numpy.typing import ArrayLike

from ratoon.laws.form import Array

STEP_ETA = 1.79
STEP_ETA_PARAMS = -0.713
STEP_ETA_TOKENS = 0.307
STEP_BATCH = 0.58
STEP_BATCH_TOKENS = 0.571
# Ranges of the exponents over the source's 1000 bootstraps. The factors move with them, so a range of eta or of the
# batch cannot be had by putting these into the formula.
STEP_ETA_PARAMS_RANGE = (-0.824, -0.631)
STEP_ETA_TOKENS_RANGE = (0.246, 0.361)
STEP_BATCH_TOKENS_RANGE = (0.518, 0.630)

POWER = 4.0  # a, of the scheduler
POWER_PROXY = 4.6  # of the best constant rate in the source's proxy runs
POWER_TOKENS = -0.51
POWER_PEAK = 0.02
POWER_SEQUENCE = 4096  # tokens of one sequence, the scheduler's unit of batch

MINICPM_BATCH = 1.21e9
MINICPM_LOSS = -6.24


def step_learning_rate(params_non_embedding: ArrayLike, tokens: ArrayLike) -> Array:
    """Step Law: peak learning rate of a run that decays to 1e-5; an upper bound for a continued one."""
    params = np.power(np.asarray(params_non_embedding, dtype=float), STEP_ETA_PARAMS)
    return np.asarray(STEP_ETA * params * np.power(np.asarray(tokens, dtype=float), STEP_ETA_TOKENS))


def step_batch_tokens(tokens: ArrayLike) -> Array:
    """Step Law: tokens per step. The same at every size."""
    return np.asarray(STEP_BATCH * np.power(np.asarray(tokens, dtype=float), STEP_BATCH_TOKENS))


def power_learning_rate(tokens_seen: ArrayLike, tokens_per_step: ArrayLike, peak: float = POWER_PEAK) -> Array:
    """Power scheduler: learning rate after `tokens_seen`, between the warm-up and the final decay, which come on
    top. It does not ask how long the run will be."""
    return np.asarray(np.minimum(peak, POWER * _power_of_tokens(tokens_seen, tokens_per_step)))


def power_proxy_learning_rate(tokens: ArrayLike, tokens_per_step: ArrayLike) -> Array:
    """The fit behind the Power scheduler: the best constant rate of a run of `tokens` in all. Its factor is 4.6,
    the scheduler's is 4."""
    return np.asarray(POWER_PROXY * _power_of_tokens(tokens, tokens_per_step))


def minicpm_batch_tokens(loss_nats: ArrayLike) -> Array:
    """MiniCPM: tokens per step at the loss that is to be reached, C4 loss with the source's tokeniser."""
    return np.asarray(MINICPM_BATCH * np.power(np.asarray(loss_nats, dtype=float), MINICPM_LOSS))


def _power_of_tokens(tokens: ArrayLike, tokens_per_step: ArrayLike) -> Array:
    sequences = np.asarray(tokens_per_step, dtype=float) / POWER_SEQUENCE
    with np.errstate(divide="ignore"):  # at 0 tokens the peak rules
        return np.asarray(sequences * np.power(np.asarray(tokens, dtype=float), POWER_TOKENS))
