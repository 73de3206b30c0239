"""Texts to words and punctuation marks, all at once.

Close to what a linguistic tokenizer for English does, by rules over code points and no dictionary: letters, numbers
and marks next to each other are one word; signs at its edge stand alone, but \\ / @ - ~ . | ^ directly before a word
belong to it. One to three signs inside a word belong to it (3.5, foo@bar.org, a[0), but
  - comma between letters, hyphen or + * ^ between numbers, hyphen or : < > = / before a letter,
    . between a small and a capital letter, .. and -- stand alone;
  - an apostrophe begins a word in English contractions (it 's, do n't) and ends one elsewhere (l' homme);
the last dot of e.g. and U.S. and of an initial belongs to it; ... and runs of - ~ ^ | / @ \\ are one mark; from ://
on a web address is one word.
What differs from spaCy: its lists of exceptions (Mr., cannot, "):" as a face) and of units (5km).

Scripts without spaces: where the language is one of them, each letter is a word of its own with its marks.
"""

import numpy as np
import numpy.typing as npt

from ratoon.corpus.rules.characters import INK, LETTER, LOWER, MARK, NUMBER, UNSPACED, UPPER, WORD

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint32]
Traits = npt.NDArray[np.uint8]
JOINED_SIGNS = 3
COMMA, HYPHEN, ARITHMETIC, RELATION, APOSTROPHE, DOT = 1, 2, 3, 4, 5, 6
SIGNS = {",": COMMA, "-": HYPHEN, "–": HYPHEN, "—": HYPHEN, "~": HYPHEN, ".": DOT, "'": APOSTROPHE, "’": APOSTROPHE}
SIGNS |= dict.fromkeys("+*^", ARITHMETIC) | dict.fromkeys(":<>=/", RELATION)
KINDS = np.zeros(0x2100, np.uint8)
KINDS[[ord(sign) for sign in SIGNS]] = list(SIGNS.values())
# One mark if repeated, part of the word behind them otherwise
RUNS = np.isin(np.arange(0x80), [ord(sign) for sign in ".-~^|/@\\"])
SHORT = np.array([ord(c) for c in "stmd"], np.uint32)
LONG = np.array([ord(a) << 8 | ord(b) for a, b in ("re", "ve", "ll")], np.uint32)


def split(codes: Codes, traits: Traits, unspaced: bool) -> tuple[Ints, Ints]:
    """First and one past the last position of every word. `codes` ends with white space."""
    word = (traits & WORD) > 0
    ink = (traits & INK).view(np.bool_)
    glued = np.zeros(len(codes), bool)  # to the character before
    np.logical_and(word[1:], word[:-1], out=glued[1:])
    sign = ink & ~word
    if sign.any():
        _signs(codes, traits, word, sign, glued)
    if unspaced:
        alone = (traits & UNSPACED) > 0
        glued[1:] &= ~(alone[1:] | alone[:-1]) | ((traits[1:] & MARK) > 0)
    start = np.flatnonzero(ink & ~glued)
    end = np.flatnonzero(ink[:-1] & ~glued[1:]) + 1
    return start, end


def runs(mask: Bools) -> tuple[Ints, Ints]:
    """First and one past the last position of every run of True; the last of the mask is False."""
    change = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    if len(mask) and mask[0]:
        change = np.concatenate([[0], change])
    return change[::2], change[1::2]


def _signs(codes: Codes, traits: Traits, word: Bools, sign: Bools, glued: Bools) -> None:
    """Decide for every run of signs what it is glued to."""
    start, end = runs(sign)
    length = end - start
    # start - 1 may be -1: the last position, which is white space
    inside = word[start - 1] & word[end]
    kind = KINDS[np.minimum(codes[start], len(KINDS) - 1)]
    one = inside & (length == 1)
    joined = one & _belongs(kind, traits[start - 1], traits[end])
    again = codes[start] == codes[np.minimum(start + 1, len(codes) - 1)]
    double = again & (length > 1) & ((kind == DOT) | (kind == HYPHEN))
    joined |= inside & (length > 1) & (length <= JOINED_SIGNS) & ~double
    for k in range(JOINED_SIGNS + 1):
        glued[start[joined & (length >= k)] + k] = True
    elision = one & (kind == APOSTROPHE)
    begins = _contraction(codes, word, end, elision)
    glued[end[begins]] = True
    glued[start[elision & ~begins]] = True
    negation = begins & (codes[end] | 32 == ord("t")) & (codes[start - 1] | 32 == ord("n")) & word[start - 2]
    glued[start[negation]] = True
    glued[start[negation] - 1] = False
    before = ~word[start - 1] & word[end] & RUNS[np.minimum(codes[end - 1], len(RUNS) - 1)] & ~double
    glued[end[before]] = True
    abbreviation = (kind == DOT) & ~joined & ~double & _abbreviated(codes, traits, word, start)
    glued[start[abbreviation]] = True
    inner = np.flatnonzero(sign[1:] & sign[:-1]) + 1
    inner = inner[codes[inner] == codes[inner - 1]]
    glued[inner[RUNS[np.minimum(codes[inner], len(RUNS) - 1)]]] = True
    scheme = inside & (length == 3) & (kind == RELATION) & (codes[end - 1] == ord("/"))
    _addresses(start[scheme & (codes[start] == ord(":"))], word, sign, glued)


def _addresses(begin: Ints, word: Bools, sign: Bools, glued: Bools) -> None:
    """Glue each address from its :// to its last word character."""
    if not len(begin):
        return
    blanks = np.flatnonzero(~(word | sign))
    words = np.flatnonzero(word)
    last = words[np.searchsorted(words, blanks[np.searchsorted(blanks, begin)]) - 1]
    length = last - begin + 1
    offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    glued[np.repeat(begin, length) + offset] = True


def _belongs(kind: npt.NDArray[np.uint8], left: Traits, right: Traits) -> Bools:
    """Whether one sign between two word characters is part of the word."""
    letters = (left & right & LETTER) > 0
    numbers = (left & right & NUMBER) > 0
    apart = (kind == APOSTROPHE) | (letters & (kind == COMMA))
    apart |= numbers & ((kind == ARITHMETIC) | (kind == HYPHEN))
    apart |= ((kind == RELATION) | (kind == HYPHEN)) & ((right & LETTER) > 0)
    apart |= (kind == DOT) & ((left & LOWER) > 0) & ((right & UPPER) > 0)
    return ~apart


def _contraction(codes: Codes, word: Bools, after: Ints, asked: Bools) -> Bools:
    """Whether s, t, m, d, re, ve or ll and nothing more follows."""
    found = np.zeros(len(after), bool)
    at = after[asked]
    last = len(codes) - 1
    first, second = codes[at] | 32, codes[np.minimum(at + 1, last)] | 32
    more, third = word[np.minimum(at + 1, last)], word[np.minimum(at + 2, last)]
    long = more & ~third & np.isin(first << np.uint32(8) | second, LONG)
    found[asked] = (~more & np.isin(first, SHORT)) | long
    return found


def _abbreviated(codes: Codes, traits: Traits, word: Bools, dot: Ints) -> Bools:
    """A dot behind one letter that has a dot before it, or behind a single capital."""
    letter = (traits[dot - 1] & LETTER) > 0
    return letter & ((codes[dot - 2] == ord(".")) | (((traits[dot - 1] & UPPER) > 0) & ~word[dot - 2]))
