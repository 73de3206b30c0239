"""Many texts at once, as code points in one array, and what rules ask of them: each thing found once, when asked.

The code points of all texts lie one after the other, one BETWEEN after each. Words, lines and paragraphs are spans of
that array, and texts of spans are compared by 64-bit hashes: of a million spans two different ones agree with
probability 1e-7. Nothing loops over texts in Python.

Memory: about 25 bytes per character of the batch (a 50 MB line of one word: 1.2 GiB), and up to 130 per character
where every run of words repeats: ask max_bytes first.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ratoon.corpus.rules import hashing
from ratoon.corpus.rules.characters import BETWEEN, BREAKS, INK, LETTER, WORD, traits
from ratoon.corpus.rules.languages import Language, language
from ratoon.corpus.rules.ngrams import Grams, repeated
from ratoon.corpus.rules.words import runs, split

Mask = npt.NDArray[np.bool_]  # one per document
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]
NEWLINE = ord("\n")
LONGEST_GRAM = 10
BREAKING = np.isin(np.arange(max(BREAKS) + 2), BREAKS)


class Spans(NamedTuple):
    """Pieces of texts in order; those of document d are bounds[d]:bounds[d+1]."""

    start: Ints
    end: Ints
    bounds: Ints

    @property
    def counts(self) -> Ints:
        return np.diff(self.bounds)

    @property
    def lengths(self) -> Ints:
        return self.end - self.start

    @property
    def document(self) -> Ints:
        return np.repeat(np.arange(len(self.bounds) - 1), self.counts)

    def sum(self, values: npt.NDArray) -> Ints:
        """Per document, over its pieces."""
        total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.diff(total[self.bounds])

    def where(self, wanted: npt.NDArray[np.bool_]) -> "Spans":
        before = np.concatenate([[0], np.cumsum(wanted)])
        return Spans(self.start[wanted], self.end[wanted], before[self.bounds])


Test = Callable[["Batch"], "Mask | dict[str, Mask]"]  # which documents to drop; or for which of several reasons


def share(part: npt.NDArray, whole: npt.NDArray) -> Floats:
    """part / whole; 0 of nothing."""
    return part / np.maximum(whole, 1)


class Batch:
    """Texts of one language."""

    def __init__(self, texts: pl.Series | Sequence[str], spoken: str | None = None) -> None:
        self.texts = texts if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
        self.language: Language = language(spoken)
        self.spoken = spoken

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def opened(self) -> bool:
        """Whether code points were asked for; until then a batch costs nothing."""
        return "codes" in self.__dict__

    def keep(self, wanted: Mask) -> "Batch":
        return Batch(self.texts.filter(pl.Series(wanted)), self.spoken)

    # ------------------------------------------------------------ characters

    @cached_property
    def num_bytes(self) -> Ints:
        return self.texts.str.len_bytes().to_numpy().astype(np.int64)

    @cached_property
    def num_chars(self) -> Ints:
        return self.texts.str.len_chars().to_numpy().astype(np.int64)

    @cached_property
    def bounds(self) -> Ints:
        """Document d is codes[bounds[d] : bounds[d+1] - 1], and a BETWEEN behind it."""
        return np.concatenate([[0], np.cumsum(self.num_chars + 1)])

    @cached_property
    def codes(self) -> npt.NDArray[np.uint32]:
        joined = (self.texts + BETWEEN).str.join("")[0] if len(self) else ""
        return np.frombuffer(joined.encode("utf-32-le"), np.uint32)

    @cached_property
    def traits(self) -> npt.NDArray[np.uint8]:
        return traits()[self.codes]

    @cached_property
    def ink(self) -> npt.NDArray[np.bool_]:
        return (self.traits & INK).view(np.bool_)

    @cached_property
    def blanks(self) -> Ints:
        """Where white space is."""
        return np.flatnonzero(~self.ink)

    @cached_property
    def prefix(self) -> Hashes:
        return hashing.prefix(self.codes)

    def hashes(self, spans: Spans) -> Hashes:
        return hashing.of_spans(self.prefix, spans.start, spans.end)

    def count(self, positions: Ints) -> Ints:
        """Per document, of positions in order."""
        return np.diff(np.searchsorted(positions, self.bounds))

    def having(self, bits: int) -> Ints:
        """Characters per document with any of these traits."""
        return self.count(np.flatnonzero(self.traits & bits))

    def spans(self, start: Ints, end: Ints) -> Spans:
        return Spans(start, end, np.searchsorted(start, self.bounds))

    def count_signs(self, sign: str) -> Ints:
        return self.count(np.flatnonzero(self.codes == ord(sign)))

    @cached_property
    def ellipses(self) -> Ints:
        """Of three dots, or one character."""
        dots = self.spans(*runs(self.codes == ord(".")))
        return dots.sum(dots.lengths // 3) + self.count_signs("…")

    # ------------------------------------------------------------ words

    @cached_property
    def chunks(self) -> Spans:
        """What white space leaves: str.split()."""
        return self.spans(*runs(self.ink))

    @cached_property
    def words(self) -> Spans:
        """Words and punctuation marks: see words.py."""
        return self.spans(*split(self.codes, self.traits, self.language.characters is not None))

    @cached_property
    def word_traits(self) -> npt.NDArray[np.uint8]:
        return self.traits_of(self.words)

    def traits_of(self, pieces: Spans) -> npt.NDArray[np.uint8]:
        """Traits any character of the piece has; pieces must be words or chunks, with only white space between."""
        return np.bitwise_or.reduceat(self.traits, pieces.start) if len(pieces.start) else np.zeros(0, np.uint8)

    @cached_property
    def word_hashes(self) -> Hashes:
        return self.hashes(self.words)

    @cached_property
    def num_words(self) -> Floats:
        """Words and marks per document; characters of unspaced scripts count as parts of words."""
        return self.words.counts / self.language.scale

    @cached_property
    def spoken_words(self) -> npt.NDArray[np.bool_]:
        """Whether a word is more than punctuation."""
        return (self.word_traits & WORD) > 0

    @cached_property
    def lettered(self) -> npt.NDArray[np.bool_]:
        return (self.word_traits & LETTER) > 0

    @cached_property
    def word_document(self) -> Ints:
        return self.words.document

    @cached_property
    def chars_before(self) -> Ints:
        """Characters in the words before each word, and in all."""
        return np.concatenate([[0], np.cumsum(self.words.lengths)])

    def grams(self, lengths: Sequence[int]) -> list[Grams]:
        """Repeated n-grams of these lengths in words; of unspaced scripts, of about as many characters."""
        return [self._grams[round(n * self.language.scale) - 2] for n in lengths]

    @cached_property
    def _grams(self) -> list[Grams]:
        longest = round(LONGEST_GRAM * self.language.scale)
        return list(repeated(self.word_document, self.word_hashes, longest))

    # ------------------------------------------------------------ lines

    @cached_property
    def newlines(self) -> Ints:
        return self.blanks[self.codes[self.blanks] == NEWLINE]

    @cached_property
    def newline_counts(self) -> Ints:
        return self.count(self.newlines)

    @cached_property
    def rows(self) -> Spans:
        """str.split("\\n"): a document has one more than newlines."""
        return self._between(self.newlines, self.newlines + 1)

    @cached_property
    def filled_rows(self) -> Spans:
        """Rows with anything but white space."""
        return self.rows.where(self._filled(self.rows))

    @cached_property
    def written_rows(self) -> Spans:
        """Rows with any character, white space included."""
        return self.rows.where(self.rows.lengths > 0)

    @cached_property
    def empty_edges(self) -> Ints:
        """How many ends of a text, 0 to 2, are a newline: runs of newlines leave an empty piece there."""
        rows = self.rows
        empty = rows.lengths == 0
        edges = empty[rows.bounds[:-1]].astype(np.int64) + empty[rows.bounds[1:] - 1]
        return edges * (rows.counts > 1)

    @cached_property
    def paragraphs(self) -> Spans:
        """What two or more newlines leave of the text without the white space around it."""
        if not len(self.chunks.start):
            return self.chunks
        written = np.flatnonzero(self.chunks.counts)
        begin = self.chunks.start[self.chunks.bounds[written]]
        finish = self.chunks.end[self.chunks.bounds[written + 1] - 1]
        breaks = self.newlines
        new = np.diff(breaks, prepend=-2) != 1
        stop, resume = breaks[new], breaks[np.append(new[1:], True)[: len(breaks)]] + 1
        owner = np.minimum(np.searchsorted(finish, stop), len(begin) - 1)
        inner = (resume - stop > 1) & (stop > begin[owner]) & (resume < finish[owner])
        return self.spans(_merged(begin, resume[inner]), _merged(finish, stop[inner]))

    @cached_property
    def lines(self) -> Spans:
        """str.splitlines(): any line break of Unicode, none behind the last line."""
        at = self.blanks[BREAKING[np.minimum(self.codes[self.blanks], len(BREAKING) - 1)]]
        follows = (self.codes[at] == NEWLINE) & (self.codes[at - 1] == ord("\r")) & (at > 0)
        pair = np.append(follows[1:], False)[: len(at)]
        at, wide = at[~follows], pair[~follows]
        found = self._between(at, at + 1 + wide)
        last = np.zeros(len(found.start), bool)
        last[found.bounds[1:] - 1] = True
        return found.where(~(last & (found.lengths == 0)))

    @cached_property
    def filled_lines(self) -> Spans:
        """Lines with anything but white space, without the white space around it."""
        lines = self.lines.where(self._filled(self.lines))
        first = np.searchsorted(self.chunks.start, lines.start)
        last = np.searchsorted(self.chunks.start, lines.end) - 1
        return Spans(self.chunks.start[first], self.chunks.end[last], lines.bounds)

    def _between(self, stop: Ints, resume: Ints) -> Spans:
        """Spans cut out at stop:resume, documents cut from each other."""
        return self.spans(_merged(self.bounds[:-1], resume), _merged(self.bounds[1:] - 1, stop))

    @cached_property
    def ink_before(self) -> npt.NDArray[np.int32]:
        """Characters other than white space before each position, and in all."""
        before = np.zeros(len(self.codes) + 1, np.int32)
        np.cumsum(self.ink, out=before[1:])
        return before

    def _filled(self, spans: Spans) -> npt.NDArray[np.bool_]:
        return self.ink_before[spans.end] > self.ink_before[spans.start]


def _merged(one: Ints, other: Ints) -> Ints:
    return np.sort(np.concatenate([one, other]), kind="stable")  # of two sorted runs: a merge
