"""How much of what a model wrote stands in its training text, word for word.

The share of an output's runs of 13 tokens that occur in the packed rows. The rows are streamed once for all outputs of
all models, a block at a time; only the runs asked about are held. Runs are found by a rolling hash of 64 bits and then
compared token by token, so a run counted is a run found. A run that begins in one document and ends in the next is none
of ours: outputs hold no separator.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ratoon.stream.rows import Rows

RUN = 13  # as in decontamination: long enough that language alone does not repeat it
BLOCK_TOKENS = 1 << 20
FILTER_BITS = 20
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no token is lost in the product
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


def copied(outputs: Sequence[Sequence[int]], rows: Sequence[Rows], searched_tokens: int) -> list[float | None]:
    """Of each output the share of its runs found in the first `searched_tokens` of each source; None: it has none."""
    runs = [windows(np.asarray(output, np.int64)) for output in outputs]
    asked_for = [hashes(np.asarray(output, np.int64)) for output in outputs]
    wanted = np.unique(np.concatenate([np.empty(0, np.uint64), *asked_for]))
    if not len(wanted):
        return [None] * len(outputs)
    asked = {tuple(run) for each in runs for run in each.tolist()}
    found: set[tuple[int, ...]] = set()
    for source in rows:
        for block in blocks(source, searched_tokens):
            found |= asked & set(matches(block, wanted))
    return [sum(tuple(run) in found for run in each.tolist()) / len(each) if len(each) else None for each in runs]


def windows(tokens: I64) -> I64:
    if len(tokens) < RUN:
        return np.empty((0, RUN), np.int64)
    return np.lib.stride_tricks.sliding_window_view(tokens, RUN)


def hashes(tokens: I64) -> U64:
    """Of each run of tokens: a polynomial of the mixed tokens, modulo 2^64."""
    if len(tokens) < RUN:
        return np.empty(0, np.uint64)
    mixed = mix(tokens.astype(np.uint64))
    total = np.zeros(len(tokens) - RUN + 1, np.uint64)
    for n in range(RUN):
        total *= FACTOR
        total += mixed[n : n + len(total)]
    return mix(total)


def mix(numbers: U64) -> U64:
    """Neighbouring numbers to distant ones."""
    numbers = (numbers + np.uint64(1)) * FACTOR
    return numbers ^ (numbers >> np.uint64(29))


def matches(block: I64, wanted: U64) -> Iterator[tuple[int, ...]]:
    """The runs of a block whose hash is wanted."""
    seen = hashes(block)
    # A table of bits leaves one run in a hundred or so to be looked up for certain.
    low = np.uint64((1 << FILTER_BITS) - 1)
    table = np.zeros(1 << FILTER_BITS, bool)
    table[wanted & low] = True
    (likely,) = table[seen & low].nonzero()
    sure = likely[np.isin(seen[likely], wanted)]
    runs = windows(block)
    for at in sure:
        yield tuple(runs[at].tolist())


def blocks(rows: Rows, searched_tokens: int) -> Iterator[I64]:
    """The first tokens of a source in pieces, each with the end of the one before."""
    step = max(1, BLOCK_TOKENS // rows.row_tokens)
    left = np.empty(0, np.int64)
    last = min(rows.num_rows, -(-searched_tokens // rows.row_tokens))
    for first in range(0, last, step):
        tokens, _ = rows.read(np.arange(first, min(first + step, last)))
        block = np.concatenate([left, tokens.reshape(-1)])
        yield block
        left = block[-(RUN - 1) :]
