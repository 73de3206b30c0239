"""Words of many texts at once, as 64-bit hashes: the letters that near-duplicates are spelled with.

A word is a run of letters and digits without regard to case; all else parts words, and numbers stay what they are.
Scripts written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Myanmar) give one word per character. Of a word
longer than 64 bytes the first 64 count.

The recipe is spelled out here and leans on no library's tables that a new version may change, so that hashes
written to disk stay comparable: case is folded below U+0800 only, where Unicode promises that it never changes.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST = 64
# Bytes looked at in one go: what its arrays take fits in a core's cache.
PIECE = 1 << 18
GOLDEN = 0x9E3779B97F4A7C15

# Blocks of 64 characters from U+0800 on that are no plain letters, as first and last character.
ALONE = ((0x0E00, 0x0EFF), (0x1000, 0x107F), (0x1780, 0x17FF), (0x3040, 0xA4BF), (0xF900, 0xFAFF), (0xFF00, 0xFFBF))
APART = ((0x2000, 0x207F), (0x2E00, 0x2E7F), (0x3000, 0x303F), (0xFE00, 0xFE7F))

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


class Words(NamedTuple):
    starts: I64  # where in the bytes each begins
    hashes: U64


def mix(x: U64) -> U64:
    """A bijection that spreads every bit over all (splitmix64's, doi:10.1145/2660193.2660195)."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def words(data: U8, offsets: I64) -> Words:
    """Of the UTF-8 texts data[offsets[i]:offsets[i + 1]], in order; no word crosses from one text into the next."""
    first, last = int(offsets[0]), int(offsets[-1])
    pieces = [_piece(data, offsets, at, min(at + PIECE, last)) for at in range(first, last, PIECE)]
    if not pieces:
        return Words(np.empty(0, np.int64), np.empty(0, np.uint64))
    return Words(np.concatenate([p.starts for p in pieces]), np.concatenate([p.hashes for p in pieces]))


def _piece(data: U8, offsets: I64, begin: int, end: int) -> Words:
    """Words that start in data[begin:end]. Looks a character back and a longest word ahead."""
    left, right = max(int(offsets[0]), begin - 8), min(int(offsets[-1]), end + LONGEST + 8)
    view = data[left:right]
    lower, letter, fresh = _classify(view)
    fresh[1:] |= ~letter[:-1]
    fresh[0] = True
    fresh[offsets[np.searchsorted(offsets, left) : np.searchsorted(offsets, right)] - left] = True
    fresh &= letter
    closes = ~letter
    closes[1:] &= letter[:-1]
    marks = np.flatnonzero(fresh | closes)
    opens = fresh[marks]
    stops = np.append(marks[1:], len(view))[opens]
    starts = marks[opens]
    # A view that begins inside a character or a word may open with half of it: that is before `begin`.
    inside = slice(*np.searchsorted(starts, (begin - left, end - left)))
    starts, stops = starts[inside], stops[inside]
    return Words(starts + left, _hash(lower, starts, np.minimum(stops - starts, LONGEST)))


def _classify(view: U8) -> tuple[U8, NDArray[np.bool_], NDArray[np.bool_]]:
    """(bytes in lower case and 8 zeros, which belong to words, which begin one whatever is before)."""
    lower = np.zeros(len(view) + 8, np.uint8)
    upper = (view - np.uint8(65)) < 26
    np.bitwise_or(view, upper.view(np.uint8) << np.uint8(5), out=lower[: len(view)])
    beyond = view >= 128
    letter = ((lower[: len(view)] - np.uint8(97)) < 26) | ((view - np.uint8(48)) < 10) | beyond
    fresh = np.zeros(len(view), np.bool_)
    if beyond.any():
        _two_bytes(view, lower, letter)
        _more_bytes(view, letter, fresh)
    return lower, letter, fresh


def _two_bytes(view: U8, lower: U8, letter: NDArray[np.bool_]) -> None:
    """U+0080 to U+07FF: signs part words, capitals become small."""
    at = np.flatnonzero((view[:-1] >= 0xC2) & (view[:-1] < 0xE0))
    code = (view[at].astype(np.int64) & 31) << 6 | (view[at + 1] & 63)
    sign = at[code < 0xC0]
    letter[sign] = letter[sign + 1] = False
    small = _small()[code]
    lower[at] = 0xC0 | small >> 6
    lower[at + 1] = 0x80 | small & 63


@cache
def _small() -> I64:
    """Code point to that of its small letter, below U+0800."""
    codes = np.arange(0x800)
    for code in range(0xC0, 0x588):  # after Armenian no script of these has case
        folded = chr(code).lower()
        if len(folded) == 1 and 0x80 <= ord(folded) < 0x800:
            codes[code] = ord(folded)
    return codes


def _more_bytes(view: U8, letter: NDArray[np.bool_], fresh: NDArray[np.bool_]) -> None:
    """From U+0800 on: by blocks; what takes four bytes (rare Chinese, emoji) stands alone."""
    at = np.flatnonzero((view[:-2] >= 0xE0) & (view[:-2] < 0xF0))
    block = (view[at].astype(np.int64) & 15) << 6 | (view[at + 1] & 63)
    apart, alone = (at[_blocks(ranges)[block]] for ranges in (APART, ALONE))
    for byte in range(3):
        letter[apart + byte] = False
    four = np.flatnonzero(view >= 0xF0)
    for lead, length in ((alone, 3), (four, 4)):
        fresh[lead] = True
        fresh[lead[lead + length < len(view)] + length] = True


@cache
def _blocks(ranges: tuple[tuple[int, int], ...]) -> NDArray[np.bool_]:
    found = np.zeros(1024, np.bool_)
    for first, last in ranges:
        found[first >> 6 : (last >> 6) + 1] = True
    return found


def _hash(lower: U8, starts: I64, lengths: I64) -> U64:
    """Eight bytes a turn; the few words that are longer take another turn."""
    blocks = np.ndarray(len(lower) - 7, np.dtype("<u8"), lower.data, strides=(1,))
    masks = np.array([(1 << 8 * k) - 1 for k in range(9)], np.uint64)
    hashes = lengths.astype(np.uint64) * np.uint64(GOLDEN)
    hashes = mix(hashes ^ (blocks[starts] & masks[np.minimum(lengths, 8)]))
    for done in range(8, LONGEST, 8):
        more = np.flatnonzero(lengths > done)
        if not len(more):
            break
        block = blocks[starts[more] + done] & masks[np.minimum(lengths[more] - done, 8)]
        hashes[more] = mix(hashes[more] ^ block)
    return hashes
