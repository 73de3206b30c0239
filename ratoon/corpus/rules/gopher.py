"""Rules of Gopher (arXiv:2112.11446, table A1), on words and punctuation marks as words.py finds them.

Read as datatrove 0.10.1 reads them, so that decisions compare; docs and tests name where they differ.
"""

import numpy as np

from ratoon.corpus.rules.batch import Batch, Floats, Ints, Mask, Spans, Test, share
from ratoon.corpus.rules.hashing import of_text
from ratoon.corpus.rules.ngrams import Grams, commonest, covered, disjoint, repeats

FIRST_TOP = 2  # gopher_top_ngrams gives shares for n = 2, 3, ...
FIRST_DUPLICATE = 5


# ---------------------------------------------------------------- quality


def gopher_words(least: float, most: float) -> Test:
    """Words, punctuation marks not counted."""

    def test(batch: Batch) -> Mask:
        count = batch.words.sum(batch.spoken_words) / batch.language.scale
        return (count < least) | (count > most)

    return test


def gopher_word_length(least: float, most: float) -> Test:
    """Mean characters per word, punctuation marks not counted."""

    def test(batch: Batch) -> Mask:
        chars = batch.words.sum(batch.words.lengths * batch.spoken_words)
        mean = share(chars, batch.words.sum(batch.spoken_words) / batch.language.scale)
        return (mean < least) | (mean > most)

    return test


def gopher_hashes(max_share: float) -> Test:
    """Number signs per word."""
    return lambda batch: batch.count_signs("#") > max_share * batch.num_words


def gopher_ellipses(max_share: float) -> Test:
    """Ellipses per word."""
    return lambda batch: batch.ellipses > max_share * batch.num_words


def gopher_bullets(max_share: float) -> Test:
    """Lines that begin with a bullet or a hyphen."""

    def test(batch: Batch) -> Mask:
        first = batch.codes[batch.filled_lines.start]
        marked = (first == ord("•")) | (first == ord("-"))
        return share(batch.filled_lines.sum(marked), batch.lines.counts) > max_share

    return test


def gopher_ellipsis_lines(max_share: float) -> Test:
    """Lines that end with an ellipsis."""

    def test(batch: Batch) -> Mask:
        lines = batch.filled_lines
        dots = np.ones(len(lines.end), bool)
        for back in (1, 2, 3):
            dots &= batch.codes[lines.end - back] == ord(".")
        open_ended = (batch.codes[lines.end - 1] == ord("…")) | (dots & (lines.lengths >= 3))
        return share(lines.sum(open_ended), batch.lines.counts) > max_share

    return test


def gopher_alphabetic(min_share: float) -> Test:
    """Words and marks with at least one letter."""
    return lambda batch: share(batch.words.sum(batch.lettered), batch.words.counts) < min_share


def gopher_stop_words(least: float) -> Test:
    """How many different stop words of its language a text has. A language without a list in languages.py passes."""

    def test(batch: Batch) -> Mask:
        found = np.zeros(len(batch), np.int64)
        for word in batch.language.stop_words:
            if batch.language.characters:
                found += batch.texts.str.contains(word, literal=True).to_numpy()
            else:
                found += batch.words.sum(batch.word_hashes == np.uint64(of_text(word))) > 0
        return (found < least) & bool(batch.language.stop_words)

    return test


# ---------------------------------------------------------------- repetition


def gopher_duplicate_paragraphs(max_share: float) -> Test:
    """Share of paragraphs, set apart by blank lines, that occurred before."""
    return lambda batch: share(_repeats(batch, batch.paragraphs), batch.paragraphs.counts) > max_share


def gopher_duplicate_paragraph_chars(max_share: float) -> Test:
    """Share of characters in paragraphs that occurred before."""
    return lambda batch: _repeated_chars(batch, batch.paragraphs) > max_share


def gopher_duplicate_lines(max_share: float) -> Test:
    """Share of lines that occurred before. Empty lines are none, but a newline at either end of a text sets one off."""

    def test(batch: Batch) -> Mask:
        edges = batch.empty_edges
        return share(_repeats(batch, batch.written_rows) + (edges == 2), batch.written_rows.counts + edges) > max_share

    return test


def gopher_duplicate_line_chars(max_share: float) -> Test:
    """Share of characters in lines that occurred before."""
    return lambda batch: _repeated_chars(batch, batch.written_rows) > max_share


def _repeats(batch: Batch, pieces: Spans) -> Ints:
    return pieces.sum(repeats(pieces.document, batch.hashes(pieces)))


def _repeated_chars(batch: Batch, pieces: Spans) -> Floats:
    again = repeats(pieces.document, batch.hashes(pieces))
    return share(pieces.sum(again * pieces.lengths), batch.num_chars)


def gopher_top_ngrams(*max_shares: float) -> Test:
    """Share of characters inside the commonest run of n words, for n = 2, 3, ...

    Gopher counts it also where it occurs once: a text of a dozen words is dropped.
    """
    lengths = range(FIRST_TOP, FIRST_TOP + len(max_shares))

    def test(batch: Batch) -> dict[str, Mask]:
        chars = {n: _top_chars(batch, n, grams) for n, grams in zip(lengths, batch.grams(lengths), strict=True)}
        return {
            f"gopher_top_{n}grams": share(chars[n], batch.num_chars) > most
            for n, most in zip(lengths, max_shares, strict=True)
        }

    return test


def _top_chars(batch: Batch, n: int, grams: Grams) -> Ints:
    """Characters of the commonest n-gram with spaces between its words, times its occurrences."""
    words, before = batch.words, batch.chars_before
    inside = np.zeros(len(batch), np.int64)
    for where, at, count in (_first(words, grams.n), commonest(grams, batch.word_document)):
        inside[where] = count * (before[at + grams.n] - before[at] + n - 1)
    return inside


def _first(words: Spans, n: int) -> tuple[Ints, Ints, Ints]:
    where = np.flatnonzero(words.counts >= n)
    return where, words.bounds[where], np.ones(len(where), np.int64)


def gopher_duplicate_ngrams(*max_shares: float) -> Test:
    """Share of characters inside runs of n words that occurred before, for n = 5, 6, ..."""
    lengths = range(FIRST_DUPLICATE, FIRST_DUPLICATE + len(max_shares))

    def test(batch: Batch) -> dict[str, Mask]:
        dropped = {}
        known = np.zeros(len(batch), bool)
        for n, most, grams in zip(lengths, max_shares, batch.grams(lengths), strict=True):
            dropped[f"gopher_duplicate_{n}grams"] = _mostly_repeated(batch, grams, most, ~known)
            known |= dropped[f"gopher_duplicate_{n}grams"]
        return dropped

    return test


def _mostly_repeated(batch: Batch, grams: Grams, most: float, asked: Mask) -> Mask:
    document, before = batch.word_document, batch.chars_before
    bound = covered(grams, document, before, len(batch))
    dropped = np.zeros(len(batch), bool)
    bounds = np.searchsorted(document[grams.at], np.arange(len(batch) + 1))
    for d in np.flatnonzero(asked & (share(bound, batch.num_chars) > most)).tolist():
        enough = most * batch.num_chars[d]
        dropped[d] = disjoint(grams, slice(bounds[d], bounds[d + 1]), before, enough) > enough
    return dropped
