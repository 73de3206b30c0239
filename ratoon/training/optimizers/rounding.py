"""Rounding to bf16 that is right on average, with chance that has no history.

Nearest rounding loses every step smaller than 1/512 of its weight, at usual rates all of them: the weights stand still.
Up or down with the chance of its nearness, each step arrives on average.

The noise is reckoned from seed, weight, step and place, the same on every device: a resumed run needs nothing of it.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

PIECE = {"cpu": 1 << 16, "cuda": 1 << 26}  # numbers worked on at once: what stays in cache, what fills a GPU


class Chance(NamedTuple):
    """What the noise of one tensor at one step is made of: two keys of 32 bits."""

    add: int
    turn: int

    @classmethod
    def of(cls, *what: int | str) -> "Chance":
        digest = blake2b(repr(what).encode(), digest_size=8).digest()
        return cls(*(int.from_bytes(half, "little", signed=True) for half in (digest[:4], digest[4:])))

    def bits(self, part: slice, device: torch.device) -> Tensor:
        """int32, 16 fair bits for each place of `part`."""
        # The finish of MurmurHash3, whose products wrap around.
        x = torch.arange(part.start, part.stop, dtype=torch.int32, device=device).add_(self.add).mul_(-1640531535)
        x.bitwise_xor_(x >> 15).add_(self.turn).mul_(-2048144789)
        x.bitwise_xor_(x >> 13).mul_(-1028477387)
        return x.bitwise_xor_(x >> 16).bitwise_and_(0xFFFF)


def pieces(count: int, device: torch.device) -> Iterator[slice]:
    size = PIECE.get(device.type, PIECE["cuda"])
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def to_bf16(value: Tensor, chance: Chance, part: slice) -> Tensor:
    """float32 `value`, the numbers at `part` of a tensor, in bf16; E[result] = value, and a bf16 stays as it is."""
    # A float32 is a bf16 with 16 bits more: noise of 16 bits carries into the rest as often as it should.
    bits = chance.bits(part, value.device).add_(value.view(torch.int32))
    return bits.bitwise_and_(-(1 << 16)).view(torch.float32).bfloat16()


def write(target: Tensor, value: Tensor, chance: Chance, part: slice) -> None:
    """Set numbers of a tensor: to the value itself, or on average to it where the tensor is bf16."""
    target.copy_(to_bf16(value, chance, part) if target.dtype == torch.bfloat16 else value)


def write_all(target: Tensor, value: Tensor, chance: Chance) -> None:
    """The same of a whole tensor."""
    flat, given = target.view(-1), value.reshape(-1)
    for part in pieces(len(flat), target.device):
        write(flat[part], given[part], chance, part)
