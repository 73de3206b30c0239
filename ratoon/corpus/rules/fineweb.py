"""Rules of FineWeb (arXiv:2406.17557) for web pages. A line is what newlines leave, blank lines are none."""

from ratoon.corpus.rules.batch import Batch, Mask, Test, share
from ratoon.corpus.rules.characters import ENDS
from ratoon.corpus.rules.ngrams import repeats

SHORT = 30  # characters


def fineweb_ended_lines(min_share: float) -> Test:
    """Share of lines whose last character ends a sentence, in any script. A blank text has none."""

    def test(batch: Batch) -> Mask:
        lines = batch.filled_rows
        ended = (batch.traits[lines.end - 1] & ENDS) > 0
        return share(lines.sum(ended), lines.counts) < min_share

    return test


def fineweb_short_lines(max_share: float) -> Test:
    """Share of lines of at most 30 characters."""

    def test(batch: Batch) -> Mask:
        lines = batch.filled_rows
        return share(lines.sum(lines.lengths <= SHORT), lines.counts) > max_share

    return test


def fineweb_duplicate_chars(max_share: float) -> Test:
    """Share of characters in lines that occurred before."""

    def test(batch: Batch) -> Mask:
        lines = batch.filled_rows
        again = repeats(lines.document, batch.hashes(lines)) * lines.lengths
        return share(lines.sum(again), batch.num_chars - batch.newline_counts) > max_share

    return test


def fineweb_newlines(max_share: float) -> Test:
    """Newlines per word: lists."""
    return lambda batch: batch.newline_counts > max_share * batch.num_words
