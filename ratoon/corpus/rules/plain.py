"""Rules on lengths, words and lines of any text, most of them after Gopher (arXiv:2112.11446). A word here is what
white space leaves."""

import numpy as np

from ratoon.corpus.rules.batch import Batch, Mask, Test, share
from ratoon.corpus.rules.characters import LETTER
from ratoon.corpus.rules.ngrams import commonest, repeated, repeats


def min_bytes(least: float) -> Test:
    """UTF-8 bytes."""
    return lambda batch: batch.num_bytes < least


def max_bytes(most: float) -> Test:
    """UTF-8 bytes. Ask it early: it spares the others a huge text."""
    return lambda batch: batch.num_bytes > most


def mean_word_length(least: float, most: float) -> Test:
    """Mean characters per word; 0 where there is none."""

    def test(batch: Batch) -> Mask:
        mean = share(batch.chunks.sum(batch.chunks.lengths), batch.chunks.counts)
        return (mean < least) | (mean > most)

    return test


def alphabetic_words(min_share: float) -> Test:
    """Share of words with at least one letter: tables of numbers have few."""

    def test(batch: Batch) -> Mask:
        lettered = (batch.traits_of(batch.chunks) & LETTER) > 0
        return share(batch.chunks.sum(lettered), batch.chunks.counts) < min_share

    return test


def symbols(max_share: float) -> Test:
    """Number signs and ellipses per word: what is left of lists, tags and cut-off previews."""

    def test(batch: Batch) -> Mask:
        return batch.count_signs("#") + batch.ellipses > max_share * batch.chunks.counts

    return test


def repeated_lines(max_share: float) -> Test:
    """Share of non-blank lines that occurred before: menus and boilerplate. 0 means none allowed."""

    def test(batch: Batch) -> Mask:
        lines = batch.filled_lines
        again = repeats(lines.document, batch.hashes(lines))
        return share(lines.sum(again), lines.counts) > max_share

    return test


def top_bigram(max_share: float) -> Test:
    """Share of characters inside the commonest pair of words, if it occurs more than once."""

    def test(batch: Batch) -> Mask:
        words = batch.chunks
        document = words.document
        grams = next(repeated(document, batch.hashes(words), 2))
        where, at, count = commonest(grams, document)
        inside = np.zeros(len(batch))
        inside[where] = count * (words.lengths[at] + words.lengths[at + 1])
        return (words.counts >= 4) & (share(inside, words.sum(words.lengths)) > max_share)

    return test


def max_line_length(most: float) -> Test:
    """Characters of the longest line."""
    return lambda batch: batch.rows.sum(batch.rows.lengths > most) > 0


def mean_line_length(most: float) -> Test:
    """Mean characters per line."""
    return lambda batch: batch.num_chars > most * (batch.newline_counts + 1)
