"""Rules of C4 (arXiv:1910.10683) and mC4. C4 edits texts, line by line; here a text is kept as it is or dropped: what
is left after C4's cuts only decides. `c4_text` gives the edited text to who wants it.
"""

import numpy as np
import polars as pl

from ratoon.corpus.rules.batch import Batch, Ints, Mask, Test
from ratoon.corpus.rules.characters import ENDS

LONGEST_WORD = 1000
MIN_WORDS = 3
PARAGRAPH_CHARS = 200
CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
POLICY = r"terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
# Signs, not punctuation: one of them behind a full stop begins a sentence.
SIGNS = np.array([ord(sign) for sign in "$+<=>^`|~"], np.uint32)


def c4(least_sentences: float) -> Test:
    """Sentences left in the lines C4 keeps, whatever they end with, as FineWeb uses it."""
    return _c4(least_sentences, ended=False)


def c4_ended(least_sentences: float) -> Test:
    """Sentences left in the lines C4 keeps, only such that end with . ? ! or a quotation mark: for Latin scripts."""
    return _c4(least_sentences, ended=True)


def c4_paragraphs(least: float) -> Test:
    """Lines of at least 200 characters."""
    return lambda batch: batch.rows.sum(batch.rows.lengths >= PARAGRAPH_CHARS) < least


def _c4(least: float, ended: bool) -> Test:
    name = "c4_ended" if ended else "c4"

    def test(batch: Batch) -> dict[str, Mask]:
        lines = _lines(batch, ended)
        kept = lines.filter("kept")
        found = _sentences(Batch(kept["line"], batch.spoken))
        sentences = np.bincount(kept["document"].to_numpy(), found, len(batch))
        return {
            f"{name}_lorem_ipsum": _any(lines, "lorem", len(batch)),
            f"{name}_brace": _any(lines, "brace", len(batch)),
            f"{name}_sentences": sentences < least,
        }

    return test


def _sentences(lines: Batch) -> Ints:
    """One more than there are words behind a full stop, or what ends a sentence elsewhere, that stands alone."""
    words, first = lines.words, lines.codes[lines.words.start]
    stop = (words.lengths == 1) & ((lines.word_traits & ENDS) > 0)
    starts = np.flatnonzero(lines.spoken_words | np.isin(first, SIGNS))
    stops = np.concatenate([[0], np.cumsum(stop)])
    # Stops since the last start, or since the line began.
    line = lines.word_document[starts]
    before = np.maximum(np.concatenate([[0], starts[:-1]])[: len(starts)], words.bounds[line])
    fresh = starts[stops[starts] > stops[before]]
    return np.bincount(lines.word_document[fresh], minlength=len(lines)) + 1


def c4_text(batch: Batch, ended: bool) -> pl.Series:
    """What C4 leaves of each text, dropped documents included."""
    lines = _lines(batch, ended).filter("kept").group_by("document", maintain_order=True)
    left = lines.agg(pl.col("line").str.join("\n"))
    everyone = pl.DataFrame({"document": np.arange(len(batch))})
    edited = everyone.join(left, on="document", how="left", maintain_order="left")
    return edited["line"].fill_null("").str.strip_chars()


def _any(lines: pl.DataFrame, column: str, count: int) -> Mask:
    found = np.zeros(count, bool)
    found[lines.filter(column)["document"].to_numpy()] = True
    return found


def _lines(batch: Batch, ended: bool) -> pl.DataFrame:
    """Every line with its document, whether C4 keeps it, and whether it condemns its document."""
    spans = batch.lines
    starts = batch.chunks.start
    first, last = np.searchsorted(starts, spans.start), np.searchsorted(starts, spans.end)
    longest = np.concatenate([[0], np.cumsum(batch.chunks.lengths > LONGEST_WORD)])
    readable = (last - first >= MIN_WORDS) & (longest[last] == longest[first])
    frame = pl.DataFrame({"document": spans.document, "line": _texts(batch), "readable": readable})
    # Most lines fall by their length alone, and the patterns need not see them.
    frame = frame.filter("readable").with_columns(pl.col("line").str.strip_chars().str.replace_all(CITATION, ""))
    line, low = pl.col("line"), pl.col("line").str.to_lowercase()
    asked = line.str.contains(r"""[.?!"']\z""") & ~line.str.ends_with("...") if ended else pl.lit(True)
    frame = frame.filter(asked).with_columns(low.str.contains("lorem ipsum", literal=True).alias("lorem"))
    frame = frame.with_columns(low.str.contains("javascript", literal=True).alias("script"))
    frame = frame.with_columns((line.str.contains("{", literal=True) & ~pl.col("script")).alias("brace"))
    return frame.with_columns(kept=~pl.any_horizontal("script", "lorem", "brace") & ~low.str.contains(POLICY))


def _texts(batch: Batch) -> pl.Series:
    """The lines of str.splitlines(), cut by Polars: as many as batch.lines."""
    broken = batch.texts.str.replace_all("\r\n", "\n", literal=True).str.replace_all(
        r"[\v\f\r\x1c-\x1e\x{85}\x{2028}\x{2029}]", "\n"
    )
    cut = broken.str.strip_suffix("\n").str.split("\n")
    return cut.filter(broken.str.len_bytes() > 0).explode()
