"""Which layers of a model are read by `lean`, and when.

A layer stays transformers' own module, with its own weights and names; only the way it is read changes, and only where
everything is as `lean` knows it: on a CPU, in float32, and nobody listening to one of its parts. One made lean for
training is read so with gradients wanted, one made so for scoring without; in every other call it is read as ever.
"""

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ratoon.lm.lean import feed_forward, queries_keys_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Layers of these families are x + attention(norm(x)), then x + feed-forward(norm(x)), and nothing else.
FEEDS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
# Of the others Qwen2 has a bias, Qwen3 norms its queries and keys: their attention stays as it is.
ATTENDS = ("LlamaDecoderLayer", "MistralDecoderLayer")
TOLERANCE = 1e-5  # of the largest logit, between lean layers and transformers' own


def make_lean(model: "PreTrainedModel", *, scoring: bool = False) -> bool:
    """Have the layers of `model` read leanly in training, or in scoring; whether there are any it can be done to."""
    found = [layer for layer in model.modules() if feeds(layer)]
    for layer in found:
        # A method, not a closure: a copy of the model has its own.
        layer.forward = MethodType(read_to_score if scoring else read, layer)
    return bool(found)


def leaned_to_score(model: "PreTrainedModel") -> bool:
    """Have `model` read leanly in scoring, if its answers stay what they are to rounding, which it is asked itself."""
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return False
    tokens_BT = torch.arange(12).reshape(2, -1) % model.config.get_text_config().vocab_size
    model.eval()
    with torch.inference_mode():
        expected = model(input_ids=tokens_BT, use_cache=False).logits
        if not make_lean(model, scoring=True):
            return False
        found = model(input_ids=tokens_BT, use_cache=False).logits
    near = bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
    if not near:
        make_plain(model)
    return near


def make_plain(model: "PreTrainedModel") -> None:
    """The way back."""
    for layer in model.modules():
        if is_lean(layer):
            del layer.forward


def is_lean(layer: nn.Module) -> bool:
    return isinstance(found := vars(layer).get("forward"), MethodType) and found.__func__ in (read, read_to_score)


def feeds(layer: nn.Module) -> bool:
    if type(layer).__name__ not in FEEDS or not type(layer).__module__.startswith("transformers.models."):
        return False
    mlp: Any = layer.mlp
    return are_plain(mlp.gate_proj, mlp.up_proj, mlp.down_proj) and mlp.config.hidden_act in ("silu", "swish")


def attends(layer: Any) -> bool:
    # The class is the family's, or one that ranks made of it.
    if not any(base.__name__ in ATTENDS for base in type(layer).__mro__):
        return False
    own = layer.self_attn
    return own.config._attn_implementation == "sdpa" and are_plain(own.q_proj, own.k_proj, own.v_proj, own.o_proj)


def are_plain(*modules: nn.Module) -> bool:
    """Matrices and nothing else: no bias, no adapter, not in 4 bits."""
    return all(type(module) is nn.Linear and module.bias is None for module in modules)


def read(layer: Any, hidden_states: Tensor, **given: Any) -> Any:
    """What a decoder layer answers in training."""
    return answer(layer, layer.training and torch.is_grad_enabled(), hidden_states, given)


def read_to_score(layer: Any, hidden_states: Tensor, **given: Any) -> Any:
    """What it answers when nothing is learnt."""
    return answer(layer, not layer.training and not torch.is_grad_enabled(), hidden_states, given)


def answer(layer: Any, wanted: bool, hidden_states: Tensor, given: dict[str, Any]) -> Any:
    if not wanted or given.get("past_key_values") is not None or not known(layer, hidden_states):
        return type(layer).forward(layer, hidden_states, **given)
    if attends(layer):
        x = attended(layer, hidden_states, **given)
    else:
        x = hidden_states + layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **given)[0]
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    weights = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    return feed_forward(x, norm.weight, norm.variance_epsilon, *weights)


def known(layer: nn.Module, x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return not any(heard(part) for part in layer.modules() if part is not layer)


def heard(part: nn.Module) -> bool:
    """Whether somebody listens to it, or changes what passes."""
    return bool(part._forward_pre_hooks or part._forward_hooks or part._backward_pre_hooks or part._backward_hooks)


def attended(
    layer: Any,
    x: Tensor,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **given: Any,
) -> Tensor:
    """x and what attention adds to it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    own, norm = layer.self_attn, layer.input_layernorm
    cos, sin = (one[..., : own.head_dim // 2] for one in position_embeddings)
    weights = own.q_proj.weight, own.k_proj.weight, own.v_proj.weight
    q, k, v = queries_keys_values(x, norm.weight, norm.variance_epsilon, weights, torch.complex(cos, sin))
    dropout = own.attention_dropout if layer.training else 0.0
    # Its windows are in the mask already.
    found, _ = sdpa_attention_forward(own, q, k, v, attention_mask, dropout=dropout, scaling=own.scaling, **given)
    rows = found.reshape(-1, found.shape[-2] * found.shape[-1])
    return torch.addmm(x.reshape(-1, x.shape[-1]), rows, own.o_proj.weight.t()).view_as(x)
