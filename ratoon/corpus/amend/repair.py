"""Encoding repair: mojibake, stray control characters and terminal colours, line by line, with ftfy.

What an author may have meant stays: curly quotes, ligatures, full-width letters, line breaks, composed and decomposed
letters, HTML entities (a page about HTML spells them out).
"""

import re
from typing import NamedTuple

import polars as pl
from ftfy import TextFixerConfig, fix_text_segment

SETTINGS = TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
    explain=False,
)
LONGEST = 1_000_000  # characters of one line looked at together: ftfy's own bound
ROUNDS = 8
# What every line that ftfy would change has: two characters side by side of the blocks that its heuristic knows (Latin,
# Greek, Cyrillic; punctuation and signs), or one that it takes alone; or a character that it removes. Far faster than
# to ask it, and most lines have nothing of the kind. The same for `re` and for the regex crate.
KNOWN = "\x80-\u052f\u2000-\u27ff\ufb01\ufb02\uf8ff\ufffd"
ODD = f"[{KNOWN}]{{2}}|[\x80-\x9f\u00c2\u00c3\u0152\u0153]|[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]"
ODD_LINE = re.compile(ODD)


class Repaired(NamedTuple):
    text: str
    lines: int  # that changed


def suspects(texts: pl.Series) -> list[bool]:
    """Which texts `repair` could change."""
    return texts.str.contains(ODD).to_list()


def repair(text: str) -> Repaired:
    """The text as it was before it was decoded wrongly; repairing it again changes nothing."""
    total = 0
    for _ in range(ROUNDS):
        text, changed = _once(text)
        total += changed
        if not changed:
            break
    return Repaired(text, total)


def _once(text: str) -> tuple[str, int]:
    lines = text.split("\n")
    ends = ["\n"] * (len(lines) - 1) + [""]
    changed = 0
    for number, (line, end) in enumerate(zip(lines, ends, strict=True)):
        lines[number] = _mended(line + end) if ODD_LINE.search(line) else line + end
        changed += lines[number] != line + end
    return "".join(lines), changed


def _mended(line: str) -> str:
    return "".join(fix_text_segment(line[i : i + LONGEST], SETTINGS) for i in range(0, len(line), LONGEST))
