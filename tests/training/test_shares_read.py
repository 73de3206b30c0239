"""The share that is recorded is the one that blocks hold; one that they can hold is recorded as it was asked for."""

from collections import Counter

import pytest

from ratoon.laws.design.next_run import options, shares
from ratoon.training.reading import share_read
from ratoon.training.run import Run
from ratoon.training.sweep import Plan


@pytest.mark.parametrize(("asked", "block_rows", "recorded"), [(0.304, 100, 0.3), (0.304, 125, 0.304), (0.07, 10, 0.1)])
def test_the_recorded_share_is_the_share_that_is_read(asked, block_rows, recorded, request_for):
    run = Run(request_for(share=asked, block_rows=block_rows, tokens=125 * 8 * 16))
    found = run.evaluate(run="", group="", finished=False)
    assert {o.share for o in found} == {recorded}
    places = run.mixture.read(0, 8 * block_rows).place
    names = Counter(run.mixture.order.names[n] for n in places.source)
    assert names["domain"] / (8 * block_rows) == pytest.approx(recorded)


def test_a_share_that_blocks_hold_is_recorded_to_the_bit(request_for):
    for percent in range(1, 100):
        request = request_for(share=percent / 100, block_rows=100)
        assert share_read(request) == request.domain_share


def test_what_a_phase_reads_is_no_part_of_the_share_that_a_law_knows(request_for):
    phases = {"phases": [{"until": 0.5, "share": 0.0}]}
    assert share_read(request_for(share=0.3, mixture=phases)) == 0.3


def test_a_share_that_was_recorded_as_another_is_not_proposed_again():
    assert Plan.name_of("tiny", 0.35) == "tiny-r035"
    made = {(1000.0, share) for share in shares()[1:]}
    assert {one.share for one in options([1000.0], (1.0,), made, lambda *_: 1.0)} == {shares()[0]}
