"""Attention heads and feed-forward units of a decoder: where each acts, and which weights are its own.

A layer has three groups of units. Weights of a unit:

    heads   rows of query, key and value, and the columns of the output projection that read it
    inner   rows of the projections into the feed-forward block
    outer   rows of the projection out of it

Heads that share keys and values own those of their group together. Known by the names of modules in transformers;
fused query-key-value matrices are taken apart where the family's layout is known. Silent about experts and recurrent
layers: `find_units` refuses a model whose layers it does not know.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ratoon.config import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["heads", "inner", "outer"]


class Layout(NamedTuple):
    """Names of a layer's modules in a family."""

    out: str  # the attention's output projection
    down: str  # the projection out of the feed-forward block
    ups: tuple[str, ...]
    apart: tuple[str, ...] = ()  # query, key, value
    fused: str = ""  # all three in one matrix
    by_head: bool = False  # fused: q k v of one head, then of the next; else all q, all k, all v


LAYOUTS = (
    Layout(
        "self_attn.o_proj",
        "mlp.down_proj",
        ("mlp.gate_proj", "mlp.up_proj"),
        apart=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ),
    Layout(
        "attention.dense",
        "mlp.dense_4h_to_h",
        ("mlp.dense_h_to_4h",),
        fused="attention.query_key_value",
        by_head=True,
    ),
    Layout("attn.c_proj", "mlp.c_proj", ("mlp.c_fc",), fused="attn.c_attn"),
)


class Owned(NamedTuple):
    """A weight or bias whose places along `axis` belong to units."""

    name: str
    axis: int
    units: Tensor  # int64, the unit of each place
    group: Kind
    shared: int = 1  # units that have one place in common; `units` then counts by that many


@dataclass
class Layer:
    prefix: str
    out: nn.Module
    down: nn.Module
    heads: int
    inner: int
    outer: int
    owned: list[Owned] = field(default_factory=list)


def find_units(model: "PreTrainedModel", key: str) -> list[Layer]:
    """The layers, first to last. Raises ConfigError, naming `key`, for a family that is not known here."""
    modules = dict(model.named_modules())
    for layout in LAYOUTS:
        ends = [name for name in modules if name.endswith(f".{layout.down}")]
        prefixes = [name.removesuffix(layout.down) for name in ends]
        if len(prefixes) != model.config.get_text_config().num_hidden_layers:
            continue  # none, or experts in some
        needed = (layout.out, *layout.ups, *(layout.apart or (layout.fused,)))
        if all(is_matrix(modules.get(p + name)) for p in prefixes for name in (*needed, layout.down)):
            return [layer_of(model, modules, prefix, layout) for prefix in prefixes]
    raise ConfigError(
        f"{key}: no heads and feed-forward units are found in {model.config.model_type} as it is trained here; known: "
        f"Llama, Qwen, Mistral, Gemma, OLMo, GPT-NeoX, GPT-2 and those built alike, without an adapter; leave it out, "
        f"or hold weights by train.forgetting.elastic, which knows no units"
    )


def layer_of(model: "PreTrainedModel", modules: dict[str, nn.Module], prefix: str, layout: Layout) -> Layer:
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    out, down = modules[prefix + layout.out], modules[prefix + layout.down]
    size = sizes(out)[1] // heads
    outer, inner = sizes(down)
    layer = Layer(prefix, out, down, heads, inner, outer)
    every_head = torch.arange(heads).repeat_interleave(size)
    for name in layout.apart:
        shared = heads * size // sizes(modules[prefix + name])[0]  # heads that have these keys or values in common
        units = torch.arange(heads // shared).repeat_interleave(size)
        layer.owned += rows_of(modules, prefix + name, units, "heads", shared)
    if layout.fused:
        units = every_head.repeat_interleave(3) if layout.by_head else every_head.repeat(3)
        layer.owned += rows_of(modules, prefix + layout.fused, units, "heads")
    layer.owned.append(Owned(f"{prefix}{layout.out}.weight", input_axis(out), every_head, "heads"))
    for name in layout.ups:
        layer.owned += rows_of(modules, prefix + name, torch.arange(inner), "inner")
    layer.owned += rows_of(modules, prefix + layout.down, torch.arange(outer), "outer")
    return layer


def rows_of(modules: dict[str, nn.Module], name: str, units: Tensor, group: Kind, shared: int = 1) -> list[Owned]:
    """Weight and, where there is one, bias of a projection, by its output."""
    module = modules[name]
    found = [Owned(f"{name}.weight", 1 - input_axis(module), units, group, shared)]
    if getattr(module, "bias", None) is not None:
        found.append(Owned(f"{name}.bias", 0, units, group, shared))
    return found


def is_matrix(module: nn.Module | None) -> bool:
    from transformers.pytorch_utils import Conv1D

    return type(module) in (nn.Linear, Conv1D)


def input_axis(module: nn.Module) -> int:
    """nn.Linear holds (out, in), GPT-2's Conv1D (in, out)."""
    return 1 if type(module) is nn.Linear else 0


def sizes(module: nn.Module) -> tuple[int, int]:
    """(out, in)"""
    axis = input_axis(module)
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1 - axis], weight.shape[axis]
