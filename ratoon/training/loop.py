"""The loop. Everything that varies is passed in; it opens no file and knows no tracker."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from ratoon.config import TrainConfig
from ratoon.training.schedules import LearningRate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORE = -100
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]  # tokens (rows, row_tokens), valid lengths (rows,)


class Diverged(RuntimeError):
    """The gradient is no number any more."""


@dataclass
class State:
    model: "PreTrainedModel"
    optimizer: torch.optim.Optimizer
    step: int = 0


def new_state(model: "PreTrainedModel", recipe: TrainConfig) -> State:
    """AdamW; matrices decay, vectors (norms, biases) do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return State(model, torch.optim.AdamW(groups, lr=0.0, betas=(recipe.beta1, recipe.beta2), fused=True))


def advance(
    state: State,
    until: int,
    *,
    batch_at: Callable[[int], Batch],
    lr_at: LearningRate,
    recipe: TrainConfig,
    report: Callable[[int, dict[str, torch.Tensor | float]], None] | None = None,
) -> None:
    """Take updates until `state.step == until`. Update n reads batch_at(n) at lr_at(n), whatever came before."""
    state.model.train()
    while state.step < until:
        tokens, valid = batch_at(state.step)
        loss = accumulate(state.model, tokens, valid, recipe)
        norm = clip_grad_norm_(state.model.parameters(), recipe.max_norm)
        if not torch.isfinite(norm):  # the only wait for the GPU in a step
            raise Diverged(
                f"gradient norm is {norm.item()} at step {state.step}; weights were left as they were: "
                f"lower train.learning_rate, or look at the rows of this step"
            )
        rate = lr_at(state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if report:
            report(state.step, {"loss_nats": loss, "grad_norm": norm.detach(), "learning_rate": rate})


def accumulate(
    model: "PreTrainedModel", tokens: NDArray[np.int64], valid: NDArray[np.int64], recipe: TrainConfig
) -> torch.Tensor:
    """Gradients of the mean loss over every predicted token of the step, however the step is cut up.

    Returns that mean in nats per token, detached.
    """
    predicted = int(np.maximum(valid - 1, 0).sum())
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    for part in parts(len(tokens), recipe.micro_rows or len(tokens)):
        with precision(recipe, device):
            summed = summed_loss(model, tokens[part], valid[part])
        loss = summed / predicted
        loss.backward()
        total += loss.detach()
    return total


def parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def precision(recipe: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bf16 is autocast over float32 weights: pure bf16 weights stand still at small learning rates."""
    return torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bf16" else nullcontext()


def summed_loss(model: "PreTrainedModel", tokens: NDArray[np.int64], valid: NDArray[np.int64]) -> torch.Tensor:
    """Sum over a batch of the loss of each token given those before it in its row, in nats."""
    device = next(model.parameters()).device
    tokens_BT = torch.from_numpy(tokens).to(device, non_blocking=True)
    labels_BT = tokens_BT[:, 1:].clone()
    if (valid < tokens.shape[1]).any():
        position = torch.arange(1, tokens.shape[1], device=device)
        labels_BT[position >= torch.from_numpy(valid).to(device)[:, None]] = IGNORE
    # No cache object: with one, transformers builds another mask and remembers the batch.
    logits_BTV = model(input_ids=tokens_BT, use_cache=False).logits[:, :-1]
    return cross_entropy(
        logits_BTV.reshape(-1, logits_BTV.shape[-1]).float(),
        labels_BT.reshape(-1),
        ignore_index=IGNORE,
        reduction="sum",
    )


@torch.no_grad()
def mean_loss(model: "PreTrainedModel", batches: Iterator[Batch], recipe: TrainConfig) -> float | None:
    """Mean loss over every predicted token of `batches`, nats per token; None where there is none to predict."""
    model.eval()
    device = next(model.parameters()).device
    total, predicted = 0.0, 0
    for tokens, valid in batches:
        with precision(recipe, device):
            total += summed_loss(model, tokens, valid).double().item()
        predicted += int(np.maximum(valid - 1, 0).sum())
    return total / predicted if predicted else None
