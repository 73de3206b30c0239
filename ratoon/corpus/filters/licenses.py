"""Which licences text may be under.

The licence of a document is the one its record declares, or else its source. SPDX expressions are read: of `A OR B` one
must be allowed, of `A AND B` both, and an exception (`WITH`) changes nothing. Anything else is compared as a whole, so
`MIT License` is allowed by that name and not by `MIT`.
"""

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

from ratoon.config import LicenseFilter
from ratoon.corpus.judge import Ask, Documents, Findings

VERSION = 1
SAYS_NOTHING = frozenset({"", "unknown", "none", "noassertion", "other", "null"})
TOKEN = re.compile(r"\(|\)|[^\s()]+")
MAX_TOKENS = 200  # expressions nest; a longer text is none


class Licenses(NamedTuple):
    allow: tuple[str, ...]  # in lower case
    deny: tuple[str, ...]
    keep_unknown: bool
    fields: tuple[()] = ()

    def content(self) -> tuple[object, ...]:
        return ("licenses", VERSION, tuple(sorted(self.allow)), tuple(sorted(self.deny)), self.keep_unknown)

    def open(self) -> Ask:
        reason = cache(self.reason)  # few licences, many documents

        def ask(documents: Documents) -> Findings:
            return Findings([reason(text) for text in documents.column("license")])

        return ask

    def reason(self, text: str | None) -> str | None:
        name = (text or "").strip().lower()
        if name in SAYS_NOTHING:
            return None if self.keep_unknown else "license_unknown"
        return None if permits(name, self._permitted) else "license"

    def _permitted(self, name: str) -> bool:
        allowed = not self.allow or any(fnmatchcase(name, each) for each in self.allow)
        return allowed and not any(fnmatchcase(name, each) for each in self.deny)


def licenses(config: LicenseFilter) -> Licenses:
    allow, deny = (tuple(name.lower() for name in names) for names in (config.allow, config.deny))
    return Licenses(allow, deny, config.unknown == "keep")


def permits(text: str, permitted: Callable[[str], bool]) -> bool:
    """Whether an SPDX expression in lower case holds of its licences; what is no expression is one name."""
    tokens = TOKEN.findall(text)
    if len(tokens) > MAX_TOKENS:
        return permitted(text)
    try:
        found, rest = _either(tokens, permitted)
    except _NotAnExpression:
        return permitted(text)
    return found if not rest else permitted(text)


class _NotAnExpression(Exception):
    pass


def _either(tokens: list[str], permitted: Callable[[str], bool]) -> tuple[bool, list[str]]:
    found, rest = _both(tokens, permitted)
    while rest[:1] == ["or"]:
        other, rest = _both(rest[1:], permitted)
        found = found or other
    return found, rest


def _both(tokens: list[str], permitted: Callable[[str], bool]) -> tuple[bool, list[str]]:
    found, rest = _one(tokens, permitted)
    while rest[:1] == ["and"]:
        other, rest = _one(rest[1:], permitted)
        found = found and other
    return found, rest


def _one(tokens: list[str], permitted: Callable[[str], bool]) -> tuple[bool, list[str]]:
    if tokens[:1] == ["("]:
        found, rest = _either(tokens[1:], permitted)
        if rest[:1] != [")"]:
            raise _NotAnExpression
        return found, rest[1:]
    if not tokens or tokens[0] in ("and", "or", "with", ")"):
        raise _NotAnExpression
    rest = tokens[1:]
    if rest[:1] == ["with"] and len(rest) > 1:
        rest = rest[2:]
    return permitted(tokens[0]), rest
