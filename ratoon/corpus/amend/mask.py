"""Private strings give way to constant tokens, the same for all of a kind, so that a text depends on itself alone.

Kinds are looked for in one fixed order, the surest form first, whatever the order in which they were asked for. Looking
again at what came out finds nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import polars as pl

from ratoon.corpus.amend import addresses, credentials, keys, numbers
from ratoon.corpus.amend.finding import Finder, Span

FINDERS: dict[str, Finder] = {
    **keys.FINDERS,
    **credentials.FINDERS,
    **addresses.FINDERS,
    **numbers.FINDERS,
}


def suspects(texts: pl.Series, kinds: Sequence[str]) -> list[list[str]]:
    """For each text those of these kinds that it may hold; for the others it needs no search."""
    found: list[list[str]] = [[] for _ in range(len(texts))]
    for kind in kinds:
        for place in texts.str.contains(FINDERS[kind].hint).arg_true().to_list():
            found[place].append(kind)
    return found


def holds(text: str, kinds: Iterable[str]) -> bool:
    return any(True for kind in kinds for _ in FINDERS[kind].find(text))


def mask(text: str, kinds: Iterable[str]) -> tuple[str, Counter[str]]:
    """The text with its private strings masked, and how many there were of each kind."""
    asked = [kind for kind in FINDERS if kind in set(kinds)]
    total: Counter[str] = Counter()
    while True:
        found: Counter[str] = Counter()
        for kind in asked:
            spans = list(FINDERS[kind].find(text))
            if spans:
                found[kind] = len(spans)
                text = _replaced(text, spans, FINDERS[kind].token)
        # What stood beside a masked string may now stand alone. Each round leaves less to mask, so this ends.
        if not found:
            return text, total
        total += found


def _replaced(text: str, spans: list[Span], token: str) -> str:
    parts: list[str] = []
    end = 0
    for begin, stop in spans:
        parts += (text[end:begin], token)
        end = stop
    return "".join([*parts, text[end:]])
