"""Loss of a language model's head without ever holding all its logits.

At small widths half of the work is the head and the cross-entropy, and most of that is moving tensors of tokens times
vocabulary through memory: logits, their log-softmax, its gradient, each written and read again. Here some tokens at a
time go all the way, from hidden state to the gradients of hidden state and head, in one buffer that stays in cache.

Only for heads that are one matrix and nothing else; `plain_head` asks the model itself, and where the answer is no (a
soft cap, a scale, a bias) the loss is taken from the logits as transformers gives them.
"""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST_ROWS = 128  # below it a matrix product no longer fills the cores
BUFFER = {"cpu": 2**19}  # logits held at once, so that they stay in cache
LARGE_BUFFER = 2**27  # elsewhere: enough work for one call of a kernel
PROBE_TOKENS = 6
TOLERANCE = 1e-5  # of the largest logit
_asked: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()


def plain_head(model: "PreTrainedModel") -> bool:
    """Whether the model's logits are its last hidden state times its head's matrix, and nothing else."""
    head = model.get_output_embeddings()
    # A head that an adapter wraps, or whose matrix is spread over ranks, is asked through the model.
    if type(head) is not torch.nn.Linear or head.bias is not None or type(head.weight.data) is not Tensor:
        return False
    if model not in _asked:
        _asked[model] = model.base_model is not model and _answers_alike(model, head)
    return _asked[model]


@torch.no_grad()
def _answers_alike(model: "PreTrainedModel", head: torch.nn.Linear) -> bool:
    body = model.base_model
    tokens_BT = torch.arange(2 * PROBE_TOKENS, device=model.device).reshape(2, -1) % head.weight.shape[0]
    trained = model.training
    model.eval()  # dropout would make the two differ
    try:
        hidden_BTH = body(input_ids=tokens_BT, use_cache=False).last_hidden_state
        wanted_BTV = model(input_ids=tokens_BT, use_cache=False).logits.float()
    except (AttributeError, TypeError):  # a family that answers otherwise keeps its own way
        return False
    finally:
        model.train(trained)
    apart = (head(hidden_BTH).float() - wanted_BTV).abs().max()
    return bool(apart <= TOLERANCE * wanted_BTV.abs().max())


def summed_cross_entropy(hidden_NH: Tensor, weight_VH: Tensor, labels_N: Tensor) -> Tensor:
    """Sum over N tokens of the cross-entropy of hidden_NH @ weight_VH.T, in nats; every label is a word.

    Equal to torch's to rounding, gradients included. Under autocast products are in its type, sums in float32.
    """
    return _Head.apply(hidden_NH, weight_VH, labels_N, torch.is_grad_enabled())  # type: ignore[no-any-return]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, labels_N: Tensor, grad: bool) -> Tensor:
        device = hidden_NH.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NH.dtype
        hidden, weight = hidden_NH.to(kind), weight_VH.to(kind)
        d_hidden = torch.empty_like(hidden) if grad and ctx.needs_input_grad[0] else None
        # Summed over chunks: float32, or what each adds would be rounded away.
        d_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if grad and ctx.needs_input_grad[1] else None
        words = len(weight_VH)
        rows = max(LEAST_ROWS, BUFFER.get(device, LARGE_BUFFER) // words)
        buffer = hidden.new_empty((min(rows, len(labels_N)), words))
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        with torch.autocast(device, enabled=False):
            for first in range(0, len(labels_N), rows):
                part = hidden[first : first + rows]
                logits = torch.mm(part, weight.t(), out=buffer[: len(part)])
                loss, slope = _softmax(logits, labels_N[first : first + rows, None])
                total += loss
                if d_hidden is not None:
                    torch.mm(slope, weight, out=d_hidden[first : first + rows])
                if d_weight is not None:
                    _add_product(d_weight, slope.t(), part)
        # Not save_for_backward: they are no outputs, and are to be scaled where they lie and handed on.
        ctx.slopes = d_hidden, d_weight
        ctx.kinds = hidden_NH.dtype, weight_VH.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if ctx.slopes is None:
            raise RuntimeError("the gradient of a head's loss is handed on once; take the loss again for another")
        slopes, ctx.slopes = ctx.slopes, None
        found = [
            None if gradient is None else gradient.mul_(slope).to(kind)
            for gradient, kind in zip(slopes, ctx.kinds, strict=True)
        ]
        return found[0], found[1], None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right)


def _softmax(logits_NV: Tensor, labels_N1: Tensor) -> tuple[Tensor, Tensor]:
    """(summed loss, its slope with respect to the logits). The logits are overwritten where they are float32."""
    sharp = logits_NV if logits_NV.dtype == torch.float32 else logits_NV.float()
    right_N1 = sharp.gather(1, labels_N1)
    # The largest probability is at least 1/V: its logarithm gives the normaliser without asking where it is, which
    # takes sixteen times as long as asking how large.
    top_N1 = sharp.amax(dim=1, keepdim=True)
    torch.softmax(sharp, dim=1, out=sharp)
    losses = (top_N1 - sharp.amax(dim=1, keepdim=True).log() - right_N1).sum()
    sharp.scatter_add_(1, labels_N1, torch.full_like(right_N1, -1.0))
    return losses, sharp.to(logits_NV.dtype)
