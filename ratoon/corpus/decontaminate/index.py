"""The items of all targets, made ready to be met in a corpus.

An item of `short` words or more has its n-grams in a table. Those that more than `common` items of its target share
are the wording of the benchmark (an instruction, a licence) and none of the item's own: they neither cover it nor have
to be covered. An item with no n-gram of its own, and every shorter one, is looked for as a whole phrase.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.config import Decontaminate
from ratoon.corpus.decontaminate.items import Target
from ratoon.corpus.decontaminate.phrases import ANCHOR, Phrases, Wording, phrases
from ratoon.corpus.decontaminate.split import WORDS, runs, splits
from ratoon.corpus.decontaminate.table import Table, table
from ratoon.corpus.dedup.words import I64, U64

# Raise it whenever the same items and thresholds would find other documents.
VERSION = 1


class Entry(NamedTuple):
    """One wording of an item, and the items that share it. Words are parted by spaces."""

    target: int
    ids: tuple[str, ...]
    words: str


class Counts(NamedTuple):
    """Items of one target, by how they are looked for."""

    items: int
    covered: int = 0
    whole: int = 0
    too_short: int = 0


class Index(NamedTuple):
    config: Decontaminate
    names: tuple[str, ...]  # of the targets
    kinds: tuple[str, ...]
    counts: tuple[Counts, ...]
    entries: tuple[Entry, ...]
    own: I64  # words of each entry in n-grams of its own
    needed: NDArray[np.float64]  # share of them that one document must hold
    grams: Table
    shared: Table  # longer n-grams, only reported
    short: Phrases
    long: Phrases
    digest: str


class _Item(NamedTuple):
    target: int
    ids: tuple[str, ...]
    question: Wording
    answer: Wording

    @property
    def whole(self) -> Wording:
        hashes = np.concatenate([self.question.hashes, self.answer.hashes])
        return Wording((*self.question.words, *self.answer.words), hashes)


def build(targets: Sequence[Target], config: Decontaminate) -> Index:
    """What is found does not depend on the order of the items of a target."""
    items = [item for number, target in enumerate(targets) for item in _items(number, target, config)]
    sizes = np.array([len(item.whole.hashes) for item in items], np.int64)
    covering = np.flatnonzero(sizes >= config.short)
    grams, own = _own(items, covering, config.ngram, config.common)
    shared, _ = _own(items, covering, config.report_ngram, config.common)
    brief = [(n, *_asked(items[n])) for n in np.flatnonzero(sizes < config.short).tolist()]
    plain = [(n, items[n].whole, NOTHING) for n in covering[own[covering] == 0].tolist()]
    return Index(
        config=config,
        names=tuple(target.name for target in targets),
        kinds=tuple(target.kind for target in targets),
        counts=tuple(_count(number, target, items, own) for number, target in enumerate(targets)),
        entries=tuple(Entry(item.target, item.ids, " ".join(item.whole.words)) for item in items),
        own=own,
        needed=np.array([targets[item.target].coverage for item in items], np.float64),
        grams=grams,
        shared=shared,
        short=phrases(brief, ANCHOR, config.answer_gap),
        long=phrases(plain, config.ngram, 0),
        digest=_digest(targets, config),
    )


NOTHING = Wording((), np.empty(0, np.uint64))


def _asked(item: _Item) -> tuple[Wording, Wording]:
    """Question and answer, or both as one where the question alone is too short to be looked for."""
    return (item.whole, NOTHING) if len(item.question.words) < ANCHOR else (item.question, item.answer)


def _items(number: int, target: Target, config: Decontaminate) -> list[_Item]:
    """The wordings of a target that are long enough to be looked for, in the order of their words."""
    questions = _wordings([item.question for item in target.items])
    answers = _wordings([item.answer for item in target.items])
    least = max(target.least, config.least)
    ids: dict[tuple[object, ...], list[str]] = {}
    found: dict[tuple[object, ...], tuple[Wording, Wording]] = {}
    for item, question, answer in zip(target.items, questions, answers, strict=True):
        if len(question.words) + len(answer.words) >= least:
            key = (question.words, answer.words, question.hashes.tobytes(), answer.hashes.tobytes())
            ids.setdefault(key, []).append(item.id)
            found[key] = question, answer
    return [_Item(number, tuple(sorted(ids[key])), *found[key]) for key in sorted(found)]  # type: ignore[type-var]


def _wordings(texts: list[str]) -> list[Wording]:
    found: list[Wording] = [NOTHING] * len(texts)
    for numbers, split in splits(texts):
        for place, number in enumerate(numbers.tolist()):
            begin, end = int(split.bounds[place]), int(split.bounds[place + 1])
            found[number] = Wording(split.spelled(begin, end - begin), split.hashes[begin:end])
    return found


def _own(items: list[_Item], chosen: I64, n: int, common: int) -> tuple[Table, I64]:
    """A table of the n-grams that are the items' own, and how many words of each item they hold."""
    hashes, entry, at = _grams(items, chosen, n)
    target = np.array([item.target for item in items], np.int64)[entry]
    own = ~_common(hashes, entry, target, common)
    hashes, entry, at = hashes[own], entry[own], at[own]
    return table(hashes, entry, at), union(entry, at, n, len(items))


def _grams(items: list[_Item], chosen: I64, n: int) -> tuple[U64, I64, I64]:
    """(hash, item, place in the item) of every n-gram of the chosen items."""
    parts = [items[i].whole.hashes for i in chosen.tolist()]
    counts = np.array([max(len(part) - n + 1, 0) for part in parts], np.int64)
    found = [runs(part, np.arange(count), n) for part, count in zip(parts, counts.tolist(), strict=True)]
    entry = np.repeat(chosen, counts)
    at = np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.concatenate([np.empty(0, np.uint64), *found]), entry, at


def _common(hashes: U64, entry: I64, target: I64, most: int) -> NDArray[np.bool_]:
    """Whether more than `most` items of the same target hold the same n-gram."""
    order = np.lexsort((entry, target, hashes))
    hashes, entry, target = hashes[order], entry[order], target[order]
    other = np.append(True, (hashes[1:] != hashes[:-1]) | (target[1:] != target[:-1]))[: len(hashes)]
    group = np.cumsum(other) - 1
    fresh = other | np.append(True, entry[1:] != entry[:-1])[: len(hashes)]
    found = np.empty(len(hashes), np.bool_)
    found[order] = (np.bincount(group, fresh) > most)[group]
    return found


def union(group: I64, at: I64, n: int, num_groups: int) -> I64:
    """Per group: places in any of its runs of n that begin at `at`, each once. Sorted by group and then `at`."""
    reach = np.full(len(at), n)
    same = group[1:] == group[:-1]
    reach[:-1][same] = np.minimum(at[1:] - at[:-1], n)[same]
    return np.bincount(group, reach, num_groups).astype(np.int64)


def _count(number: int, target: Target, items: list[_Item], own: I64) -> Counts:
    covered = sum(len(item.ids) for item, words in zip(items, own, strict=True) if item.target == number and words)
    sought = sum(len(item.ids) for item in items if item.target == number)
    return Counts(len(target.items), covered, sought - covered, len(target.items) - sought)


def _digest(targets: Sequence[Target], config: Decontaminate) -> str:
    """Names all that decides: whoever has the same digest finds the same."""
    state = blake2b(repr((VERSION, WORDS, config.model_dump_json(exclude={"held_out"}))).encode(), digest_size=8)
    for target in targets:
        state.update(repr((target.name, target.kind, target.coverage, target.least)).encode())
        for item in sorted(target.items):
            state.update(repr(tuple(item)).encode())
    return state.hexdigest()
