"""Credentials without a form of their own: random-looking values given to a name such as password or api_key.

    password = "..."   "secret": "..."   API_KEY=...   --token ...   <password>...</password>   Bearer ...
    scheme://user:...@host

The name stays, the value goes. A value is taken for a secret when it looks drawn rather than written: 8 characters or
more, letters and digits mixed within a word, entropy 2.8 bits per character or more; without quotation marks, where
code has expressions, 12 characters, and no name of several words. Values that say they are examples (see
`placeholder`), paths, names and calls stay.
"""

import re
from collections.abc import Iterator

from ratoon.corpus.amend.finding import Finder, Span, entropy, placeholder

STEMS = ("passw", "passphrase", "passcode", "pwd", "secret", "token", "credential", "key")
NAMES = r"pass(?:word|wd|phrase|code)|pwd|secret(?:[_ -]?(?:access[_ -]?)?key(?:_base)?)?|token|credentials?|key"
KEYS = r"(?i:api|access|auth|account|private|encryption|signing|master|license|storage)[_ -]?"
KEY_OF = re.compile(rf"{KEYS}\Z")
# Not the page of a list, nor the public half of a key.
OTHER = re.compile(r"(?i:page|page[_-]|public[_-]?key)\Z")
OPTION = re.compile(r"--[a-zA-Z-]{0,20}\Z")
LONGEST_BEFORE = 24

TYPE = r"(?:\s{0,3}:\s{0,2}[a-z]{2,12})?"  # password: str = "..."
GIVEN = r"\s{0,8}(?:=>|:=|==?|:|>)\s{0,4}"
QUOTED = r"[bfru]{0,2}(?:\"([^\"\s]{8,200})\"|'([^'\s]{8,200})'|`([^`\s]{8,200})`)"
# Not in quotation marks; up to the next parameter of a URL.
BARE_GROUP = 4
BARE = r"((?:(?!&[\w-]{1,32}=)[^\s=\"'`,;()<>\[\]{}\\]){12,200}={0,2})"
VALUE = rf"(?:{QUOTED}|{BARE})(?![(\[\w])"
ASSIGNED = re.compile(rf"(?i:{NAMES})(?:[\"'`\]]{{0,2}}{TYPE}{GIVEN}|\s{{1,8}}(?=[\"'])){VALUE}")
SPACED = re.compile(rf"(?i:{NAMES})\s{{1,4}}{VALUE}")
HEADER = re.compile(r"B(?:earer|asic)\s{1,4}([A-Za-z0-9+/_.~-]{16,2000}={0,2})(?![\w(])")
IN_URL = re.compile(r"://[^\s/:@\"'<>]{1,64}:([^\s/@\"'<>]{8,128})@")
HINT = (
    rf"(?i:{NAMES.removesuffix('|key')}|{KEYS}key)(?:[\"'`\]]{{0,2}}{TYPE}{GIVEN}|\s{{1,8}})"
    r"\S{8}|(?:Bearer|Basic)\s{1,4}[A-Za-z0-9+/_.~-]{16}|://[^\s/:@]+:[^\s/@]{8}"
).replace(r"\s", r"[\s\x1c-\x1f]")  # what Python calls white space

# Words and numbers as people and programs write them: letters, then perhaps digits; or a short number.
WRITTEN = re.compile(r"[^\W\d_]*\d{0,4}|\d{1,8}")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
RUN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
LEAST_ENTROPY = 2.8  # bits per character
LEAST_ALNUM = 0.5  # share: less is an expression
LEAST_RUN = 3.2  # letters at once, on average: more is a name (Ed25519PrivateKey), drawn ones have 1.3 to 2.5


def credentials(text: str) -> Iterator[Span]:
    end = 0
    for begin, stop in sorted(_candidates(text)):
        if begin >= end:
            yield begin, stop
            end = stop


def _candidates(text: str) -> Iterator[Span]:
    for place in _names(text):
        match = ASSIGNED.match(text, place)
        if match is None and OPTION.search(text, max(0, place - LONGEST_BEFORE), place):
            match = SPACED.match(text, place)
        if match is None or match.lastindex is None:
            continue
        value = match[match.lastindex]
        if drawn(value) and not (match.lastindex == BARE_GROUP and called(value)):
            yield match.span(match.lastindex)
    for pattern in (HEADER, IN_URL):
        for match in pattern.finditer(text):
            if drawn(match[1]):
                yield match.span(1)


def _names(text: str) -> Iterator[int]:
    """Where a name may begin. Plain search, many times faster than one expression that ignores case."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters have two in lower case
        lower = re.sub("[A-Z]+", lambda match: match[0].lower(), text)
    for stem in STEMS:
        place = lower.find(stem)
        while place >= 0:
            before = max(0, place - LONGEST_BEFORE)
            if KEY_OF.search(text, before, place) if stem == "key" else not OTHER.search(text, before, place):
                yield place
            place = lower.find(stem, place + 1)


def drawn(value: str) -> bool:
    """Whether the value looks like one drawn at random, not one that means something."""
    if "://" in value or entropy(value) < LEAST_ENTROPY or placeholder(value):
        return False
    if sum(map(str.isalnum, value)) < LEAST_ALNUM * len(value):
        return False
    return not all(WRITTEN.fullmatch(part) for part in re.split(r"[\W_]+", value))


def called(value: str) -> bool:
    """Whether the value is the name of something in a program."""
    runs = RUN.findall(value)
    return IDENTIFIER.fullmatch(value) is not None and sum(map(len, runs)) >= LEAST_RUN * len(runs)


FINDERS = {"credential": Finder("<CREDENTIAL>", HINT, credentials)}
