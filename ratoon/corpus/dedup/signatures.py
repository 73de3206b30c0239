"""MinHash signatures of texts: how alike two are can be read off without the texts.

The share of slots in which two signatures agree estimates the Jaccard similarity of the sets of word n-grams, slot
by slot without bias. How slots are filled follows Fast Similarity Sketching (arXiv:1704.04370): in each of a few
turns every n-gram falls into one slot, and an earlier turn outranks a later one; what is empty after the last turn
takes, slot by slot, the least hash of all n-grams. A long text so costs one hash per n-gram, not one per n-gram and
slot. The signature of a set depends neither on order nor on repetition, and that of a union is the least of its
parts' slot by slot.

All of it is specified here and in words.py, so signatures on disk stay comparable for as long as ALGORITHM does.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratoon.corpus.dedup.words import GOLDEN, I64, U8, U64, mix, words

# Raise it whenever the same text would give another signature; persisted ones are then made anew.
ALGORITHM = "fss-1"
TURNS = 8
# No slot of a text has this value; all slots of a text too short for one n-gram do.
EMPTY = np.uint32(0xFFFFFFFF)
BATCH_BYTES = 1 << 20
# Bits of an n-gram's hash that only the first turn looks at; afterwards they number the text it belongs to.
SPARE = np.uint64(17)

U32 = NDArray[np.uint32]


def signatures(texts: pa.Array | pa.ChunkedArray, ngram: int = 5, slots: int = 112) -> U32:
    """One row of `slots` per text. A slot holds the turn that filled it (4 bits) and a hash (28 bits)."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    parts = [_sketch(data, offsets, ngram, slots) for chunk in chunks for data, offsets in batches(chunk)]
    return np.concatenate(parts) if parts else np.empty((0, slots), np.uint32)


def batches(texts: pa.Array) -> Iterator[tuple[U8, I64]]:
    """(bytes, offsets) of about BATCH_BYTES of text; the memory is Arrow's own."""
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, ends, content = texts.buffers()
    offsets = np.frombuffer(ends, width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8)
    first = 0
    while first < len(texts):
        last = max(int(np.searchsorted(offsets, offsets[first] + BATCH_BYTES, "right")) - 1, first + 1)
        last = min(last, first + (1 << int(SPARE)))
        yield data, offsets[first : last + 1]
        first = last


def _sketch(data: U8, offsets: I64, ngram: int, slots: int) -> U32:
    found = words(data, offsets)
    bounds = np.searchsorted(found.starts, offsets)
    grams = _ngrams(found.hashes, ngram)
    counts = np.maximum(np.diff(bounds) - ngram + 1, 0)
    owner = np.repeat(np.arange(len(counts)), counts)
    # n-grams that reach into the next text are left out.
    grams = grams[ranges(bounds[:-1], counts)]
    filled = np.full((len(counts), slots), EMPTY)
    for turn in range(TURNS):
        _turn(filled, grams, owner, turn)
        open_ = (filled == EMPTY).any(axis=1)
        still = open_[owner]
        grams, owner = grams[still], owner[still]
        if not len(grams):
            return filled
        if turn == 3:  # few are left, and a text that says one thing a million times must not cost a million
            grams, owner = _distinct(grams, owner)
    return _fill(filled, grams, owner)


def _ngrams(hashes: U64, ngram: int) -> U64:
    """A hash for every word and those that follow it; order counts."""
    if len(hashes) < ngram:
        return np.empty(0, np.uint64)
    total = np.zeros(len(hashes) - ngram + 1, np.uint64)
    for k in range(ngram):
        total += hashes[k : len(hashes) - ngram + 1 + k] * np.uint64((GOLDEN * (2 * k + 1)) & (2**64 - 1))
    return mix(total)


def ranges(starts: I64, counts: I64) -> I64:
    """starts[0], starts[0] + 1, ... counts[0] of them, then the same of starts[1], and so on."""
    shift = np.repeat(starts - np.cumsum(counts) + counts, counts)
    return shift + np.arange(len(shift))


def _turn(filled: U32, grams: U64, owner: I64, turn: int) -> None:
    slots = filled.shape[1]
    hashes = grams if turn == 0 else mix((grams >> SPARE) + np.uint64((GOLDEN * turn) & (2**64 - 1)))
    slot = ((hashes >> np.uint64(32)) * np.uint64(slots) >> np.uint64(32)).astype(np.int64)
    value = (hashes & np.uint64(0x0FFFFFFF)).astype(np.uint32) | np.uint32(turn << 28)
    np.minimum.at(filled.reshape(-1), slot + owner * slots, value)


def _distinct(grams: U64, owner: I64) -> tuple[U64, I64]:
    both = np.sort(owner.astype(np.uint64) << np.uint64(64 - SPARE) | grams >> SPARE)
    both = both[np.append(True, both[1:] != both[:-1])]
    return both << SPARE, (both >> np.uint64(64 - SPARE)).astype(np.int64)


def _fill(filled: U32, grams: U64, owner: I64) -> U32:
    """The slots no turn has reached: the least of all n-grams, hashed anew for every slot."""
    have, first, counts = np.unique(owner, return_index=True, return_counts=True)
    row, slot = np.nonzero(filled[have] == EMPTY)
    lengths = counts[row]
    seeds = mix(slot.astype(np.uint64) + np.uint64(TURNS << 32))
    hashes = mix((grams >> SPARE)[ranges(first[row], lengths)] ^ np.repeat(seeds, lengths))
    least = np.minimum.reduceat(hashes & np.uint64(0x0FFFFFFF), np.cumsum(lengths) - lengths)
    filled[have[row], slot] = least.astype(np.uint32) | np.uint32(TURNS << 28)
    return filled
