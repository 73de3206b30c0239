"""What a layer puts out for its gradient: kept, or reckoned again on the way back.

    false   everything is kept
    light   what products of matrices and attention put out is kept; norms, activations, rotations, which are most of
            the memory and little of the work, are reckoned again
    true    one layer's insides at a time, for about one more forward pass
    lean    float32 layers of families known here are read by functions that hold less and do less: ratoon/lm/lean.py
    auto    lean where it can be; else, on a CPU and one rank, light for a model of `WIDE` and more; else false

Weights are the same to the bit with false, light and true, to rounding with lean. On a GPU lean layers read as ever.

Narrow models have little to save, and for them the bookkeeping, some 20 microseconds an operation, is much of a step.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from ratoon.config import ConfigError
from ratoon.lm.attention import logits
from ratoon.lm.lean_layers import make_lean, make_plain

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WIDE = 256
PROBE_TOKENS = 6
PROBED = 64  # parameters whose gradients are compared, the smallest: those of norms, or an adapter's
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "convolution")
TOLERANCE = 1e-3  # of a parameter's largest gradient, between lean layers and transformers' own
Wanted = bool | Literal["light", "lean", "auto"]


def checkpoint_activations(
    model: "PreTrainedModel", wanted: Wanted, precision: str = "fp32", *, sharded: bool = False
) -> None:
    """Have `model` forget in training what `wanted` says. Raises ConfigError where it cannot and was told to.

    sharded  it is to be cut up over ranks, whose device may be another than where it lies now
    """
    if wanted in ("lean", "auto") and precision == "fp32" and leaned(model):
        return
    if wanted == "lean":
        raise ConfigError(
            f"train.activation_checkpointing: lean: layers of {model.config.model_type} in {precision}, as they are "
            f"trained here, are not known to it; allowed for this model: auto, light, true, false"
        )
    if wanted is False or (wanted == "auto" and (sharded or not pays(model))):
        return
    if not model.supports_gradient_checkpointing:
        if wanted == "auto":
            return
        raise ConfigError(
            f"train.activation_checkpointing: {model.config.model_type} of transformers has none; leave it false, and "
            f"lower train.micro_rows to save memory"
        )
    if wanted is True:
        enable(model)
    elif not lightened(model) and wanted == "light":
        raise ConfigError(
            f"train.activation_checkpointing: light: {model.config.model_type} gives another gradient when parts of "
            f"its layers are reckoned again; allowed for this model: true, false"
        )


def pays(model: "PreTrainedModel") -> bool:
    return model.device.type == "cpu" and int(model.config.get_text_config().hidden_size) >= WIDE


def enable(model: "PreTrainedModel", **more: Any) -> None:
    # The other way, reentrant, gives no gradient to layers above a frozen embedding.
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False, **more})


def lightened(model: "PreTrainedModel") -> bool:
    """Enable it, if the model's gradients stay what they are; whether they do is asked of the model itself."""
    expected = slopes(model)
    enable(model, context_fn=partial(create_selective_checkpoint_contexts, policy))
    try:
        agrees = all(torch.equal(a, b) for a, b in zip(expected, slopes(model), strict=True))
    except RuntimeError:  # a layer that changes what a product put out, where it lies
        agrees = False
    if not agrees:
        model.activation_checkpointing_disable()
    return agrees


def leaned(model: "PreTrainedModel") -> bool:
    """Read its layers leanly, if the model's gradients stay what they are to rounding, which it is asked itself."""
    expected = slopes(model)
    if not make_lean(model):
        return False
    if not all(near(a, b) for a, b in zip(expected, slopes(model), strict=True)):
        make_plain(model)
        return False
    return True


def near(expected: Tensor, found: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def policy(_: Any, operation: Any, *given: Any, **named: Any) -> CheckpointPolicy:
    name = operation.name().removeprefix("aten::").split(".")[0]
    heavy = name in PRODUCTS or "attention" in name
    return CheckpointPolicy.MUST_SAVE if heavy else CheckpointPolicy.PREFER_RECOMPUTE


def slopes(model: "PreTrainedModel") -> list[Tensor]:
    """Gradients of some parameters on a few tokens. Nothing of the model or of chance is changed."""
    vocabulary = model.config.get_text_config().vocab_size
    tokens_BT = torch.arange(2 * PROBE_TOKENS, device=model.device).reshape(2, -1) % vocabulary
    asked = sorted((p for p in model.parameters() if p.requires_grad), key=torch.numel)[:PROBED]
    trained = model.training
    model.train()  # layers keep everything when they are not
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(0)
            loss = logits(model, tokens_BT).float().square().mean()
            found = torch.autograd.grad(loss, asked, allow_unused=True)
    finally:
        model.train(trained)
    return [slope if slope is not None else torch.zeros(()) for slope in found]
