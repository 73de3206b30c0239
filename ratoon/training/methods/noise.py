"""NEFTune: noise on the embeddings while training (arXiv:2310.05914).

    e + u alpha / sqrt(T d),    u uniform in (-1, 1)

T  tokens of a row     d  width of the embedding     alpha  5, 10 and 15 are the published ones

Evaluation is without noise. The noise of a row is a hash of seed, step, and where the row lies: the same on every
device, on every rank, in every release of torch, however a step is cut up.
"""

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ratoon.training.method import Method, Step

if TYPE_CHECKING:
    from ratoon.training.methods import Setting

# SplitMix64: the step between two counters, the two factors of the finaliser, as signed 64-bit integers.
GOLDEN, FIRST, SECOND = (
    n - 2**64 if n >= 2**63 else n for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def hashed(key: int, count: int, device: torch.device) -> Tensor:
    """(count,) float32, uniform in (-1, 1): the first numbers of SplitMix64 from `key`, their upper 24 bits."""
    x = torch.arange(1, count + 1, device=device).mul_(GOLDEN).add_(key)
    x = (x ^ shifted(x, 30)).mul_(FIRST)
    x = (x ^ shifted(x, 27)).mul_(SECOND)
    x = x ^ shifted(x, 31)
    return (shifted(x, 40).float() + 0.5) / 2**23 - 1


def shifted(x: Tensor, bits: int) -> Tensor:
    """To the right with zeros from the left; torch repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def row_key(*parts: int | str) -> int:
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little", signed=True)


class Noise(Method):
    name = "noise"

    def __init__(self, setting: "Setting") -> None:
        self.alpha = setting.recipe.loss.noise_alpha
        self.seed = setting.recipe.seed
        self.order = setting.mixture.order
        self.keys: list[int] | None = None
        setting.model.get_input_embeddings().register_forward_hook(self.disturb)

    def before_forward(self, step: Step, rows: slice) -> None:
        self.keys = [self.key(step, i) for i in range(len(step.batch.tokens))[rows]]

    def key(self, step: Step, i: int) -> int:
        """By the row and not by its number in the step, which differs between ranks."""
        place = step.batch.place
        if place is None:
            return row_key(self.seed, "noise", step.number, i)
        name = self.order.names[int(place.source[i])]
        return row_key(self.seed, "noise", step.number, name, int(place.epoch[i]), int(place.row[i]))

    def disturb(self, module: Any, inputs: Any, embedded: Tensor) -> Tensor:
        # For the one pass that was announced: those that only look, also of other methods, see no noise.
        if self.keys is None or not module.training:
            return embedded
        keys, self.keys = self.keys, None
        width = embedded.shape[-1]
        length = embedded.numel() // width // len(keys)
        rows = [hashed(key, length * width, embedded.device) for key in keys]
        noise = torch.stack(rows).reshape(embedded.shape) * (self.alpha / math.sqrt(length * width))
        return embedded + noise.to(embedded.dtype)
