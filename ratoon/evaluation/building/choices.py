"""Wrong answers of the same type: candidates that are alike answer for each other.

Candidates of one shape are put into blocks of as many as there are choices, and the answers of a block are the choices
of each of its items. In a whole block every answer is right exactly once: whoever sees the choices alone, however
clever, gets one item of the block right, which is chance. Blocks are of like frequency in training text, so that what
is left where an item is dropped tells little either.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ratoon.evaluation.building.candidates import Candidate, stands
from ratoon.evaluation.passages import rank

OPEN_BLOCKS = 8  # looked at for a candidate before a new one is begun: what is near in frequency stays together


class Item(NamedTuple):
    """`block` names the items that share their choices."""

    asked: Candidate
    choices: tuple[str, ...]
    gold: int
    block: int


def items(found: Sequence[Candidate], choices: int, frequency: Callable[[str], float], seed: int) -> list[Item]:
    """The items of all whole blocks. Every answer is asked for once; what finds no block is left out."""
    shapes: dict[tuple[str, str], list[Candidate]] = {}
    seen: set[tuple[str, str]] = set()
    for one in found:
        if (key := (one.kind, one.answer.strip().casefold())) not in seen:
            seen.add(key)
            shapes.setdefault((one.kind, one.shape), []).append(one)
    made: list[Item] = []
    for shape in sorted(shapes):
        order = sorted(shapes[shape], key=lambda one: (frequency(one.answer), rank(seed, one.id)))
        for block in blocks(order, choices):
            made += block_items(block, len(made) // choices, seed)
    return made


def blocks(order: Sequence[Candidate], size: int) -> list[list[Candidate]]:
    whole: list[list[Candidate]] = []
    begun: list[list[Candidate]] = []
    for one in order:
        block = next((block for block in begun if all(apart(one, other) for other in block)), None)
        if block is None:
            begun = [*begun[-OPEN_BLOCKS + 1 :], [one]]
        else:
            block.append(one)
            if len(block) == size:
                whole.append(block)
                begun = [other for other in begun if other is not block]
    return whole


def apart(one: Candidate, other: Candidate) -> bool:
    """Whether each may be a wrong answer of the other: another document, which does not speak of it near the place."""
    return one.document != other.document and not stands(one, other.evidence) and not stands(other, one.evidence)


def block_items(block: Sequence[Candidate], number: int, seed: int) -> list[Item]:
    """Right answers stand equally often at every place, in an order that no text decides."""
    order = sorted(block, key=lambda one: rank(seed, "place", one.id))
    turn = rank(seed, "turn", order[0].id) % len(order)
    made = []
    for place, one in enumerate(order):
        gold = (place + turn) % len(order)
        wrong = [other.answer for other in sorted(order, key=lambda o: rank(seed, one.id, o.id)) if other is not one]
        made.append(Item(one, (*wrong[:gold], one.answer, *wrong[gold:]), gold, number))
    return made
