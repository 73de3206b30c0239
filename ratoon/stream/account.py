"""What was read of each source, and what that was worth.

Tokens are counted by rows of full length, as the tokens of a run are: the one short row of a source counts as whole.
"""

import math
from typing import NamedTuple

from ratoon.stream.order import Order

# Repeats after which a further one is worth 1/e of a fresh token (arXiv:2305.16264); as in ratoon.laws, which fits it,
# but which a machine that only trains does not have.
REPEATS = 15.3878


class Read(NamedTuple):
    """Of one source up to a step."""

    tokens: int
    unique_tokens: int  # of them, before any came again
    epochs: float  # times the rows in use were read
    effective_tokens: float  # fresh tokens that would have been worth as much


def effective(unique: float, seen: float, repeats: float = REPEATS) -> float:
    """Fresh tokens worth as much as `seen` tokens of `unique` ones: u + u R (1 - e^(-(seen/u - 1)/R))."""
    unique = min(unique, seen)
    return unique - unique * repeats * math.expm1(-(seen / unique - 1) / repeats) if unique else 0.0


def account(order: Order, position: int, row_tokens: int) -> dict[str, Read]:
    """Source -> what was read of it at the positions before `position`."""
    found = {}
    for name, rows, used in zip(order.names, order.read_before(position).tolist(), order.used.tolist(), strict=True):
        tokens, unique = rows * row_tokens, min(rows, used) * row_tokens
        found[name] = Read(tokens, unique, rows / used, effective(unique, tokens))
    return found
