"""Words of abuse per thousand words: a tag, by which a person may look, weigh or cap. It drops nothing unless told.

The list is short and English, and was written for this project: curses, insults and slurs that have hardly another
meaning, and threats. It names no group, no part of the body and nothing medical ("retarded" is also a potential in
physics), because longer lists are known to remove what minorities write, and medical and legal text (arXiv:2104.08758
on C4's). So it misses much: hatred in polite words, other spellings, other languages. And it does not know abuse from
its quotation, from words reclaimed, or from the breeding of dogs: literature, court records and studies of hatred are
tagged as well. Text known to be in another language than English is not looked at.
"""

from typing import NamedTuple

import pyarrow as pa

from ratoon.config import Kind, Toxicity
from ratoon.corpus.judge import Ask, Documents, Findings
from ratoon.corpus.rules.languages import short
from ratoon.corpus.rules.profile import spoken

VERSION = 1
LANGUAGE = "en"
TERMS = (
    r"(?:mother|cluster)?fuck(?:s|ed|er|ers|ing|in|wit|wits|face|faces|head|heads|tard|tards)?",
    r"(?:bull|dip|horse)?shit(?:s|ty|tier|tiest|head|heads|bag|bags|hole|holes|stain|stains|lord|lords)?",
    r"(?:ass|arse)(?:hole|holes|hat|hats|wipe|wipes|clown|clowns)",
    r"(?:dumb|fat|lard|smart)ass(?:es)?",
    r"(?:son of a )?bitch(?:es|y)?|sons of bitches",
    r"cunts?|twats?",
    r"dickheads?|dickwads?|cocksuck(?:er|ers|ing)",
    r"wankers?|bellends?|knobheads?",
    r"douche ?bags?|scumbags?|sleazebags?|dirtbags?",
    r"whores?|sluts?|slutty|skanks?",
    r"morons?|libtards?",
    r"sub-?humans?|untermensch(?:en)?",
    r"(?:sand ?)?nigg(?:er|ers|a|as|az)",
    r"fagg?ots?|kikes?|gooks?|wetbacks?|ragheads?|towel ?heads?|camel jockeys?|spearchuckers?",
    r"(?:white|trailer) trash",
    r"kill (?:yourself|urself|yourselves)",
    r"(?:i(?:'|’)?ll|i will|we(?:'|’)?ll|we will|gonna|going to) (?:kill|murder|rape|behead|lynch) (?:you|u|them all)",
    r"(?:hope|wish) (?:you|they|he|she)(?: all| both)? (?:die|dies|died|get raped|gets raped|rot|rots)",
    r"(?:you|they|he|she)(?: all)? deserves? to (?:die|be raped|be shot|hang|burn)",
    r"go (?:die|hang yourself|drown yourself)",
)
PATTERN = r"(?i)\b(?:" + "|".join(TERMS) + r")\b"
WORD = r"\w+"
FIELDS = (pa.field("toxicity", pa.float32()),)


class Toxic(NamedTuple):
    max_per_thousand: float | None
    min_matches: int
    kinds: frozenset[str]
    kind: Kind | None  # of all documents; None: each has its own, noted before
    fields: tuple[pa.Field, ...] = FIELDS

    def content(self) -> tuple[object, ...]:
        kinds = tuple(sorted(self.kinds))
        return ("toxicity", VERSION, PATTERN, self.max_per_thousand, self.min_matches, kinds, self.kind)

    def open(self) -> Ask:
        return self._ask

    def _ask(self, documents: Documents) -> Findings:
        kinds = documents.note("kind") or [self.kind] * len(documents)
        matches = documents.texts.str.count_matches(PATTERN).to_list()
        words = documents.texts.str.count_matches(WORD).to_list()
        reasons: list[str | None] = []
        found: list[float | None] = []
        for label, kind, count, total in zip(spoken(documents), kinds, matches, words, strict=True):
            looked = kind in self.kinds and (not label or short(label) == LANGUAGE)
            rate = round(1000 * count / max(total, 1), 4) if looked else None
            found.append(rate)
            reasons.append(self._reason(rate, count))
        return Findings(reasons, {"toxicity": pa.array(found, pa.float32())})

    def _reason(self, rate: float | None, count: int) -> str | None:
        if rate is None or self.max_per_thousand is None or count < self.min_matches:
            return None
        return "toxicity" if rate > self.max_per_thousand else None


def toxicity(config: Toxicity, kind: Kind | None) -> Toxic:
    return Toxic(config.max_per_thousand, config.min_matches, frozenset(config.kinds), kind)
