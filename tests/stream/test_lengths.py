"""Rows that grow: the same tokens, cut shorter for a while."""

from itertools import chain

import numpy as np
import pytest

from ratoon.config import ConfigError, Length
from ratoon.stream.lengths import Lengths, cut
from ratoon.stream.mixture import Mixture
from ratoon.stream.order import Order


class Numbered:
    """Rows whose tokens say where they stand; the last row is short."""

    def __init__(self, num_tokens, row_tokens):
        self.num_tokens, self.row_tokens = num_tokens, row_tokens
        self.num_rows = -(-num_tokens // row_tokens)

    def read(self, indices):
        tokens = indices[:, None] * self.row_tokens + np.arange(self.row_tokens)
        return np.where(tokens < self.num_tokens, tokens, -1), np.minimum(
            self.row_tokens, self.num_tokens - indices * self.row_tokens
        )


def mixture(row_tokens=8):
    rows = {"web": Numbered(77, row_tokens), "code": Numbered(43, row_tokens)}
    sizes = {name: each.num_rows for name, each in rows.items()}
    return Mixture(rows, Order({"web": 0.5, "code": 0.5}, sizes, block_rows=4, seed=1))


def lengths(*asked, steps=10, step_tokens=32):
    return Lengths([Length(until=until, row_tokens=tokens) for until, tokens in asked], 8, steps, step_tokens)


def test_lengths_change_at_shares_of_the_run_or_at_tokens():
    found = lengths((0.2, 1), (160, 4))
    assert [found.parts_at(step) for step in range(10)] == [8, 8, 2, 2, 2, 1, 1, 1, 1, 1]
    assert [lengths().parts_at(step) for step in (0, 9)] == [1, 1]


def real(batch):
    return [row[:n].tolist() for row, n in zip(batch.tokens, batch.valid, strict=True)]


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_a_cut_batch_holds_the_same_tokens_in_shorter_rows(parts):
    mine = mixture()
    for first in range(0, 40, 4):
        whole = mine.read(first, 4)
        short = cut(whole, parts)
        assert short.tokens.shape == (4 * parts, 8 // parts)
        assert short.tokens.size == whole.tokens.size
        assert [*chain(*real(short))] == [*chain(*real(whole))]


def test_a_change_of_length_neither_loses_a_token_nor_reads_one_twice():
    """Each source's first epoch, read under a plan of three lengths."""
    mine, plan = mixture(), lengths((0.3, 1), (0.6, 2))
    seen = {"web": [], "code": []}
    for step in range(10):
        batch = cut(mine.read(4 * step, 4), plan.parts_at(step))
        assert batch.tokens.size == 32
        for tokens, source, epoch in zip(real(batch), batch.place.source, batch.place.epoch, strict=True):
            if epoch == 0:
                seen[mine.order.names[source]] += tokens
    assert sorted(seen["web"]) == list(range(77))
    assert sorted(seen["code"]) == list(range(43))


@pytest.mark.parametrize("parts", [2, 4])
def test_a_part_is_the_row_of_its_source_in_that_length(parts):
    batch, short = cut(mixture().read(0, 20), parts), mixture(8 // parts)
    for n in range(len(batch.tokens)):
        rows = short.rows[short.order.names[batch.place.source[n]]]
        if batch.valid[n] > 0:
            tokens, valid = rows.read(batch.place.row[n : n + 1])
            assert (tokens[0].tolist(), int(valid[0])) == (batch.tokens[n].tolist(), int(batch.valid[n]))
        else:  # cut from what fills a short row
            assert batch.place.row[n] >= rows.num_rows


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([(0.5, 3)], "row_tokens 3 does not divide the base's 8; allowed: 1, 2, 4, 8"),
        ([(0.5, 2), (0.5, 4)], "at least one step apart"),
        ([(0.01, 2)], "lengths.0: until 0.01 is step 0"),
    ],
)
def test_lengths_that_cannot_be_kept_are_refused(asked, message):
    with pytest.raises(ConfigError, match=message):
        lengths(*asked)


def test_a_batch_is_the_same_whatever_was_read_before_it():
    """Positions are located many at a time and remembered."""
    mine, asked = mixture(), [(0, 4), (4, 4), (2000, 100), (2040, 20), (4, 4), (90, 3000), (0, 1)]
    for first, count in asked:
        again, alone = mine.read(first, count), mixture().read(first, count)
        assert np.array_equal(again.tokens, alone.tokens)
        for a, b in zip(vars(again.place).values(), vars(alone.place).values(), strict=True):
            assert np.array_equal(a, b)
        again.place.row[:] = -1  # what a batch is used for is not remembered


def test_steps_between_two_points_are_counted_by_the_parts_of_their_rows():
    lengths = Lengths([Length(until=0.25, row_tokens=4), Length(until=0.5, row_tokens=8)], 16, 40, 128)
    assert lengths.between(0, 40) == {4: 10, 2: 10, 1: 20}
    assert lengths.between(5, 12) == {4: 5, 2: 2}
    assert lengths.between(30, 30) == {}
    for step in range(40):
        assert lengths.between(step, step + 1) == {lengths.parts_at(step): 1}
