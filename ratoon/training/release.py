"""From trained weights to those that are released: the same, unless a method or an adapter turns them."""

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon.lm.adapters import attach
from ratoon.lm.load import load_model, pick_device
from ratoon.lm.quantized import load_quantized
from ratoon.training import checkpoint, shards
from ratoon.training.method import Method
from ratoon.training.methods.adapter import Adapted
from ratoon.training.request import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State


def released(state: "State") -> "PreTrainedModel":
    """The model as it would be released now, for a moment: what is finished is measured on it, and a trunk goes on
    with `state`, which stays as it is. The state's own model where nothing turns it, else a copy."""
    turning = [method for method in state.methods if type(method).finish is not Method.finish]
    if not turning:
        return state.model
    model = copy.deepcopy(state.model)
    for method in turning:
        method.finish(model)
    return model


def release(state: "State", saved: Path, folder: Path, tokenizer: Path) -> Path:
    """The directory of the final model: `saved`, or `folder` where weights are turned first.

    The checkpoint, from which a later run may go on, holds the trained weights either way.
    """
    model = released(state)
    if model is state.model:
        return saved
    write_whole(model, folder, tokenizer)
    return folder


def put_together(request: Request, saved: Path, folder: Path) -> Path:
    """A checkpoint of `request` that is no model by itself, as one in `folder`: the parts of several ranks as one, or
    the parent with the adapter merged into it as it would be released."""
    parent, adapter = Path(request.model), request.recipe.adapter
    if adapter is not None and adapter.name == "qlora":
        model = load_quantized(parent, pick_device(request.recipe.device))
    else:
        model = load_model(parent, bf16=request.recipe.precision == "bf16_pure")
    if adapter is not None:
        attach(model, adapter, request.recipe.seed)
    if shards.has_parts(saved):
        shards.restore_weights(model, saved)
    else:
        checkpoint.load_weights(model, saved)
    if adapter is not None:
        Adapted(adapter, parent).finish(model)
    write_whole(model, folder, parent)
    return folder


def write_whole(model: "PreTrainedModel", folder: Path, tokenizer: Path) -> None:
    """Beside it, then renamed: what is at `folder` is whole."""
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    checkpoint.write_model(model, beside, tokenizer)
    checkpoint.seal(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
