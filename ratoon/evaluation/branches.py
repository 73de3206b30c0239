"""Several continuations behind one context in one row: the mask, and whether a model keeps to it.

    branch of a token: 0 of the context, 1, 2, ... of a continuation, -1 behind the end of the row
    a token sees those before it that are of the context or of its own branch, and no further back than the family's
    sliding window, counted in positions

transformers hands a mask of four axes to attention as it is; families whose layers differ take one per kind of layer.
Whether a family does is not looked up but asked: the model reads a small row both ways (`can_branch`).
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = {"full_attention": False, "sliding_attention": True}  # kind of layer -> whether it has a window
TOLERANCE = {False: 1e-4, True: 5e-2}  # of the largest logit: float32, bf16
PROBE_CONTEXT, PROBE_BRANCHES = 6, (3, 1, 4)
LONGEST_PROBE = 8192  # a wider window is not asked about; then rows must be shorter than it


def mask_of(model: "PreTrainedModel", positions_BT: Tensor, branches_BT: Tensor) -> Any:
    """What the family takes as its attention mask; added to the scores of attention."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    length = positions_BT.shape[1]
    order_T = torch.arange(length, device=positions_BT.device)
    seen_BTT = order_T[None, None, :] <= order_T[None, :, None]
    seen_BTT = seen_BTT & ((branches_BT[:, None, :] == 0) | (branches_BT[:, None, :] == branches_BT[:, :, None]))
    near_BTT = seen_BTT
    if window is not None:
        near_BTT = seen_BTT & (positions_BT[:, :, None] - positions_BT[:, None, :] < window)
    if kinds:
        return {kind: additive(near_BTT if KINDS[kind] else seen_BTT, model.dtype) for kind in kinds}
    return additive(near_BTT, model.dtype)


def additive(seen_BTT: Tensor, kind: torch.dtype) -> Tensor:
    mask = torch.zeros(seen_BTT.shape, dtype=kind, device=seen_BTT.device)
    return mask.masked_fill_(~seen_BTT, torch.finfo(kind).min)[:, None]


@torch.inference_mode()
def can_branch(model: "PreTrainedModel", row_tokens: int, *, bf16: bool = False) -> bool:
    """Whether every continuation in a row of several has the logits it has alone behind the context."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    if set(getattr(config, "layer_types", None) or ()) - set(KINDS):
        return False
    if LONGEST_PROBE < window < row_tokens:
        return False
    context = min(row_tokens, PROBE_CONTEXT + (window if window < row_tokens else 0))
    try:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            return _reads_alike(model, context, bf16)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # a family that takes no such mask, or no positions: it reads each continuation by itself


def _reads_alike(model: "PreTrainedModel", context: int, bf16: bool) -> bool:
    device, words = model.device, int(model.get_input_embeddings().weight.shape[0])  # type: ignore[arg-type, index]
    sizes = (context, *PROBE_BRANCHES)
    positions_BT = torch.tensor([[*range(context), *(context + n for size in PROBE_BRANCHES for n in range(size))]])
    branches_BT = torch.tensor([[name for name, size in enumerate(sizes) for _ in range(size)]])
    tokens_BT = torch.arange(positions_BT.numel())[None] * 7 % words
    tokens_BT, positions_BT, branches_BT = (it.to(device) for it in (tokens_BT, positions_BT, branches_BT))
    mask = mask_of(model, positions_BT, branches_BT)
    packed_TV = (
        model(input_ids=tokens_BT, position_ids=positions_BT, attention_mask=mask, use_cache=False).logits[0].float()
    )
    at = context
    for size in PROBE_BRANCHES:
        alone_BT = torch.cat([tokens_BT[:, :context], tokens_BT[:, at : at + size]], dim=1)
        alone_TV = model(input_ids=alone_BT, use_cache=False).logits[0].float()
        read_TV = torch.cat([packed_TV[:context], packed_TV[at : at + size]])
        if not (read_TV - alone_TV).abs().max() <= TOLERANCE[bf16] * alone_TV.abs().max():
            return False
        at += size
    return True
