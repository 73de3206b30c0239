"""Logits of packed rows, each document read as if it were alone.

The families in transformers keep documents apart by themselves where position ids start again, if they are given
neither an attention mask nor a cache object; with either they read a row as one text, and say nothing (seen in 5.23).
So `isolate` asks the model itself, before it is trained, whether a document changes when its neighbour does.

    eager, sdpa, flex   a mask from the positions of each row, with the family's own sliding windows
    flash               varlen, which sees packing in a batch of one row only: rows are laid end to end

Silent about recurrent layers: their state has no boundaries, and `isolate` refuses them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ratoon.config import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = ((5, 1, 1, 5), (2, 10))  # lengths of the documents in two rows; those of one token are easily lost
TOLERANCE = {False: 1e-4, True: 5e-2}  # of the largest logit: float32, bf16


def logits(model: "PreTrainedModel", tokens_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor:
    """(B, T, V). positions_BT  place of each token in its document; None: every row is one text."""
    return read(model, model, tokens_BT, positions_BT).logits.reshape(*tokens_BT.shape, -1)


def hidden(model: "PreTrainedModel", tokens_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor:
    """(B, T, H): what the head turns into logits."""
    return read(model, model.base_model, tokens_BT, positions_BT).last_hidden_state.reshape(*tokens_BT.shape, -1)


def read(model: "PreTrainedModel", body: Any, tokens_BT: Tensor, positions_BT: Tensor | None) -> Any:
    """What `body`, the model or its base, answers to packed rows."""
    # No cache object, in training neither: with one, transformers builds another mask and remembers the batch.
    if positions_BT is None:
        return body(input_ids=tokens_BT, use_cache=False)
    if not is_flash(model):
        return body(input_ids=tokens_BT, position_ids=positions_BT, use_cache=False)
    flat = {"input_ids": tokens_BT.reshape(1, -1), "position_ids": positions_BT.reshape(1, -1)}
    return body(**flat, use_cache=False, **varlen(positions_BT))


def is_flash(model: "PreTrainedModel") -> bool:
    return "flash" in str(model.config._attn_implementation)


def varlen(positions_BT: Tensor) -> dict[str, Any]:
    """What flash attention is told of documents laid end to end; looked up in every layer were it left out."""
    flat = positions_BT.reshape(-1)
    ends = torch.cat([(flat == 0).nonzero()[:, 0], flat.new_tensor([len(flat)])]).to(torch.int32)
    longest = positions_BT.shape[1]  # an upper bound is enough, and needs no wait for the GPU
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def isolate(model: "PreTrainedModel", *, bf16: bool = False) -> str:
    """Give `model` the fastest attention here that keeps the documents of a row apart; its name.

    Raises ConfigError for a model that no attention keeps apart.
    """
    own = str(model.config._attn_implementation)
    for name in candidates(model.device.type, own, bf16):
        try:
            if name != model.config._attn_implementation:
                model.set_attn_implementation(name)
            if keeps_apart(model, bf16):
                return name
        except (ImportError, RuntimeError, ValueError):
            if name == own:
                raise
            # Installed, but not for this model or this GPU: the next one.
    raise ConfigError(
        f"train.attention: document: {model.config.model_type} reads across documents of a row whatever its positions "
        f"(transformers' {own} attention); allowed for this model: row"
    )


def candidates(device: str, own: str, bf16: bool) -> Iterator[str]:
    """Implementations to try, fastest first; the last is the model's own."""
    from transformers.utils import is_flash_attn_2_available

    if device == "cuda" and bf16 and is_flash_attn_2_available():
        yield "flash_attention_2"
    # FlexAttention keeps documents apart too, but compiles for most of a minute in each process and has no backward on
    # a CPU (torch 2.13): it is left out until a measurement on a GPU speaks for it.
    yield own


@torch.no_grad()
def keeps_apart(model: "PreTrainedModel", bf16: bool = False) -> bool:
    """Whether each document of a packed row has the logits it has alone, whatever stands before it."""
    device, vocabulary = model.device, model.config.get_text_config().vocab_size
    positions_BT = torch.tensor([[n for size in row for n in range(size)] for row in PROBE], device=device)
    tokens_BT = torch.arange(positions_BT.numel(), device=device).reshape(positions_BT.shape) * 7 % vocabulary
    other_BT = tokens_BT.clone()
    for row, sizes in enumerate(PROBE):
        other_BT[row, : sizes[0]] = (other_BT[row, : sizes[0]] + 1) % vocabulary
    trained = model.training
    model.eval()  # dropout would move every logit
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            packed_BTV, changed_BTV = (logits(model, tokens, positions_BT) for tokens in (tokens_BT, other_BT))
            return all(
                at == 0 or torch.equal(packed_BTV[row, at : at + size], changed_BTV[row, at : at + size])
                for row, at, size in documents()
            ) and all(
                near(packed_BTV[row, at : at + size], logits(model, tokens_BT[row : row + 1, at : at + size])[0], bf16)
                for row, at, size in documents()
            )
    except TypeError:  # a family that takes no positions, such as a recurrent one
        return False
    finally:
        model.train(trained)


def documents() -> Iterator[tuple[int, int, int]]:
    """(row, first token, length) of each document of the probe."""
    for row, sizes in enumerate(PROBE):
        for n, size in enumerate(sizes):
            yield row, sum(sizes[:n]), size


def near(packed_TV: Tensor, alone_TV: Tensor, bf16: bool) -> bool:
    apart = (packed_TV.float() - alone_TV.float()).abs().max()
    return bool(apart <= TOLERANCE[bf16] * alone_TV.float().abs().max())
