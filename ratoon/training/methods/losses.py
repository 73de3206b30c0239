"""train.loss: which tokens count, how much, and what else is asked of them.

None of these remembers anything: what a step counts follows from its number, its rows and the weights. Label smoothing
is in the loop itself.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ratoon.config import ConfigError
from ratoon.config.loss import Distill, Reweight, Select
from ratoon.training.method import Method
from ratoon.training.methods.ahead import Gather, alone
from ratoon.training.methods.distill import Distilled, weight_of
from ratoon.training.methods.noise import Noise
from ratoon.training.methods.other_model import find
from ratoon.training.methods.reference import CachedReference, Reference
from ratoon.training.methods.reweight import Reweighted
from ratoon.training.methods.selection import Selected

if TYPE_CHECKING:
    from ratoon.training.methods import Setting


def build(setting: "Setting", gather: Gather = alone) -> list[Method]:
    """gather  where several ranks share a step, the values of all of them"""
    recipe, loss = setting.recipe, setting.recipe.loss
    found: list[Method] = []
    if loss.noise_alpha:
        found.append(Noise(setting))
    if loss.reweight:
        check_reached(loss.reweight, setting)
        found.append(Reweighted(recipe, loss.reweight, gather))
    if loss.select and loss.select.keep < 1:
        found.append(Selected(recipe, loss.select.keep, reference(loss.select, setting), gather))
    if loss.distill and (method := distilled(loss.distill, setting)):
        found.append(method)
    return found


def check_reached(config: Reweight, setting: "Setting") -> None:
    """Refuse what would never happen in this run."""
    if config.burn_in_steps >= (steps := steps_of(setting)):
        raise ConfigError(
            f"train.loss.reweight.burn_in_steps: {config.burn_in_steps:,} plain steps first, in a run of {steps:,}; "
            f"lower it, or leave reweight out"
        )


def steps_of(setting: "Setting") -> int:
    return setting.recipe.tokens // (setting.recipe.rows_per_step * setting.mixture.row_tokens)


def reference(config: Select, setting: "Setting") -> Reference:
    path = find(config.reference, setting, "train.loss.select.reference")
    if config.cache is None:
        return Reference(path, setting)
    return CachedReference(path, setting, Path(config.cache).expanduser().absolute())


def distilled(config: Distill, setting: "Setting") -> Distilled | None:
    """None for a teacher that is never heard."""
    weight = weight_of(config, steps_of(setting))
    if weight.at(0) == 0:
        return None
    path = find(config.teacher, setting, "train.loss.distill.teacher")
    return Distilled(path, weight, config.temperature, setting)
