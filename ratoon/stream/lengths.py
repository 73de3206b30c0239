"""Rows that grow over a run, at the same tokens per step.

The order is one of whole rows, as long as the base has them; where shorter ones are asked for, each is cut in equal
parts, which stay in its step. So a change of length neither loses a token nor reads one twice: at every step as much of
every source was read as without it. The first token of every part is context only and has no loss.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ratoon.config import ConfigError, Length
from ratoon.stream.mixture import Batch
from ratoon.stream.order import Place
from ratoon.stream.stages import WHERE, reached, rising


class Lengths:
    """How many parts a row is cut in at each step."""

    def __init__(self, asked: Sequence[Length], row_tokens: int, steps: int, step_tokens: int) -> None:
        ends = [round(one.until * steps if one.until <= 1 else one.until / step_tokens) for one in asked]
        reached(asked, ends, steps, steps * step_tokens, f"{WHERE}.lengths")
        rising([one.until for one in asked], ends, f"{WHERE}.lengths", "step")
        if odd := [one.row_tokens for one in asked if row_tokens % one.row_tokens]:
            raise ConfigError(
                f"{WHERE}.lengths: row_tokens {odd[0]} does not divide the base's {row_tokens}; allowed: "
                f"{', '.join(str(n) for n in range(1, row_tokens + 1) if row_tokens % n == 0)}"
            )
        self.ends = np.array(ends, np.int64)
        self.parts = [*(row_tokens // one.row_tokens for one in asked), 1]

    def between(self, first: int, last: int) -> dict[int, int]:
        """Parts a row is cut in -> steps of these, from step `first` to before `last`."""
        points = [first, *(end for end in self.ends.tolist() if first < end < last), last]
        found: dict[int, int] = {}
        for begin, end in pairwise(points):
            if begin < end:
                parts = self.parts_at(begin)
                found[parts] = found.get(parts, 0) + end - begin
        return found

    def parts_at(self, step: int) -> int:
        return self.parts[int(np.searchsorted(self.ends, step, side="right"))]


def cut(batch: Batch, parts: int) -> Batch:
    """Each row as `parts` rows, one after the other; `place` counts rows of the source in the shorter length."""
    if parts == 1:
        return batch
    rows, row_tokens = batch.tokens.shape
    short = row_tokens // parts
    part = np.tile(np.arange(parts), rows)
    valid = np.clip(np.repeat(batch.valid, parts) - part * short, 0, short)
    place = batch.place
    if place is not None:
        source, row, epoch = (np.repeat(each, parts) for each in (place.source, place.row, place.epoch))
        place = Place(source, row * parts + part, epoch)
    return Batch(batch.tokens.reshape(rows * parts, short), valid, place, parts)
