"""What each Unicode character is, as bits of one byte: the table every rule over code points reads."""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl

INK = 1  # anything but white space
LETTER = 2
NUMBER = 4
MARK = 8  # accents and vowel signs that belong to the letter before
UPPER = 16
LOWER = 32
ENDS = 64  # ends a sentence, in any script (Unicode's Sentence_Terminal)
UNSPACED = 128  # of a script that writes no space between words
WORD = LETTER | NUMBER | MARK

# Noncharacter between documents of a batch. In a text it counts as white space.
BETWEEN = "\uffff"
LIMIT = 0x110000
PLANES = 0x20000  # beyond: planes 2 and 3 hold ideographs, the rest nothing that is written
SCRIPTS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # ideographs
    (0xF900, 0xFAFF),
    (PLANES, 0x3FFFF),
)
# str.splitlines cuts at these
BREAKS = tuple(ord(c) for c in "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")


@cache
def traits() -> npt.NDArray[np.uint8]:
    """Bits of every code point. 1.1 MB, made once in a process."""
    table = np.zeros(LIMIT, np.uint8)
    table[:PLANES] = [_bits(code) for code in range(PLANES)]
    table[PLANES:0x40000] = INK | LETTER
    table[0x40000:] = INK
    table[ord(BETWEEN)] = 0
    for first, last in SCRIPTS:
        table[first : last + 1] |= UNSPACED
    characters = [chr(code) for code in range(PLANES) if not 0xD800 <= code < 0xE000]
    ends = pl.Series(characters).str.contains(r"\p{Sentence_Terminal}")
    table[[ord(c) for c in pl.Series(characters).filter(ends)]] |= ENDS
    table[[ord(c) for c in "．｡"]] |= ENDS  # full and half width full stops are no Sentence_Terminal
    return table


def _bits(code: int) -> int:
    character = chr(code)
    if character.isspace():
        return 0
    kind = unicodedata.category(character)
    bits = INK | {"L": LETTER, "N": NUMBER, "M": MARK}.get(kind[0], 0)
    return bits | {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER}.get(kind, 0)
