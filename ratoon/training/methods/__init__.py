"""Every way to train otherwise than plainly, built from the recipe. What a method is: ratoon/training/method.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ratoon.config import TrainConfig
from ratoon.stream.mixture import Mixture
from ratoon.training.method import Method
from ratoon.training.methods import adapter, against_forgetting, losses
from ratoon.training.methods.ahead import Gather, alone
from ratoon.training.request import Portion

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Setting:
    """What methods are built from, before the first step; nothing has moved yet."""

    model: "PreTrainedModel"  # holds the parent's weights
    parent: Path  # their directory
    recipe: TrainConfig
    mixture: Mixture
    roles: dict[str, str]  # source -> general or domain
    portions: dict[str, Portion]  # every source, read or not
    folder: Path  # of the run
    gather: Gather = alone  # the values of all ranks that share a step
    context: int | None = None  # tokens that a model is given at once, at most; None: a row's


def build(setting: Setting) -> tuple[Method, ...]:
    """The methods of a recipe, losses first; none for a plain one. Raises ConfigError for what cannot be had."""
    return (*losses.build(setting, setting.gather), *against_forgetting.build(setting), *adapter.build(setting))
