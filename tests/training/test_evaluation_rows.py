"""How many held-out rows are read at once: by their tokens and, where all logits are held, by these."""

import pytest

from ratoon.training import run as module
from ratoon.training.reading import EVALUATION_ROWS, evaluation_rows
from ratoon.training.run import Run


@pytest.mark.parametrize(
    ("row_tokens", "words", "rows"),
    [
        (128, None, 64),
        (2048, None, 64),  # as ever, up to here
        (8192, None, 16),
        (131072, None, 1),
        (10**6, None, 1),
        (2048, 2**17, 1),  # all logits of one row are 1 GiB
        (128, 2**15, 64),
        (512, 2**15, 16),
    ],
)
def test_long_rows_and_wide_heads_are_read_fewer_at_once(row_tokens, words, rows):
    assert evaluation_rows(row_tokens, words) == rows


def test_a_run_reads_its_held_out_rows_by_that(request_for, monkeypatch):
    assert {each.at_once for each in Run(request_for()).held_out.values()} == {EVALUATION_ROWS}
    monkeypatch.setattr("ratoon.training.reading.EVALUATION_LOGITS", 5 * 16 * 512)
    assert {each.at_once for each in Run(request_for()).held_out.values()} == {EVALUATION_ROWS}
    monkeypatch.setattr(module, "plain_head", lambda model: False)
    run = Run(request_for())
    assert {each.at_once for each in run.held_out.values()} == {5}
    assert {len(batch.tokens) for batch in run.held_out["domain"].batches()} == {5}
