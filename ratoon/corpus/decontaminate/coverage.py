"""How much of an item stands in one document: the words of it in n-grams that the document holds (arXiv:2411.15124).

Hashes find candidates; what they find is compared word by word before anything is said of a document.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.corpus.decontaminate.index import Index, union
from ratoon.corpus.decontaminate.split import Split, runs
from ratoon.corpus.decontaminate.table import Found
from ratoon.corpus.dedup.words import I64

# A float's error must not keep out what is exactly the share asked for.
ROUNDING = 1e-9


class _Met(NamedTuple):
    """n-grams of entries that texts hold, by text, entry and place in the entry."""

    texts: I64
    entries: I64
    at: I64
    gram: I64  # gram g stands at places[begin[g]:begin[g + 1]] of the text
    places: I64
    begin: I64


def covered(index: Index, split: Split, found: Found) -> Iterator[tuple[int, int, float]]:
    """(text, entry, share of its own words) where that is as much as is asked."""
    met = _meet(index, split, found)
    if not len(met.texts):
        return
    first = np.flatnonzero(_changes(met.texts) | _changes(met.entries))
    bounds = np.append(first, len(met.texts))
    group = np.repeat(np.arange(len(first)), np.diff(bounds))
    words = union(group, met.at, index.config.ngram, len(first))
    entry = met.entries[first]
    for number in np.flatnonzero(words >= index.needed[entry] * index.own[entry] - ROUNDING).tolist():
        one = int(entry[number])
        held = _verified(index, split, met, one, slice(bounds[number], bounds[number + 1]))
        share = held / int(index.own[one])
        if share >= index.needed[one] - ROUNDING:
            yield int(met.texts[first[number]]), one, share


def _meet(index: Index, split: Split, found: Found) -> _Met:
    text = split.text_of(found.places)
    order = np.lexsort((found.places, found.keys, text))
    text, keys, places = text[order], found.keys[order], found.places[order]
    first = np.flatnonzero(_changes(text) | _changes(keys))
    gram, posting = index.grams.postings(keys[first])
    texts, entries, at = text[first][gram], index.grams.entries[posting], index.grams.at[posting]
    order = np.lexsort((at, entries, texts))
    return _Met(texts[order], entries[order], at[order], gram[order], places, np.append(first, len(places)))


def _changes(values: I64) -> NDArray[np.bool_]:
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _verified(index: Index, split: Split, met: _Met, entry: int, rows: slice) -> int:
    """Words of the entry in n-grams that the text holds letter for letter."""
    n, words = index.config.ngram, index.entries[entry].words.split(" ")
    at, gram = met.at[rows], met.gram[rows]
    place = met.places[met.begin[gram]]
    # n-grams that follow each other here as there are compared as one passage.
    cuts = np.flatnonzero((np.diff(at) != 1) | (np.diff(place) != 1)) + 1
    sure = np.ones(len(at), np.bool_)
    for begin, end in pairwise([0, *cuts.tolist(), len(at)]):
        first, length = int(at[begin]), end - begin + n - 1
        if split.spelled(int(place[begin]), length) != tuple(words[first : first + length]):
            sure[begin:end] = [_stands(split, met, int(gram[k]), words[at[k] : at[k] + n]) for k in range(begin, end)]
    at = at[sure]
    return int(union(np.zeros(len(at), np.int64), at, n, 1)[0])


def _stands(split: Split, met: _Met, gram: int, words: list[str]) -> bool:
    """Whether it does at any of the places its hash does."""
    places = met.places[met.begin[gram] : met.begin[gram + 1]]
    return any(list(split.spelled(int(place), len(words))) == words for place in places)


def shared(index: Index, split: Split, found: Found) -> list[tuple[int, int]]:
    """(text, entry) with any longer n-gram in common; by hash alone, for nothing goes because of it.

    `found` are the n-grams: a longer one that is the item's own holds one of them at least, or is made of the
    benchmark's wording alone.
    """
    n = index.config.report_ngram
    places = np.unique((found.places[:, None] - np.arange(n - index.config.ngram + 1)).reshape(-1))
    places = places[places >= 0]
    text = split.text_of(places)
    inside = places + n <= split.bounds[text + 1]
    text, places = text[inside], places[inside]
    at, keys = index.shared.find(runs(split.hashes, places, n))
    of, posting = index.shared.postings(keys)
    pairs = np.unique(np.stack([text[at[of]], index.shared.entries[posting]]), axis=1)
    return list(zip(*pairs.tolist(), strict=True))
