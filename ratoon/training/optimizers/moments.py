"""How an optimizer's memory of a weight is kept between steps; it is reckoned with in float32.

    fp32   as it is                                                  4 bytes per number
    bf16   rounded by chance, so that small changes add up           2 bytes
    8bit   blocks of 256 numbers, each a code of 8 bits of the        1.016 bytes
           dynamic type of arXiv:2110.02861 times the block's largest

In 8 bits a second moment is kept as its root, which needs half the decades, and never falls to 0 by rounding: a step
divides by it. Tensors under 4,096 numbers stay in fp32 there, as in the paper.

Memories are flat and are worked on in pieces, each in cache from the first to the last of its operations.
"""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from ratoon.training.optimizers.rounding import Chance, write

Kind = Literal["fp32", "bf16", "8bit"]
Memory = dict[str, Tensor]  # an optimizer's state of one weight
SQUARE = "exp_avg_sq"
BLOCK = 256  # divides every piece
SMALL = 4096
TABLE_BITS = 18


def begin(memory: Memory, names: tuple[str, ...], count: int, kind: Kind, device: torch.device) -> None:
    """Zeros under each name, unless something is remembered."""
    for name in names:
        if name in memory:
            continue
        if kind == "8bit" and count >= SMALL:
            memory[name] = torch.zeros(count, dtype=torch.uint8, device=device)
            memory[scale_of(name)] = torch.zeros(-(-count // BLOCK), device=device)
        else:
            memory[name] = torch.zeros(count, dtype=torch.bfloat16 if kind == "bf16" else torch.float32, device=device)


def scale_of(name: str) -> str:
    return f"{name}_scale"


def recall(memory: Memory, name: str, part: slice) -> Tensor:
    """float32 numbers, to be changed in place and given to `keep`."""
    found = memory[name][part]
    if found.dtype != torch.uint8:
        return found.float()  # the memory itself where it is float32
    value = decode(found, memory[scale_of(name)][blocks(part)], signed=name != SQUARE)
    return value.square_() if name == SQUARE else value


def keep(memory: Memory, name: str, value: Tensor, part: slice, chance: Chance) -> None:
    target = memory[name][part]
    if target.dtype == torch.uint8:
        root = name == SQUARE
        codes, scale = encode(value.sqrt() if root else value, signed=not root)
        target.copy_(codes)
        memory[scale_of(name)][blocks(part)] = scale
    elif target.data_ptr() != value.data_ptr():
        write(target, value, chance, part)


def blocks(part: slice) -> slice:
    return slice(part.start // BLOCK, -(-part.stop // BLOCK))


def encode(value: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """(codes, scale of each block). Unsigned codes of what is not 0 are not 0."""
    blocked = torch.nn.functional.pad(value, (0, -len(value) % BLOCK)).view(-1, BLOCK)
    scale = blocked.abs().amax(1)
    share = blocked / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    # By table from the first bits of a float32: a search among 256 levels takes 50 times as long.
    first = share.view(torch.int32).bitwise_right_shift_(32 - TABLE_BITS - (0 if signed else 1))
    first.bitwise_and_((1 << TABLE_BITS) - 1)
    return code_table(signed, value.device).index_select(0, first.view(-1))[: len(value)], scale


def decode(codes: Tensor, scale: Tensor, *, signed: bool) -> Tensor:
    value = levels(signed, codes.device).index_select(0, codes.int())
    whole = len(value) // BLOCK * BLOCK
    value[:whole].view(-1, BLOCK).mul_(scale[: whole // BLOCK, None])
    value[whole:].mul_(scale[-1])
    return value


@lru_cache
def levels(signed: bool, device: torch.device) -> Tensor:
    """The 256 numbers of a code, ascending up to 1; each decade from 1e-7 on has twice the levels of the one before."""
    positive = [torch.ones(1)]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade * (1 if signed else 2) + 1)
        positive.append((edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade - 6))
    above = torch.cat(positive)
    below = -above[1:] if signed else above[:0]  # one level less, for 0
    return torch.cat([below, torch.zeros(1), above]).sort().values.to(device)


@lru_cache
def code_table(signed: bool, device: torch.device) -> Tensor:
    """Code of a float32 by its first bits, its sign among them where there is one: of the middle of what has these."""
    dropped = 32 - TABLE_BITS - (0 if signed else 1)
    first = torch.arange(1 << TABLE_BITS, dtype=torch.int64)
    bits = (first << dropped) + (1 << (dropped - 1))
    middle = torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32).view(torch.float32)
    table = levels(signed, torch.device("cpu"))
    codes = torch.bucketize(middle.nan_to_num(), (table[1:] + table[:-1]) / 2)
    if not signed:
        codes[1:] = codes[1:].clamp(min=1)
    return codes.to(torch.uint8).to(device)
