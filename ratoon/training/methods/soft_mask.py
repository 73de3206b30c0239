"""Soft masks over heads and feed-forward units (DAS, arXiv:2302.03241).

    I_u = |tanh(z)|,  z: slope of the parent's loss on general rows with respect to a gate of 1 on unit u, summed over
                      the rows, less its mean over the units of its group and layer, divided by their deviation
    theta_u moves by (1 - strength I_u) times what the optimizer would move it, weight decay included

On the update, not on the gradient: Adam divides a gradient by its own size, so that a constant factor is lost.
Different from the paper: the loss on general text stands for what the parent knows, in place of the distance between
two passes with dropout, which these models do not have; a unit's own weights are the rows that make it; no contrastive
loss. Embeddings, norms and head belong to no unit and move freely.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ratoon.training.checkpoint import trainable
from ratoon.training.method import Method, Step
from ratoon.training.methods.importance import general_rows, row_losses
from ratoon.training.methods.units import Layer, Owned, find_units
from ratoon.training.optimizers.rounding import Chance, write_all

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.stream.mixture import Batch
    from ratoon.training.loop import State
    from ratoon.training.methods import Setting

KEY = "train.forgetting.soft_mask"
SEED = -2  # of the rounding of bf16 weights


class SoftMask(Method):
    name = "soft_mask"

    def __init__(self, setting: "Setting") -> None:
        self.recipe = setting.recipe.forgetting.soft_mask
        self.rows = general_rows(setting, self.recipe.rows, f"{KEY}.rows")
        self.layers = find_units(setting.model, KEY)
        self.importance: dict[str, Tensor] = {}  # prefix and group -> (units,); empty before the first step
        self.before: dict[str, Tensor] = {}

    def begin(self, model: "PreTrainedModel", step: Step) -> None:
        if not self.importance:
            found = slopes(model, self.layers, self.rows, step.separator)
            self.importance = {name: torch.tanh(z_score(slope)).abs() for name, slope in found.items()}

    @torch.no_grad()
    def before_update(self, state: "State") -> None:
        names = {owned.name for layer in self.layers for owned in layer.owned}
        self.before = {name: p.detach().clone() for name, p in trainable(state.model) if name in names}

    @torch.no_grad()
    def after_update(self, state: "State") -> None:
        parameters = dict(trainable(state.model))
        held = [(layer, owned) for layer in self.layers for owned in layer.owned if owned.name in self.before]
        for place, (layer, owned) in enumerate(held):
            parameter, before = parameters[owned.name], self.before[owned.name]
            # lerp is exact at both ends: a unit of importance 0 moves as if nothing were here.
            kept = torch.lerp(before.float(), parameter.float(), self.freedom(layer, owned, parameter))
            write_all(parameter, kept, Chance.of(SEED, place, state.step))
        self.before = {}

    def freedom(self, layer: Layer, owned: Owned, parameter: Tensor) -> Tensor:
        """Part of its move that each place of a weight keeps, in a shape that spreads over it."""
        # A place that several units share is as important as the most important of them.
        importance = self.importance[layer.prefix + owned.group].reshape(-1, owned.shared).amax(1)[owned.units]
        shape = [1] * parameter.ndim
        shape[owned.axis] = -1
        return (1 - self.recipe.strength * importance).to(parameter.device).reshape(shape)

    def tensors(self) -> dict[str, Tensor]:
        return self.importance

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.importance = {name: tensor.clone() for name, tensor in tensors.items()}


def z_score(slope: Tensor) -> Tensor:
    apart = slope - slope.mean()
    deviation = slope.std(correction=0)
    return apart / deviation if deviation > 0 else torch.zeros_like(slope)


def slopes(
    model: "PreTrainedModel", layers: list[Layer], rows: list["Batch"], separator: int | None
) -> dict[str, Tensor]:
    """Prefix and group -> (units,): of the summed row losses with respect to each unit's gate, on the CPU."""
    with gated(layers) as gates:
        total = {name: torch.zeros_like(gate, dtype=torch.float32) for name, gate in gates.items()}
        for loss in row_losses(model, rows, separator):
            for name, slope in zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True):
                total[name] += slope
    return {name: found.cpu() for name, found in total.items()}


@contextmanager
def gated(layers: list[Layer]) -> Iterator[dict[str, Tensor]]:
    """Gates of 1 on every unit, for a while."""
    gates: dict[str, Tensor] = {}
    handles = []

    def gate(name: str, units: int, like: Tensor) -> Tensor:
        gates[name] = torch.ones(units, dtype=like.dtype, device=like.device, requires_grad=True)
        return gates[name]

    for layer in layers:
        weight = layer.out.weight
        assert isinstance(weight, Tensor)
        heads = gate(f"{layer.prefix}heads", layer.heads, weight)
        inner = gate(f"{layer.prefix}inner", layer.inner, weight)
        outer = gate(f"{layer.prefix}outer", layer.outer, weight)
        handles += [
            layer.out.register_forward_pre_hook(scale_heads(heads)),
            layer.down.register_forward_pre_hook(lambda _, given, inner=inner: (given[0] * inner,)),
            layer.down.register_forward_hook(lambda _, given, found, outer=outer: found * outer),
        ]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def scale_heads(gate: Tensor) -> Any:
    def hook(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        apart = given[0].unflatten(-1, (len(gate), -1))
        return ((apart * gate[:, None]).flatten(-2),)

    return hook
