"""What every kind of private string has: how it is found, and what stands in its place."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

Span = tuple[int, int]


class Finder(NamedTuple):
    """`hint` is a regular expression of the regex crate (no look-around, linear time) that matches at least every
    text in which `find` finds something: most texts are spared the slower search. Spans come in order, apart.
    """

    token: str
    hint: str
    find: Callable[[str], Iterator[Span]]


# What stands where a secret would, in examples and forms. Short words count between other signs alone, and x four times
# in one case: drawn letters spell them now and then.
PLACEHOLDER = re.compile(
    r"x{4}|X{4}|\*{3}|\.{3}|^\$|%[(s]|\{[\w.{} -]*\}|<[A-Za-z_ -]*>"
    r"|(?i:example|sample|dummy|placeholder|change.?(?:me|it|this)|replace|insert|redacted|removed|hidden|secret|passw|lorem"
    r"|(?<![a-z0-9])(?:your|my|todo|fixme|fake|foo|bar|test)(?![a-z0-9]))"
)


def placeholder(value: str) -> bool:
    """Whether the value says itself that it is none: named so, or counted out ("12345678", "aaaaaaaa", "abcdef01")."""
    steps = [ord(b) - ord(a) for a, b in pairwise(value)]
    plain = sum(step in (0, 1, -1) for step in steps)
    return 2 * plain >= len(steps) or PLACEHOLDER.search(value) is not None


def entropy(value: str) -> float:
    """Of its characters, in bits per character (Shannon)."""
    counts = Counter(value).values()
    return math.log2(len(value)) - sum(n * math.log2(n) for n in counts) / len(value)
