"""Replay: the general share takes the place of new text, and nothing else changes."""

import numpy as np
import pytest

from ratoon.training.run import Run


def read(request, steps=20):
    """Rows of each source in the order in which they are read."""
    run = Run(request)
    found = {name: [] for name in run.mixture.order.names}
    for step in range(steps):
        batch = run.batch_at(step)
        assert len(batch.tokens) == request.recipe.rows_per_step
        for source, row in zip(batch.place.source, batch.tokens, strict=True):
            found[run.mixture.order.names[source]].append(row)
    return found


def test_another_replay_share_reads_the_same_new_text_up_to_the_order_within_a_block(request_for):
    little, much = (read(request_for(share=share)) for share in (0.9, 0.4))
    for found, domain in ((little, 144), (much, 64)):  # of the 160 rows that both runs read
        assert {name: len(rows) for name, rows in found.items()} == {"domain": domain, "general": 160 - domain}
    first = {"domain": 8 * 9, "general": 3 * 6}  # rows of the fewest blocks that hold all of the other run's
    for more, fewer, name in ((little, much, "domain"), (much, little, "general")):
        wanted = {row.tobytes() for row in fewer[name]}
        assert len(wanted) == len(fewer[name])
        assert wanted <= {row.tobytes() for row in more[name][: first[name]]}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_every_block_replays_its_share_to_the_row(share, request_for):
    run = Run(request_for(share=share))
    source = run.mixture.order.locate(np.arange(200)).source.reshape(-1, run.request.recipe.block_rows)
    general = (source == run.mixture.order.names.index("general")).sum(1)
    assert (general == round((1 - share) * run.request.recipe.block_rows)).all()
