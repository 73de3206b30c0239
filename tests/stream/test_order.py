from collections import Counter

import numpy as np
import pytest

from ratoon.config import ConfigError
from ratoon.stream.order import Order, apportion, key, permute


def order(seed=7, turn=None, **limits):
    return Order(
        {"web": 0.5, "code": 0.29, "law": 0.21},
        {"web": 1000, "code": 37, "law": 400},
        block_rows=100,
        seed=seed,
        turn=turn,
        limits=limits,
    )


GOLDEN = ["web:624", "law:149", "web:930", "web:175", "code:8", "web:927"]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 65, 1000, 4097, 100_003])
def test_a_permutation_reaches_every_place_once(n):
    assert np.array_equal(np.sort(permute(np.arange(n), n, key("any", n))), np.arange(n))


def test_a_permutation_looks_random():
    n = 100_000
    image = permute(np.arange(n), n, key("look"))
    assert abs(np.corrcoef(np.arange(n), image)[0, 1]) < 0.01
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.01


def test_every_block_holds_the_shares_exactly():
    o = order()
    source = o.locate(np.arange(5000)).source
    for start in range(0, 5000, 100):
        counts = Counter(o.names[s] for s in source[start : start + 100])
        assert counts == {"web": 50, "code": 29, "law": 21}


def test_every_row_is_read_once_per_epoch():
    o = order()
    place = o.locate(np.arange(20_000))
    for number in range(3):
        here = place.source == number
        for epoch in range(place.epoch[here].max()):  # the last epoch may be unfinished
            rows = place.row[here & (place.epoch == epoch)]
            assert np.array_equal(np.sort(rows), np.arange(o.rows[number]))


def test_epochs_differ_in_order():
    o = order()
    place = o.locate(np.arange(2000))
    here = place.source == o.names.index("code")
    first, second = (place.row[here & (place.epoch == e)] for e in (0, 1))
    assert not np.array_equal(first, second)


def test_any_start_any_worker_count_any_grouping_reads_the_same_rows():
    whole = order().locate(np.arange(12_345, 12_345 + 240))
    for workers in (1, 2, 3, 8):
        parts = [order().locate(12_345 + np.arange(w, 240, workers)) for w in range(workers)]
        again = np.empty(240, np.int64)
        for w, part in enumerate(parts):
            again[w::workers] = part.row
        assert np.array_equal(again, whole.row)


def test_a_limit_uses_a_fixed_nested_subset():
    place = order(web=40).locate(np.arange(3000))
    small = set(place.row[place.source == 2])
    place = order(web=80).locate(np.arange(3000))
    large = set(place.row[place.source == 2])
    assert len(small) == 40
    assert len(large) == 80
    assert small < large


def rows_of(place, source):
    return place.row[place.source == source]


def test_another_turn_reads_other_rows_first_by_the_same_shares_and_each_once_an_epoch():
    first, second, third = (order(turn=turn).locate(np.arange(1000)) for turn in (None, 1, 2))
    for one, other in ((first, second), (first, third), (second, third)):
        again = set(rows_of(one, 2)) & set(rows_of(other, 2))
        assert 200 < len(again) < 300  # two draws of 500 from 1,000 share 250, give or take 8
    assert Counter(second.source.tolist()) == Counter(first.source.tolist())
    whole = order(turn=1).locate(np.arange(2000))
    assert np.array_equal(np.sort(rows_of(whole, 2)), np.arange(1000))
    used = (set(rows_of(order(turn=turn, web=40).locate(np.arange(300)), 2)) for turn in (None, 1))
    assert len(set.union(*used)) == 40  # what may be read is no matter of turns


def test_the_order_of_a_seed_never_changes():
    # Golden: a checkpoint written today must find the same rows in any later release.
    place = order().locate(np.array([0, 1, 2, 99, 100, 10**12]))
    assert [f"{order().names[s]}:{r}" for s, r in zip(place.source, place.row, strict=True)] == GOLDEN


def test_far_positions_cost_no_more_than_near_ones():
    far = order().locate(np.arange(10**15, 10**15 + 100))
    assert Counter(far.source.tolist()) == {2: 50, 0: 29, 1: 21}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.5, "b": 0.4}, "shares sum to 0.9000, not 1"),
        ({"a": 1.5, "b": -0.5}, r"shares must lie in \(0, 1\]"),
        ({"a": 0.999, "b": 0.001}, "gives b no row; raise block_rows"),
    ],
)
def test_shares_that_cannot_be_kept_are_refused(shares, message):
    with pytest.raises(ConfigError, match=message):
        apportion(shares, 100)


def test_a_source_without_rows_is_refused():
    with pytest.raises(ConfigError, match="no rows to read in a"):
        Order({"a": 1.0}, {"a": 0}, block_rows=10, seed=0)
