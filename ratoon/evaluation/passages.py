"""Which passage continues this one? Multiple-choice items out of held-out documents.

Every document is cut by the same rule into a context and the passage that follows it. Each such passage is the right
answer of its own item and may be a wrong answer in the items of other documents: right and wrong answers come from
the same distribution and have the same length, so that nothing but the context tells them apart.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypedDict

from ratoon.config import NextPassage

SPACES = b" \t\r\n"
SEARCH_BYTES = 40  # how far past the wanted place a word may end
TRIES_PER_CHOICE = 50


class Passage(NamedTuple):
    document: str
    place: int  # byte of the document at which the continuation starts
    context: str
    continuation: str


class Item(TypedDict):
    id: str
    document: str
    context: str
    choices: list[str]
    gold: int


def rank(*key: object) -> int:
    """A number that depends on the key alone: the same order on every machine and in every release."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, key)).encode()).digest()[:8], "big")


def passages(document: str, text: str, form: NextPassage, seed: int) -> Iterator[Passage]:
    """Passages of one document that do not overlap, in an order drawn by hash."""
    raw = text.encode()
    span = form.context_bytes + SEARCH_BYTES + form.continuation_bytes
    for window in sorted(range(len(raw) // span), key=lambda k: rank(seed, document, k)):
        start = window * span + form.context_bytes
        place = word_end(raw, start, start + SEARCH_BYTES)
        if place is None:
            continue
        context = raw[place - form.context_bytes : place].decode(errors="ignore")
        continuation = raw[place : place + form.continuation_bytes].decode(errors="ignore")
        if says_something(context) and says_something(continuation):
            yield Passage(document, place, context, continuation)


def word_end(raw: bytes, start: int, stop: int) -> int | None:
    """The first place in [start, stop) where a word ends and white space begins.

    There every byte-level tokenizer splits, so that context and continuation share no token.
    """
    for place in range(start, stop):
        if raw[place] in SPACES and raw[place - 1] not in SPACES:
            return place
    return None


def says_something(text: str) -> bool:
    """Blank lines and indentation have many continuations, none of them wrong."""
    return 2 * sum(len(word) for word in text.split()) >= len(text)


def pool(documents: list[tuple[str, str]], form: NextPassage, count: int, seed: int) -> list[Passage]:
    """Up to `count` passages: the first of every document, then the second of every document, and so on."""
    per_document = [passages(document, text, form, seed) for document, text in documents]
    found: list[Passage] = []
    while per_document and len(found) < count:
        turn = [(left, next(left, None)) for left in per_document]
        found.extend(islice((passage for _, passage in turn if passage is not None), count - len(found)))
        per_document = [left for left, passage in turn if passage is not None]
    return found


def items(found: list[Passage], choices: int, seed: int) -> list[Item]:
    """One item per passage that has `choices - 1` different wrong answers in other documents."""
    made: list[Item] = []
    for passage in found:
        wrong = distractors(passage, found, choices - 1, seed)
        if len(wrong) < choices - 1:
            continue
        # The passages come in an order drawn by hash, so that counting round is a balanced shuffle.
        gold = len(made) % choices
        answers = [*wrong[:gold], passage.continuation, *wrong[gold:]]
        name = f"{passage.document}:{passage.place}"
        made.append(Item(id=name, document=passage.document, context=passage.context, choices=answers, gold=gold))
    return made


def distractors(passage: Passage, found: list[Passage], count: int, seed: int) -> list[str]:
    """Continuations of other documents, all different, drawn by hash; fewer than `count` if there are not enough."""
    seen = {passage.continuation.strip()}
    wrong: list[str] = []
    for turn in range(TRIES_PER_CHOICE * count):
        if len(wrong) == count:
            break
        other = found[rank(seed, passage.document, passage.place, turn) % len(found)]
        if other.document != passage.document and other.continuation.strip() not in seen:
            seen.add(other.continuation.strip())
            wrong.append(other.continuation)
    return wrong
