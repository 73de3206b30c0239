"""The model of a run as its recipe wants it: how exactly it is kept, what of it is trained, what is reckoned twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratoon.config import TrainConfig
from ratoon.lm.adapters import attach
from ratoon.lm.load import load_model, pick_device
from ratoon.lm.quantized import load_quantized
from ratoon.training.activations import checkpoint_activations
from ratoon.training.heap import keep_heap
from ratoon.training.optimizers.groups import freeze

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def open_model(path: Path, recipe: TrainConfig, *, sharded: bool = False) -> "PreTrainedModel":
    """The model in `path`, on the recipe's device. Raises ConfigError for what this model or machine cannot do.

    sharded  it is to be cut up over ranks: on the CPU, and from there block by block to a GPU, as one rank's may not
             hold all of it
    """
    if pick_device(recipe.device).type == "cpu":
        keep_heap()
    device = pick_device("cpu" if sharded else recipe.device)
    if recipe.adapter is not None and recipe.adapter.name == "qlora":
        model = load_quantized(path, device)
    else:
        model = load_model(path, str(device), bf16=recipe.precision == "bf16_pure")
    if recipe.adapter is not None:
        attach(model, recipe.adapter, recipe.seed)
    freeze(model, recipe.optimizer.freeze)
    checkpoint_activations(model, recipe.activation_checkpointing, recipe.precision, sharded=sharded)
    return model


def drops_out(config: Mapping[str, Any]) -> str | None:
    """What a model of this configuration leaves out by chance while it is trained; None: nothing."""
    found = [key for key, value in config.items() if ("dropout" in key or "pdrop" in key) and value]
    return f"it drops out ({', '.join(found)})" if found else None
