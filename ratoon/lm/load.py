"""Opening a model directory, or refusing it with the reason."""

import json
import struct
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratoon.config import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(path: Path, device: str = "cpu", *, bf16: bool = False) -> "PreTrainedModel":
    """The model in `path`, weights in float32 or bf16, ready to train. Local files and safetensors only."""
    import torch

    model = opened(path, dtype=torch.bfloat16 if bf16 else torch.float32)
    return model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps it untyped


def opened(path: Path, **how: Any) -> "PreTrainedModel":
    """The model in `path` with every weight from its files: transformers would make up those that are not there."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the one live line a person sees
    check_weights(path)
    model: PreTrainedModel
    found: dict[str, Collection[str]]
    try:
        model, found = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]  # asked for both it gives both
            path, use_safetensors=True, local_files_only=True, output_loading_info=True, **how
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: transformers cannot load this model: {error}") from error
    if missing := found["missing_keys"]:
        extra = found["unexpected_keys"]  # one that was renamed is both
        beside = f"; there instead, and of no use to {type(model).__name__}: {some(extra)}" if extra else ""
        raise ConfigError(
            f"{path}: weights are missing from its .safetensors: {some(missing)}{beside}; each would begin as random "
            f"numbers: give a directory with all of them, saved as a causal language model with its head"
        )
    return model


def some(names: Collection[str], most: int = 3) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more


def check_complete(path: Path) -> None:
    """Refuse a directory whose safetensors do not hold every weight, in its shape. Only their headers are read."""
    from transformers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()  # what it has to say of a model it says when that is opened
    try:
        opened(path, device_map="meta")
    finally:
        logging.set_verbosity(told)


def load_tokenizer(path: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    if not (path / "tokenizer_config.json").exists():
        raise ConfigError(f"{path}: no tokenizer here (tokenizer_config.json is missing); a model needs its own")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: transformers cannot load this tokenizer: {error}") from error


def check_weights(path: Path) -> None:
    """Refuse a directory whose safetensors are missing or shorter than their header says."""
    if not (path / "config.json").exists():
        raise ConfigError(f"{path}: no model here (config.json is missing); expected a directory of transformers")
    files = sorted(path.glob("*.safetensors"))
    if not files:
        others = sorted(p.name for p in path.glob("*.bin"))
        hint = f"; found {', '.join(others)}: convert it to safetensors first" if others else ""
        raise ConfigError(f"{path}: no .safetensors file{hint}")
    for file in files:
        size, expected = file.stat().st_size, expected_size(file)
        if size != expected:
            raise ConfigError(
                f"{file}: checkpoint cut short or damaged: {size:,} bytes, its header promises {expected or '?'}; "
                f"take an earlier checkpoint or make it again"
            )


def expected_size(file: Path) -> int | None:
    """Bytes a safetensors file must have by its own header; None where the header is unreadable."""
    with file.open("rb") as handle:
        head = handle.read(8)
        if len(head) < 8:
            return None
        (length,) = struct.unpack("<Q", head)
        if length > file.stat().st_size:
            return None
        try:
            header = json.loads(handle.read(length))
        except ValueError:
            return None
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0)


def non_embedding(model: "PreTrainedModel") -> int:
    """Parameters without input embedding, output head and adapters: the N of the scaling laws."""
    from ratoon.lm.adapters import is_adapter

    apart = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module}
    own = [p for name, p in model.named_parameters() if id(p) not in apart and not is_adapter(name)]
    return sum(numbers(p) for p in own)


def numbers(parameter: "torch.Tensor") -> int:
    """How many a parameter stands for: what is kept in 4 bits says so itself."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


def pick_device(wanted: str) -> "torch.device":
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda was asked for and this machine has no usable GPU; allowed: auto, cpu")
    name = "cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu"
    return torch.device(name)
