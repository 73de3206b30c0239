"""Runs of training text in what a model wrote: all of them, and nothing else."""

import numpy as np
import pytest

from ratoon.evaluation import copying
from ratoon.evaluation.copying import RUN, copied


class Text:
    """Packed rows in memory."""

    def __init__(self, tokens, row_tokens=16):
        self.tokens, self.row_tokens = np.asarray(tokens, np.int64), row_tokens
        self.num_tokens = len(self.tokens)
        self.num_rows = -(-len(self.tokens) // row_tokens)

    def read(self, indices):
        rows = np.zeros((len(indices), self.row_tokens), np.int64)
        for place, index in enumerate(indices):
            found = self.tokens[index * self.row_tokens : (index + 1) * self.row_tokens]
            rows[place, : len(found)] = found
        return rows, None


@pytest.fixture
def tokens():
    return np.random.default_rng(0).integers(1, 50, 5000)


@pytest.mark.parametrize("block", [16, 64, 1 << 20])
def test_copied_text_is_found_wherever_it_lies_and_however_the_rows_are_cut(tokens, block, monkeypatch):
    monkeypatch.setattr(copying, "BLOCK_TOKENS", block)
    draw = np.random.default_rng(1)
    outputs = [tokens[at : at + 40].tolist() for at in (0, 7, 1234, 4960)]
    outputs.append([*tokens[100:120].tolist(), *draw.integers(50, 99, 12).tolist()])
    outputs.append(draw.integers(1, 50, 60).tolist())
    assert copied(outputs, [Text(tokens)], 10**9) == [1, 1, 1, 1, 8 / 20, 0]


def test_every_share_equals_one_counted_without_hashes(tokens):
    few = tokens % 2 + 1  # two words: many runs are there by chance
    outputs = [np.random.default_rng(n).integers(1, 3, 50).tolist() for n in range(20)]
    there = {tuple(few[i : i + RUN]) for i in range(len(few) - RUN + 1)}
    expected = [np.mean([tuple(o[i : i + RUN]) in there for i in range(50 - RUN + 1)]) for o in outputs]
    assert 0.2 < np.mean(expected) < 0.9
    assert copied(outputs, [Text(few)], 10**9) == pytest.approx(expected)


def test_an_output_shorter_than_a_run_has_no_share(tokens):
    assert copied([tokens[:12].tolist(), []], [Text(tokens)], 10**9) == [None, None]
    assert copied([], [Text(tokens)], 10**9) == []
    assert copied([tokens[:12].tolist(), tokens[:13].tolist()], [Text(tokens)], 10**9) == [None, 1.0]


def test_only_the_beginning_is_searched_where_so_much_is_asked_for(tokens):
    early, late = tokens[50:90].tolist(), tokens[4000:4040].tolist()
    assert copied([early, late], [Text(tokens)], 1000) == [1.0, 0.0]
    assert copied([early, late], [Text(tokens[:100]), Text(tokens[3900:])], 10**9) == [1.0, 1.0]
