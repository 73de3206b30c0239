"""Runs of n words that a document repeats, for growing n, exactly and without a loop over documents.

An n-gram can only repeat where its first and its last n - 1 words repeat: each length looks at what the one before
left, and in prose little is left after three words.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ratoon.corpus.rules.hashing import MIX, MODULUS, Hashes, mixed

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Grams(NamedTuple):
    """The n-grams that occur more than once in their document, all occurrences, in order."""

    n: int
    at: Ints  # their first word
    group: npt.NDArray[np.int32]
    times: npt.NDArray[np.int32]
    first: Bools  # whether it is the first of its kind


def within(document: Ints, hashes: Hashes) -> Hashes:
    """Keys that differ between documents."""
    return mixed(hashes + mixed(document.astype(np.uint64) + np.uint64(1)))


def leaders(keys: Hashes) -> Ints:
    """For each key the first place it is found at.

    By a table of slots in which the first comer stays, and again with what met a stranger there: several times as
    fast as sorting, and as exact.
    """
    of, waiting = _seat(keys)
    spread = int(MIX)
    while len(waiting):
        mine = mixed(keys[waiting] * np.uint64(spread))
        leader, strangers = _seat(mine)
        of[waiting] = waiting[leader]
        waiting = waiting[strangers]
        spread = spread * int(MIX) % MODULUS
    return of


def _seat(keys: Hashes) -> tuple[Ints, Ints]:
    """Of each key the first comer in its slot, and which keys met another key there."""
    bits = max(10, (2 * len(keys)).bit_length())
    slot = (keys >> np.uint64(64 - bits)).astype(np.int64)
    table = np.empty(1 << bits, np.int64)
    table[slot[::-1]] = np.arange(len(keys) - 1, -1, -1)  # of several the last one written stays: the first
    leader = table[slot]
    return leader, np.flatnonzero(keys[leader] != keys)


def repeats(document: Ints, hashes: Hashes) -> Bools:
    """Whether the same hash came before in the same document."""
    return leaders(within(document, hashes)) != np.arange(len(hashes))


def repeated(document: Ints, hashes: Hashes, longest: int) -> Iterator[Grams]:
    """n = 2, 3, ..., longest."""
    at = np.flatnonzero(document[1:] == document[:-1])
    keys = mixed(within(document[:-1], hashes[:-1]) + MIX * hashes[1:])[at]
    for n in range(2, longest + 1):
        group = leaders(keys)
        times = np.bincount(group, minlength=len(group))[group]
        more = times > 1
        first = group == np.arange(len(group))
        at, keys = at[more], keys[more]
        yield Grams(n, at, group[more].astype(np.int32), times[more].astype(np.int32), first[more])
        # Longer by one word where the run that begins one word later repeats too: it is of the same document.
        on = np.flatnonzero(at[1:] == at[:-1] + 1)
        at, keys = at[on], mixed(keys[on] + MIX * hashes[at[on] + n])


def commonest(grams: Grams, document: Ints) -> tuple[Ints, Ints, Ints]:
    """(document, first word, count) of the commonest repeated n-gram of each document that has one; of equally
    common ones the first to occur."""
    at, count = grams.at[grams.first], grams.times[grams.first]
    where = document[at]
    new = _changes(where)
    most = np.maximum.reduceat(count, np.flatnonzero(new)) if len(at) else count
    top = count == np.repeat(most, np.diff(np.append(np.flatnonzero(new), len(at))))
    where, at, count = where[top], at[top], count[top]
    best = _changes(where)
    return where[best], at[best], count[best]


def _changes(values: Ints) -> Bools:
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]


def covered(grams: Grams, document: Ints, before: Ints, num_documents: int) -> Ints:
    """Characters per document inside n-grams that came before, each once; before: characters before each word.

    At least what `disjoint` counts, so it tells which documents are worth the exact answer.
    """
    at = grams.at[~grams.first]
    begin = at.copy()
    begin[1:] = np.maximum(at[1:], at[:-1] + grams.n)
    chars = np.maximum(before[at + grams.n] - before[np.minimum(begin, at + grams.n)], 0)
    return np.bincount(document[at], chars, num_documents).astype(np.int64)


def disjoint(grams: Grams, chosen: slice, before: Ints, enough: float = np.inf) -> int:
    """Characters one document repeats, read as Gopher's rule is commonly applied: from left to right; an n-gram seen
    before counts and is stepped over whole, one not seen before is remembered. More than `enough` is not counted."""
    seen: set[int] = set()
    free = chars = 0
    n = grams.n
    for at, group in zip(grams.at[chosen].tolist(), grams.group[chosen].tolist(), strict=True):
        if at < free:
            continue
        if group in seen:
            chars += int(before[at + n] - before[at])
            free = at + n
            if chars > enough:
                break
        else:
            seen.add(group)
    return chars
