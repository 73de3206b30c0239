"""From trained weights to those that are released: the same, unless a method or an adapter turns them."""

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon.training import checkpoint
from ratoon.training.method import Method

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
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    checkpoint.write_model(model, beside, tokenizer)
    checkpoint.seal(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
    return folder
