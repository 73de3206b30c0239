"""Rules that look at one text and answer with the reason to drop it, or None to keep it.

Thresholds live in params.yaml under prepare.rules, one entry per rule, in the order they are asked; a rule left
out is off. Code needs its own set: rules made for web prose reject source files and tables (most of these follow
Gopher, arXiv:2112.11446; those for code follow The Stack v2, arXiv:2402.19173).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from ratoon.config import ConfigError, unknown

Rule = Callable[[str], str | None]


def min_bytes(least: float) -> Rule:
    """UTF-8 bytes."""
    return lambda text: "min_bytes" if len(text.encode()) < least else None


def max_bytes(most: float) -> Rule:
    """UTF-8 bytes. Ask it early: it spares the others a huge text."""
    return lambda text: "max_bytes" if len(text.encode()) > most else None


def mean_word_length(least: float, most: float) -> Rule:
    """Mean characters per whitespace-separated word."""

    def rule(text: str) -> str | None:
        words = text.split()
        mean = sum(map(len, words)) / len(words) if words else 0.0
        return None if least <= mean <= most else "mean_word_length"

    return rule


def alphabetic_words(min_share: float) -> Rule:
    """Share of words with at least one letter: tables of numbers have few."""

    def rule(text: str) -> str | None:
        words = text.split()
        share = sum(any(map(str.isalpha, word)) for word in words) / len(words) if words else 0.0
        return "alphabetic_words" if share < min_share else None

    return rule


def symbols(max_share: float) -> Rule:
    """Number signs and ellipses per word: what is left of lists, tags and cut-off previews."""

    def rule(text: str) -> str | None:
        found = text.count("#") + text.count("...") + text.count("…")
        return "symbols" if found > max_share * len(text.split()) else None

    return rule


def repeated_lines(max_share: float) -> Rule:
    """Share of non-blank lines that occurred before: menus and boilerplate. 0 means none allowed."""

    def rule(text: str) -> str | None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return "repeated_lines" if lines and 1 - len(set(lines)) / len(lines) > max_share else None

    return rule


def top_bigram(max_share: float) -> Rule:
    """Share of characters inside the commonest pair of words, if it occurs more than once."""

    def rule(text: str) -> str | None:
        words = text.split()
        if len(words) < 4:
            return None
        (first, second), count = Counter(pairwise(words)).most_common(1)[0]
        covered = count * (len(first) + len(second)) / sum(map(len, words))
        return "top_bigram" if count > 1 and covered > max_share else None

    return rule


def max_line_length(most: float) -> Rule:
    """Characters of the longest line."""
    return lambda text: "max_line_length" if max(map(len, text.split("\n"))) > most else None


def mean_line_length(most: float) -> Rule:
    """Mean characters per line."""
    return lambda text: "mean_line_length" if len(text) > most * (text.count("\n") + 1) else None


def alphanumeric(min_share: float) -> Rule:
    """Share of characters that are letters or digits."""

    def rule(text: str) -> str | None:
        return "alphanumeric" if sum(map(str.isalnum, text)) < min_share * len(text) else None

    return rule


GENERATED = re.compile(
    r"auto-?\s?generated|automatically generated|generated (by|from|with)\b|do not (edit|modify)|@generated",
    re.IGNORECASE,
)


def generated(first_lines: float) -> Rule:
    """Markers of machine-written files within the first lines, where tools put them."""

    def rule(text: str) -> str | None:
        head = "\n".join(text[:20_000].split("\n")[: int(first_lines)])
        return "generated" if GENERATED.search(head) else None

    return rule


ENCODED = re.compile(
    r"[A-Za-z0-9+/=]{64,}"  # base64
    r"|(?:\\x[0-9a-fA-F]{2}){8,}|(?:\\u[0-9a-fA-F]{4}){8,}"
    r"|(?:(?:0x)?[0-9a-fA-F]{2}[,\s]\s*){16,}"
)


def encoded_data(max_share: float) -> Rule:
    """Share of characters inside runs of base64, hexadecimal or escapes: data in the dress of code."""

    def rule(text: str) -> str | None:
        covered = sum(match.end() - match.start() for match in ENCODED.finditer(text))
        return "encoded_data" if covered > max_share * len(text) else None

    return rule


class Entry(NamedTuple):
    make: Callable[..., Rule]
    threshold: Literal["number", "share", "range"]


RULES: dict[str, Entry] = {
    "min_bytes": Entry(min_bytes, "number"),
    "max_bytes": Entry(max_bytes, "number"),
    "mean_word_length": Entry(mean_word_length, "range"),
    "alphabetic_words": Entry(alphabetic_words, "share"),
    "symbols": Entry(symbols, "share"),
    "repeated_lines": Entry(repeated_lines, "share"),
    "top_bigram": Entry(top_bigram, "share"),
    "max_line_length": Entry(max_line_length, "number"),
    "mean_line_length": Entry(mean_line_length, "number"),
    "alphanumeric": Entry(alphanumeric, "share"),
    "generated": Entry(generated, "number"),
    "encoded_data": Entry(encoded_data, "share"),
}


def build(thresholds: Mapping[str, Any], where: str) -> list[Rule]:
    """The rules of one kind of text, in the order given. `where` is their place in params.yaml.

    Raises ConfigError for a rule there is not or a threshold of the wrong form.
    """
    return [_rule(name, value, f"{where}.{name}") for name, value in thresholds.items()]


def _rule(name: str, value: Any, where: str) -> Rule:
    if name not in RULES:
        raise ConfigError(f"{where}: {unknown('rule', name, sorted(RULES))}")
    make, form = RULES[name]
    if form == "range":
        if not isinstance(value, list | tuple) or len(value) != 2 or value[0] > value[1]:
            raise ConfigError(f"{where}: found {value!r}; give [least, most]")
        return make(*value)
    if isinstance(value, list | tuple) or value < 0 or (form == "share" and value > 1):
        raise ConfigError(f"{where}: found {value!r}; give {'a share, 0 to 1' if form == 'share' else 'one number'}")
    return make(value)


def verdict(text: str, rules: list[Rule]) -> str | None:
    """The first reason to drop the text, or None."""
    return next((reason for rule in rules if (reason := rule(text))), None)
