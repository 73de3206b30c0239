"""Items that are found whole or not at all: the question word by word, and the answer soon after.

A phrase is looked for by one run of its words, the one that fewest phrases share, and compared word by word where that
run and its own first and last ones stand.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ratoon.corpus.decontaminate.split import Split, runs
from ratoon.corpus.decontaminate.table import Found, Table, table
from ratoon.corpus.dedup.words import I64, U64

# Words of the run that short items are looked for by; a shorter question is one phrase with its answer.
ANCHOR = 3


class Wording(NamedTuple):
    """The words of something, and their hashes."""

    words: tuple[str, ...]
    hashes: U64


class Phrase(NamedTuple):
    question: tuple[str, ...]
    answers: dict[tuple[str, ...], list[int]]  # -> entries; () where none is asked for
    reach: int  # words from the first of the question to the last of an answer, at most


class Phrases(NamedTuple):
    found_by: int  # words of the anchors
    gap: int
    items: list[Phrase]
    anchors: Table
    lengths: I64
    first: U64
    last: U64


def phrases(asked: Sequence[tuple[int, Wording, Wording]], found_by: int, gap: int) -> Phrases:
    """Of (entry, question, answer); no question is shorter than `found_by`."""
    together: dict[tuple[object, ...], tuple[Wording, list[tuple[int, tuple[str, ...]]]]] = {}
    for entry, question, answer in asked:
        key = question.words, question.hashes.tobytes()
        together.setdefault(key, (question, []))[1].append((entry, answer.words))
    items, grams = [], []
    for question, answered in together.values():
        answers: dict[tuple[str, ...], list[int]] = {}
        for entry, words in answered:
            answers.setdefault(words, []).append(entry)
        longest = max(map(len, answers))
        items.append(Phrase(question.words, answers, len(question.words) + (gap + longest if longest else 0)))
        starts = np.arange(len(question.hashes) - found_by + 1)
        grams.append(runs(question.hashes, starts, found_by))
    common = Counter(key for each in grams for key in set(each.tolist()))
    at = [min(range(len(each)), key=lambda i, each=each: common[int(each[i])]) for each in grams]  # type: ignore[misc]
    anchors = np.array([each[i] for each, i in zip(grams, at, strict=True)], np.uint64)
    return Phrases(
        found_by=found_by,
        gap=gap,
        items=items,
        anchors=table(anchors, np.arange(len(items)), np.array(at, np.int64)),
        lengths=np.array([len(item.question) for item in items], np.int64),
        first=np.array([each[0] for each in grams], np.uint64),
        last=np.array([each[-1] for each in grams], np.uint64),
    )


def find(asked: Phrases, split: Split, found: Found) -> Iterator[tuple[int, int]]:
    """(text, entry), each once, for what the anchors at `found` are part of."""
    seen = set()
    for text, start, number in _candidates(asked, split, found):
        phrase = asked.items[number]
        if all((text, entry) in seen for entries in phrase.answers.values() for entry in entries):
            continue
        for entry in _answered(phrase, split.spelled(start, phrase.reach), asked.gap):
            if (text, entry) not in seen:
                seen.add((text, entry))
                yield text, entry


def _candidates(asked: Phrases, split: Split, found: Found) -> Iterator[tuple[int, int, int]]:
    """(text, word, phrase) where a question likely begins; of those in one text with the same words ahead the first."""
    of, posting = asked.anchors.postings(found.keys)
    number = asked.anchors.entries[posting]
    start = found.places[of] - asked.anchors.at[posting]
    text = split.text_of(found.places)[of]
    inside = (start >= split.bounds[text]) & (start + asked.lengths[number] <= split.bounds[text + 1])
    number, start, text = number[inside], start[inside], text[inside]
    last = start + asked.lengths[number] - asked.found_by
    same = runs(split.hashes, start, asked.found_by) == asked.first[number]
    same &= runs(split.hashes, last, asked.found_by) == asked.last[number]
    number, start, text = number[same], start[same], text[same]
    if not len(number):
        return
    # A text that says one question a million times is compared once, unless what follows differs.
    ahead = runs(split.hashes, start, max(asked.items[int(i)].reach for i in np.unique(number)))
    whole = np.stack([text.astype(np.uint64), number.astype(np.uint64), ahead])
    kept = np.sort(np.unique(whole, axis=1, return_index=True)[1])
    yield from zip(text[kept].tolist(), start[kept].tolist(), number[kept].tolist(), strict=True)


def _answered(phrase: Phrase, words: tuple[str, ...], gap: int) -> Iterator[int]:
    """The entries whose question begins `words` and whose answer follows."""
    size = len(phrase.question)
    if words[:size] != phrase.question:
        return
    for length in sorted({len(answer) for answer in phrase.answers}):
        for begin in range(size, size + 1 + (gap if length else 0)):
            yield from phrase.answers.get(words[begin : begin + length], ())
