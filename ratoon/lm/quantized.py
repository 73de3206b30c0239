"""Weights in 4 bits under an adapter (QLoRA, arXiv:2305.14314): NF4, its scales in 8 bits, reckoned with in bf16.

They are never trained and never released: an adapter learned on them is merged into the parent's own weights.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ratoon.config import ConfigError
from ratoon.lm.adapters import wrapped
from ratoon.lm.load import check_complete, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_quantizable(device: torch.device) -> None:
    """Raise ConfigError where there is no GPU or no bitsandbytes."""
    needed = {
        "a GPU (train.device)": device.type == "cuda",
        "bitsandbytes (pip install bitsandbytes)": importlib.util.find_spec("bitsandbytes") is not None,
    }
    if missing := [what for what, there in needed.items() if not there]:
        raise ConfigError(
            f"train.adapter.name: qlora needs {' and '.join(missing)}; without, lora trains the same adapter over "
            f"weights that are not quantised"
        )


def load_quantized(path: Path, device: torch.device) -> "PreTrainedModel":
    """The model in `path` in 4 bits. Raises ConfigError where that cannot be had."""
    check_quantizable(device)
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_complete(path)
    form = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        path,
        quantization_config=form,
        dtype=torch.bfloat16,
        device_map={"": device},
        use_safetensors=True,
        local_files_only=True,
    )


def is_quantized(model: nn.Module) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False))


@torch.no_grad()
def merge_into_parent(model: "PreTrainedModel", parent: Path, scale: float = 1.0) -> None:
    """Turn `model` into its parent with scale times what the adapter learned, in float32. Scale 0 is the parent."""
    from transformers.pytorch_utils import Conv1D

    plain = load_model(parent, str(model.device))
    for name, layer in wrapped(model):
        target: Any = plain.get_submodule(name)
        learned = layer.get_delta_weight("default").float()  # (out, in), as 4 bits are kept whatever the family has
        target.weight.add_(learned.T if isinstance(target, Conv1D) else learned, alpha=scale)
    for name, child in plain.named_children():
        setattr(model, name, child)
    model.config = plain.config
    for mark in ("is_loaded_in_4bit", "is_quantized", "hf_quantizer", "quantization_method"):
        model.__dict__.pop(mark, None)
