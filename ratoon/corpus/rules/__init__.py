"""Rules that look at texts, many at once, and answer with the reason to drop one, or None to keep it.

Thresholds live in params.yaml under prepare.rules, one line per rule, in the order they are asked; a rule left out is
off. Each kind of text has its own: rules made for web prose reject source files and tables. A rule is one function
here and one line there: called with its thresholds it gives a test, and the test says of a Batch which documents to
drop, or, if it has several reasons, which for each.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from ratoon.config import ConfigError, unknown
from ratoon.corpus.rules import c4, code, fineweb, gopher, plain, tables
from ratoon.corpus.rules.batch import LONGEST_GRAM, Batch, Mask, Test

# Rules run over this much text at once: what they hold of it stays in the processor's cache.
BLOCK_BYTES = 512 << 10


class Entry(NamedTuple):
    make: Callable[..., Test]
    threshold: Literal["number", "share", "range", "shares"]


FORMS = {
    "number": "one number",
    "share": "a share, 0 to 1",
    "range": "[least, most]",
    "shares": "shares, 0 to 1, one for each length",
}
RULES: dict[str, Entry] = {
    "min_bytes": Entry(plain.min_bytes, "number"),
    "max_bytes": Entry(plain.max_bytes, "number"),
    "mean_word_length": Entry(plain.mean_word_length, "range"),
    "alphabetic_words": Entry(plain.alphabetic_words, "share"),
    "symbols": Entry(plain.symbols, "share"),
    "repeated_lines": Entry(plain.repeated_lines, "share"),
    "top_bigram": Entry(plain.top_bigram, "share"),
    "max_line_length": Entry(plain.max_line_length, "number"),
    "mean_line_length": Entry(plain.mean_line_length, "number"),
    "alphanumeric": Entry(code.alphanumeric, "share"),
    "generated": Entry(code.generated, "number"),
    "encoded_data": Entry(code.encoded_data, "share"),
    "ragged_rows": Entry(tables.ragged_rows, "share"),
    "empty_cells": Entry(tables.empty_cells, "share"),
    "gopher_words": Entry(gopher.gopher_words, "range"),
    "gopher_word_length": Entry(gopher.gopher_word_length, "range"),
    "gopher_hashes": Entry(gopher.gopher_hashes, "share"),
    "gopher_ellipses": Entry(gopher.gopher_ellipses, "share"),
    "gopher_bullets": Entry(gopher.gopher_bullets, "share"),
    "gopher_ellipsis_lines": Entry(gopher.gopher_ellipsis_lines, "share"),
    "gopher_alphabetic": Entry(gopher.gopher_alphabetic, "share"),
    "gopher_stop_words": Entry(gopher.gopher_stop_words, "number"),
    "gopher_duplicate_paragraphs": Entry(gopher.gopher_duplicate_paragraphs, "share"),
    "gopher_duplicate_paragraph_chars": Entry(gopher.gopher_duplicate_paragraph_chars, "share"),
    "gopher_duplicate_lines": Entry(gopher.gopher_duplicate_lines, "share"),
    "gopher_duplicate_line_chars": Entry(gopher.gopher_duplicate_line_chars, "share"),
    "gopher_top_ngrams": Entry(gopher.gopher_top_ngrams, "shares"),
    "gopher_duplicate_ngrams": Entry(gopher.gopher_duplicate_ngrams, "shares"),
    "fineweb_ended_lines": Entry(fineweb.fineweb_ended_lines, "share"),
    "fineweb_short_lines": Entry(fineweb.fineweb_short_lines, "share"),
    "fineweb_duplicate_chars": Entry(fineweb.fineweb_duplicate_chars, "share"),
    "fineweb_newlines": Entry(fineweb.fineweb_newlines, "share"),
    "c4": Entry(c4.c4, "number"),
    "c4_ended": Entry(c4.c4_ended, "number"),
    "c4_paragraphs": Entry(c4.c4_paragraphs, "number"),
}


class Rule(NamedTuple):
    name: str
    test: Test

    def masks(self, batch: Batch) -> dict[str, Mask]:
        """Reason -> which documents it drops."""
        found = self.test(batch)
        return found if isinstance(found, dict) else {self.name: found}

    def __call__(self, text: str) -> str | None:
        return verdict(text, [self])


def build(thresholds: Mapping[str, Any], where: str) -> list[Rule]:
    """The rules of one kind of text, in the order given. `where` is their place in params.yaml.

    Raises ConfigError for a rule there is not or a threshold of the wrong form.
    """
    return [_rule(name, value, f"{where}.{name}") for name, value in thresholds.items()]


def _rule(name: str, value: Any, where: str) -> Rule:
    if name not in RULES:
        raise ConfigError(f"{where}: {unknown('rule', name, sorted(RULES))}")
    make, form = RULES[name]
    values = value if isinstance(value, list | tuple) else [value]
    several = form in ("range", "shares")
    right = isinstance(value, list | tuple) == several and all(v >= 0 for v in values)
    if form == "range":
        right = right and len(values) == 2 and values[0] <= values[1]
    elif form == "shares":
        right = right and 0 < len(values) <= _most_shares(name)
    if form in ("share", "shares"):
        right = right and all(v <= 1 for v in values)
    if not right:
        raise ConfigError(f"{where}: found {value!r}; give {FORMS[form]}")
    return Rule(name, make(*values))


def _most_shares(name: str) -> int:
    first = gopher.FIRST_TOP if name == "gopher_top_ngrams" else gopher.FIRST_DUPLICATE
    return LONGEST_GRAM - first + 1


def reasons(texts: pl.Series | Sequence[str], rules: Sequence[Rule], language: str | None = None) -> list[str | None]:
    """For each text the first reason to drop it, or None. What one text is told depends on no other.

    All texts are taken as of this language; None means English.
    """
    series = texts if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
    block = np.cumsum(series.str.len_bytes().to_numpy().astype(np.int64)) // BLOCK_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(series)]
    return [answer for begin, end in pairwise(cuts) for answer in _reasons(Batch(series[begin:end], language), rules)]


def _reasons(batch: Batch, rules: Sequence[Rule]) -> list[str | None]:
    answers: list[str | None] = [None] * len(batch)
    places = np.arange(len(batch))
    left = np.ones(len(batch), bool)
    for rule in rules:
        if not left.any():
            break
        for reason, dropped in rule.masks(batch).items():
            for place in places[dropped & left].tolist():
                answers[place] = reason
            left &= ~dropped
        # Rules that only look at lengths spare the others what they drop.
        if not batch.opened and not left.all():
            batch, places = batch.keep(left), places[left]
            left = np.ones(len(batch), bool)
    return answers


def verdict(text: str, rules: Sequence[Rule], language: str | None = None) -> str | None:
    """The first reason to drop the text, or None."""
    return reasons([text], rules, language)[0]
