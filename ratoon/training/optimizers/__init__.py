"""Which optimizer moves which weights. State is tensors alone, and chance has no history: a checkpoint is exact."""

from typing import TYPE_CHECKING

import torch

from ratoon.config import TrainConfig
from ratoon.training.optimizers.groups import groups
from ratoon.training.optimizers.moments import Kind
from ratoon.training.optimizers.rules import RuledOptimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def new_optimizer(model: "PreTrainedModel", recipe: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's, over what of `model` is trained. A group may scale the rate by `rate_factor`.

    Raises ConfigError for a pattern or a rank that fits no weight.
    """
    made = groups(model, recipe)
    betas, asked, kind = (recipe.beta1, recipe.beta2), recipe.optimizer, kept_as(recipe)
    if asked.name == "adamw" and kind == "fp32" and not is_pure(recipe):
        for group in made:
            group.pop("rule")
        return remembering(torch.optim.AdamW(made, lr=0.0, betas=betas, fused=True))
    own = {"muon": asked.muon.model_dump(), "galore": asked.galore.model_dump()}
    for group in made:
        group.update(betas=betas, kind=kind, **own.get(group["rule"], {}))
    return RuledOptimizer(made, recipe.seed)


def remembering(optimizer: torch.optim.AdamW) -> torch.optim.AdamW:
    """Its memory of every weight from the beginning, 0 as torch has it at the first update.

    Made in the middle of the first step, it would lie strewn among the activations that were just let go of, and C's
    allocator would find no room there for the next step's: 6% more memory at 135M parameters.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            step = torch.zeros((), dtype=torch.float32, device=weight.device)
            optimizer.state[weight] = {"step": step, **moments}
    return optimizer


def is_pure(recipe: TrainConfig) -> bool:
    return recipe.precision == "bf16_pure"


def kept_as(recipe: TrainConfig) -> Kind:
    """How the recipe's optimizer remembers."""
    return recipe.optimizer.moments or ("bf16" if is_pure(recipe) else "fp32")
