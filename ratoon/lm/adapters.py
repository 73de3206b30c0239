"""Adapters: a few new weights beside the model's own, put in and merged by peft.

The model stays what it was, of its transformers class; its linear layers are wrapped, all else is frozen. Adapters keep
float32 whatever the weights are kept in, and begin as no change at all: to the bit, but for OSF, whose first logits
differ by the rounding of two products that cancel (2e-7 of the largest).
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ratoon.config import ConfigError
from ratoon.config.adapter import Adapter, Osf

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

PREFIXES = ("lora_", "osf_", "_osf_")  # of peft's names
DECAY_FORGETS = "osf_svd_params"  # these are the parent's own directions: to decay them is to forget


def attach(model: "PreTrainedModel", asked: Adapter, seed: int) -> None:
    """Wrap the linear layers of `model` and freeze everything else. Same seed, same beginning.

    Raises ConfigError where no layer matches, and for layers that the adapter cannot wrap.
    """
    from peft import inject_adapter_in_model

    targets = targets_of(model, asked)
    kinds = {layer: layer.weight.dtype for layer in targets.values() if layer.weight.is_floating_point()}
    for layer in kinds:
        layer.float()  # an adapter takes the type of what it wraps
    with torch.random.fork_rng(devices=[]):  # peft draws on the CPU, then moves
        torch.manual_seed(seed)
        inject_adapter_in_model(peft_config(asked, targets), model)
    for layer, kind in kinds.items():
        layer.to(kind)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name) and parameter.requires_grad)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # over 4 bits they would be bf16, and stand still


def peft_config(asked: Adapter, targets: dict[str, nn.Module]) -> "PeftConfig":
    from peft import LoraConfig, OSFConfig

    if isinstance(asked, Osf):
        return OSFConfig(effective_rank=asked.keep, target_modules=list(targets))
    return LoraConfig(
        r=asked.rank,
        lora_alpha=asked.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=0.0,
        target_modules=list(targets),
        fan_in_fan_out=not any(isinstance(layer, nn.Linear) for layer in targets.values()),
        use_rslora=asked.name == "rslora",
        use_dora=asked.name == "dora",
    )


def targets_of(model: "PreTrainedModel", asked: Adapter) -> dict[str, Any]:
    """Name -> layer to wrap."""
    linear = dict(linear_layers(model))
    patterns = asked.targets or ("*",)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in linear):
            raise ConfigError(
                f"train.adapter.targets: no linear layer but the head matches {pattern!r}; names are such as "
                f"{next(iter(linear), 'none')}; `*` stands for any part of one"
            )
    found = {name: layer for name, layer in linear.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    if isinstance(asked, Osf):
        check_osf(found, asked)
    return found


def check_osf(layers: dict[str, Any], asked: Osf) -> None:
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear):
            raise ConfigError(
                f"train.adapter.name: osf cannot wrap {name} ({type(layer).__name__}); allowed here: lora, rslora, dora"
            )
        side = min(layer.weight.shape)
        if int(side * asked.keep) == 0:
            raise ConfigError(f"train.adapter.keep: {asked.keep} of the {side} directions of {name} is none; raise it")


def linear_layers(model: "PreTrainedModel") -> Iterator[tuple[str, nn.Module]]:
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield name, module


def is_adapter(name: str) -> bool:
    """Whether a parameter or buffer belongs to an adapter, by its name."""
    return any(part.startswith(PREFIXES) for part in name.split("."))


def is_adapted(model: nn.Module) -> bool:
    return bool(wrapped(model))


def wrapped(model: nn.Module) -> list[tuple[str, Any]]:
    """Name and peft's layer of each."""
    if not any(is_adapter(name) for name, _ in model.named_parameters()):
        return []  # and peft, which takes its time to import, is left alone
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All that the parent's weights lack, OSF's decomposition included: it is another on another machine."""
    everything = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach() for name, tensor in everything if is_adapter(name)}


@torch.no_grad()
def load_adapter(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    own = adapter_tensors(model)
    if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        odd = sorted(own.keys() ^ tensors.keys()) or sorted(n for n in own if own[n].shape != tensors[n].shape)
        raise ConfigError(f"this adapter does not fit the model, as {odd[0]} shows; train.adapter must be as it was")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


@torch.no_grad()
def merge(model: "PreTrainedModel", scale: float = 1.0) -> None:
    """Plain float32 weights again: parent + scale (trained - parent). Scale 0 is the parent to the bit."""
    layers = wrapped(model)
    model.float()  # a small difference added to a bf16 weight would be rounded away
    for name, layer in layers:
        base = layer.get_base_layer()
        parent = base.weight.detach().clone()
        layer.merge(safe_merge=True)
        if scale != 1.0:
            base.weight.copy_(torch.lerp(parent, base.weight, scale))
        model.set_submodule(name, base)
    model.requires_grad_(True)


@torch.no_grad()
def keep_orthogonal(model: nn.Module) -> None:
    """Turn OSF's trained directions back where an optimizer led them out of their subspace.

    peft projects the gradient, but Adam divides each of its numbers by another, and the step leaves the subspace.
    """
    for _, layer in wrapped(model):
        for name, factors in layer.osf_svd_params.items():
            high_U, low_U = layer._osf_U_high, layer._osf_U_low_init
            high_V, low_V = layer._osf_V_high, layer._osf_V_low_init
            U, V = factors["U_low"], factors["V_low"]
            U.copy_(U - high_U[name] @ (high_U[name].T @ U) if name in high_U else low_U[name] @ (low_U[name].T @ U))
            V.copy_(V - (V @ high_V[name].T) @ high_V[name] if name in high_V else (V @ low_V[name].T) @ low_V[name])
