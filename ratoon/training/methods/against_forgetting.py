"""train.forgetting: what keeps the old while the new is learned."""

from typing import TYPE_CHECKING

from ratoon.config import ConfigError
from ratoon.training.method import Method
from ratoon.training.methods.anchor import Anchor
from ratoon.training.methods.average import Average
from ratoon.training.methods.elastic import Elastic
from ratoon.training.methods.interpolation import Interpolation
from ratoon.training.methods.parent import KeptParent, Parent
from ratoon.training.methods.soft_mask import SoftMask

if TYPE_CHECKING:
    from ratoon.training.methods import Setting


def build(setting: "Setting") -> list[Method]:
    """In the order in which they act on one update: held units first, then the way back, then what is averaged; and
    on the released weights: the average, then the parent's part."""
    recipe = setting.recipe.forgetting
    found: list[Method] = []
    if recipe.parent.beta > 0:
        k = recipe.parent.top_k
        found.append(Parent(setting) if k is None else KeptParent(k, setting))
    if recipe.elastic.strength > 0:
        found.append(Elastic(setting))
    if recipe.soft_mask.strength > 0:
        found.append(SoftMask(setting))
    if recipe.anchor.epsilon < 1:
        check_reached("anchor.every", recipe.anchor.every, setting)
        found.append(Anchor(recipe.anchor, setting.model))
    if recipe.average.decay > 0:
        check_reached("average.start", recipe.average.start + 1, setting)
        found.append(Average(recipe.average))
    if recipe.interpolation < 1:
        if setting.recipe.adapter is not None:
            raise ConfigError(
                f"train.forgetting.interpolation: {recipe.interpolation} with an adapter, whose own release_scale is "
                f"just that; set train.adapter.release_scale: {recipe.interpolation} and leave this out"
            )
        found.append(Interpolation(recipe.interpolation, setting))
    return found


def check_reached(key: str, step: int, setting: "Setting") -> None:
    """Refuse what would never happen in this run: a method that is asked for and does nothing is a mistake."""
    steps = setting.recipe.tokens // (setting.recipe.rows_per_step * setting.mixture.row_tokens)
    if step > steps:
        raise ConfigError(
            f"train.forgetting.{key}: comes to act at step {step:,} of a run of {steps:,}; lower it, or leave it out"
        )
