"""Rules for source files, after The Stack v2 (arXiv:2402.19173). Rules made for web prose reject code and tables."""

import polars as pl

from ratoon.config import ConfigError
from ratoon.corpus.rules.batch import Batch, Mask, Test
from ratoon.corpus.rules.characters import LETTER, NUMBER

HEAD_CHARS = 20_000
MOST_LINES = 1000  # a pattern for more is refused by the engine
GENERATED = (
    r"(?i)auto-?\s?generated|automatically generated|generated (?:by|from|with)\b|do not (?:edit|modify)|@generated"
)
ENCODED = (
    r"[A-Za-z0-9+/=]{64,}"  # base64
    r"|(?:\\x[0-9a-fA-F]{2}){8,}|(?:\\u[0-9a-fA-F]{4}){8,}"
    r"|(?:(?:0x)?[0-9a-fA-F]{2}[,\s]\s*){16,}"
)


def alphanumeric(min_share: float) -> Test:
    """Share of characters that are letters or digits."""
    return lambda batch: batch.having(LETTER | NUMBER) < min_share * batch.num_chars


def generated(first_lines: float) -> Test:
    """Markers of machine-written files within the first lines, where tools put them."""
    if first_lines > MOST_LINES:
        raise ConfigError(
            f"rule generated: found {first_lines:g}, at most {MOST_LINES} lines; markers stand in the first few"
        )
    head = rf"\A(?:[^\n]*\n){{0,{max(int(first_lines) - 1, 0)}}}[^\n]*"

    def test(batch: Batch) -> Mask:
        marked = batch.texts.str.head(HEAD_CHARS).str.extract(f"({head})").str.contains(GENERATED)
        return marked.to_numpy() & (first_lines >= 1)

    return test


def encoded_data(max_share: float) -> Test:
    """Share of characters inside runs of base64, hexadecimal or escapes: data in the dress of code."""

    def test(batch: Batch) -> Mask:
        inside = batch.texts.str.extract_all(ENCODED).list.eval(pl.element().str.len_chars()).list.sum()
        return inside.to_numpy() > max_share * batch.num_chars

    return test
