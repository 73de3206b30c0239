"""One optimizer whose weights move by the rule of their group.

    W <- (1 - rate decay) W - rate D        D the rule's direction, in float32 whatever W and the memory are kept in

    adam    m / (1 - b1^t)  /  (sqrt(v / (1 - b2^t)) + 1e-8)
    muon    0.2 sqrt(max(rows, columns)) O(m')      m' the gradient's mean, Nesterov; O makes its singular values 1
    galore  scale P adam(P' G)              P the first `rank` singular vectors of the gradient G at every `gap`th step

Of GaLore the moments are not turned when P is, as published; its gain is in memory that is kept, not in the gradient,
which is there in full. Silent about weights that are cut up over several ranks: muon and galore need whole matrices.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ratoon.training.optimizers.moments import SQUARE, Memory, begin, keep, recall
from ratoon.training.optimizers.rounding import Chance, pieces, write

What = tuple[int, int, int]  # seed, weight, step: whose chance it is
EPSILON = 1e-8
QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0, kellerjordan.github.io/posts/muon
ITERATIONS = 5


class RuledOptimizer(torch.optim.Optimizer):
    """groups  as torch's, each with `rule`, `kind` of moments, `weight_decay`, `betas` and what its rule asks for."""

    def __init__(self, groups: list[dict[str, Any]], seed: int) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "rule": "adam", "kind": "fp32"})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure else None
        place = 0
        for group in self.param_groups:
            for weight in group["params"]:
                place += 1
                if weight.grad is not None:
                    self.move(weight, group, place)
        return loss

    def move(self, weight: Tensor, group: dict[str, Any], place: int) -> None:
        memory = self.state[weight]
        count = int(memory["step"]) + 1 if "step" in memory else 1
        memory["step"] = torch.tensor(float(count))  # on the CPU: it is read at every step
        what = (self.seed, place, count)
        assert weight.grad is not None
        direction = RULES[group["rule"]](weight.grad.float(), memory, group, what).reshape(-1)
        shrink, chance, flat = 1 - group["lr"] * group["weight_decay"], Chance.of(*what, "weight"), weight.view(-1)
        for part in pieces(len(flat), weight.device):
            moved = flat[part].float() * shrink
            write(flat[part], moved.sub_(direction[part], alpha=group["lr"]), chance, part)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As it was given: torch's own would turn codes and moments into the weights' type."""
        for group, given in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({key: value for key, value in given.items() if key != "params"})
            for weight, key in zip(group["params"], given["params"], strict=True):
                found = state_dict["state"].get(key, {})
                self.state[weight] = {name: value.to(weight.device) for name, value in found.items()}


def adam(gradient: Tensor, memory: Memory, group: dict[str, Any], what: What) -> Tensor:
    beta1, beta2 = group["betas"]
    count, flat = int(memory["step"]), gradient.reshape(-1)
    begin(memory, ("exp_avg", SQUARE), len(flat), group["kind"], gradient.device)
    chances = {name: Chance.of(*what, name) for name in ("exp_avg", SQUARE)}
    direction = torch.empty_like(flat)
    for part in pieces(len(flat), gradient.device):
        slope = flat[part]
        mean = recall(memory, "exp_avg", part).lerp_(slope, 1 - beta1)
        square = recall(memory, SQUARE, part).mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        root = square.sqrt().div_((1 - beta2**count) ** 0.5).add_(EPSILON)
        torch.div(mean, root, out=direction[part]).div_(1 - beta1**count)
        keep(memory, "exp_avg", mean, part, chances["exp_avg"])
        keep(memory, SQUARE, square, part, chances[SQUARE])
    return direction.view_as(gradient)


def muon(gradient: Tensor, memory: Memory, group: dict[str, Any], what: What) -> Tensor:
    flat, chance = gradient.reshape(-1), Chance.of(*what, "momentum")
    begin(memory, ("momentum",), len(flat), group["kind"], gradient.device)
    ahead = torch.empty_like(flat)
    for part in pieces(len(flat), gradient.device):
        mean = recall(memory, "momentum", part).lerp_(flat[part], 1 - group["momentum"])
        ahead[part] = flat[part].lerp(mean, group["momentum"])
        keep(memory, "momentum", mean, part, chance)
    return orthogonal(ahead.view_as(gradient)).float().mul_(0.2 * max(gradient.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """bf16 matrix of the same singular vectors, its singular values near 1 (between 0.5 and 1.5)."""
    a, b, c = QUINTIC
    wide = matrix.bfloat16() if matrix.shape[0] <= matrix.shape[1] else matrix.bfloat16().T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def galore(gradient: Tensor, memory: Memory, group: dict[str, Any], what: What) -> Tensor:
    if (int(memory["step"]) - 1) % group["gap"] == 0:
        memory["projector"] = directions(gradient, group["rank"])
    projector = memory["projector"]
    if gradient.shape[0] <= gradient.shape[1]:
        small = adam(projector.T @ gradient, memory, group, what)
        return (projector @ small).mul_(group["scale"])
    small = adam(gradient @ projector, memory, group, what)
    return (small @ projector.T).mul_(group["scale"])


def directions(gradient: Tensor, rank: int) -> Tensor:
    """(shorter side, rank): the first singular vectors of a gradient, on its shorter side."""
    wide = gradient if gradient.shape[0] <= gradient.shape[1] else gradient.T
    return torch.linalg.svd(wide, full_matrices=False).U[:, :rank].contiguous()


RULES: dict[str, Callable[[Tensor, Memory, dict[str, Any], What], Tensor]] = {
    "adam": adam,
    "muon": muon,
    "galore": galore,
}
