"""Rows in order of a score: whichever the order, each row once per epoch, and every place found at once."""

import numpy as np
import pytest

from ratoon.config import Curriculum
from ratoon.stream.course import LEVELS, Course, Paced, rank, walk_of
from ratoon.stream.order import Order

ORDERS = {
    "vanilla": {},
    "interleaved": {"passes": 3},
    "warmup": {"share": 0.5},
    "linear": {"order": "paced", "pace": "linear", "start": 0.2, "full": 0.7},
    "sqrt": {"order": "paced", "pace": "sqrt"},
}


def asked(name):
    return Curriculum(score="s", **{"order": name, **ORDERS[name]})


def walk(name, used, finished=2, head=None):
    return walk_of(asked(name), used, finished, used // 3 if head is None else head, 7, "web")


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("used", [1, 2, 3, 5, 63, 64, 65, 700, 10_007])
def test_every_rank_comes_once_in_every_epoch(name, used):
    for epoch in (0, 1):
        ranks = walk(name, used)(epoch, np.arange(used))
        if ranks is not None:
            assert np.array_equal(np.sort(ranks), np.arange(used))


@pytest.mark.parametrize("name", ORDERS)
def test_a_place_is_found_without_those_before_it(name):
    one = walk(name, 500)
    whole = one(0, np.arange(500))
    asked_for = np.array([499, 3, 3, 250, 0])
    assert np.array_equal(one(0, asked_for), whole[asked_for])
    assert [int(one(0, np.array([n]))[0]) for n in range(0, 500, 37)] == whole[::37].tolist()


@pytest.mark.parametrize("name", ["vanilla", "interleaved", "warmup"])
def test_an_epoch_the_run_does_not_finish_is_left_in_uniform_order(name):
    assert walk(name, 100, finished=1, head=200)(0, np.arange(10)) is not None
    assert walk(name, 100, finished=1, head=200)(1, np.arange(10)) is None


def test_vanilla_is_sorted():
    assert np.array_equal(walk("vanilla", 50)(1, np.arange(50)), np.arange(50))


@pytest.mark.parametrize("used", [30, 31, 32])
def test_each_pass_is_sorted_and_goes_from_end_to_end(used):
    ranks = walk("interleaved", used)(0, np.arange(used))
    rises = np.split(ranks, np.flatnonzero(np.diff(ranks) < 0) + 1)
    assert len(rises) == 3
    assert all(part[0] < 3 and part[-1] >= used - 4 for part in rises)
    assert {len(part) for part in rises} <= {used // 3, used // 3 + 1}


def test_passes_differ_between_epochs():
    one = walk("interleaved", 300)
    assert not np.array_equal(one(0, np.arange(300)), one(1, np.arange(300)))


def test_a_warm_up_is_sorted_from_the_easiest_and_the_rest_is_not():
    ranks = walk("warmup", 1000, head=300)(0, np.arange(1000))
    assert np.array_equal(ranks[:300], np.arange(300))
    assert abs(np.corrcoef(np.arange(700), ranks[300:])[0, 1]) < 0.1


def test_a_warm_up_of_more_than_an_epoch_ends_in_the_next():
    one = walk("warmup", 100, head=130)
    assert np.array_equal(one(0, np.arange(100)), np.arange(100))
    assert np.array_equal(one(1, np.arange(100))[:30], np.arange(30))
    assert one(2, np.arange(100)) is None
    assert walk("warmup", 100, head=0)(0, np.arange(100)) is None


@pytest.mark.parametrize(("name", "linear"), [("linear", True), ("sqrt", False)])
def test_the_pool_grows_as_published_and_nothing_outside_it_is_read(name, linear):
    used, one = 20_000, walk(name, 20_000)
    start, full = (0.2, 0.7) if linear else (0.01, 0.5)
    ranks = one(0, np.arange(used))
    for level in range(LEVELS):
        t = level / LEVELS
        share = start + (1 - start) * t if linear else (start**2 + (1 - start**2) * t) ** 0.5
        begin, end = (round(full * used * n / LEVELS) for n in (level, level + 1))
        assert ranks[begin + 1 : end - 1].max() < max(np.ceil(share * used), end + 2)
    complete = ranks[round(full * used) + 1 :]
    assert complete.max() == used - 1
    # The pool is whole: no order any more, within four standard errors.
    assert abs(np.corrcoef(np.arange(len(complete)), complete)[0, 1]) < 4 / np.sqrt(len(complete))


def test_a_level_reads_evenly_what_is_unread_in_the_pool():
    one = Paced(20_000, True, 0.2, 0.7, 7, "web")
    seen = np.zeros(20_000, bool)
    for level in range(LEVELS):
        begin, end = int(one.ends[level - 1]) if level else 0, int(one.ends[level])
        ranks, pool = one(0, np.arange(begin, end)), int(one.pools[level])
        left = np.flatnonzero(~seen[:pool])
        # The mean rank of an even sample of what is left, within five standard errors.
        assert abs(ranks.mean() - left.mean()) < 5 * left.std() / np.sqrt(len(ranks)) + 1
        seen[ranks] = True


def test_a_pool_that_is_whole_is_the_uniform_order():
    paced = walk_of(Curriculum(score="s", order="paced", start=1), 100, 2, 0, 7, "web")
    assert paced(0, np.arange(100)) is None
    assert Curriculum(score="s", order="paced", start=1).uniform
    assert walk("sqrt", 100)(1, np.arange(100)) is None  # after the first epoch


def test_rows_are_ranked_by_score_ties_by_lot_and_those_without_one_last():
    scores = np.array([3.0, 1.0, np.nan, 1.0, 2.0, np.nan])
    pool = np.array([5, 3, 0, 1, 4, 2])
    assert rank(scores, pool, descending=False).tolist() == [3, 1, 4, 0, 5, 2]
    assert rank(scores, pool, descending=True).tolist() == [0, 4, 3, 1, 5, 2]


@pytest.mark.parametrize("name", ORDERS)
def test_in_a_mixture_every_row_in_use_is_read_once_per_epoch_and_sources_stay_in_their_slots(name):
    shares, rows, limits = {"code": 0.3, "web": 0.7}, {"code": 50, "web": 90}, {"web": 70}
    scores = np.random.default_rng(0).random(90)
    pool = Order(shares, rows, block_rows=10, seed=7, limits=limits).uniform(1, np.zeros(70, int), np.arange(70))
    ranked = rank(scores, pool, descending=False)
    courses = {"web": Course(ranked, walk(name, 70))}
    plain, ordered = (
        Order(shares, rows, block_rows=10, seed=7, limits=limits, courses=each).locate(np.arange(400))
        for each in (None, courses)
    )
    assert np.array_equal(plain.source, ordered.source)
    assert np.array_equal(plain.row[plain.source == 0], ordered.row[plain.source == 0])
    assert not np.array_equal(plain.row, ordered.row)
    for epoch in range(3):
        first, again = (each.row[(each.source == 1) & (each.epoch == epoch)] for each in (plain, ordered))
        assert sorted(first) == sorted(again)
        assert len(set(again)) == len(again) == 70


def test_rows_come_one_by_one_in_order_and_a_later_epoch_is_the_uniform_one():
    shares, rows = {"code": 0.3, "web": 0.7}, {"code": 70, "web": 70}
    course = Course(np.arange(70)[::-1], walk("vanilla", 70, finished=1))
    plain, ordered = (
        Order(shares, rows, block_rows=10, seed=7, courses=each).locate(np.arange(200))
        for each in (None, {"web": course})
    )
    web = ordered.row[ordered.source == 1]
    assert web[:70].tolist() == list(range(69, -1, -1))
    # Rows of a block come in the order of their lots where there is no course.
    for block in range(10, 20):
        here = slice(10 * block, 10 * block + 10)
        assert sorted(plain.row[here]) == sorted(ordered.row[here])


# An order of today must be the order of any later release: a checkpoint finds its rows by it.
GOLDEN = {
    "vanilla": [0, 1, 400, 998, 999],
    "interleaved": [0, 4, 198, 994, 998],
    "warmup": [0, 1, 730, 778, 763],
    "linear": [15, 152, 618, 270, 563],
    "sqrt": [0, 5, 24, 611, 495],
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_a_seed_never_changes(name):
    assert walk(name, 1000)(0, np.array([0, 1, 400, 998, 999])).tolist() == GOLDEN[name]


def test_a_source_of_many_rows_loses_none():
    one = Paced(3_000_000_019, False, 0.01, 0.5, 7, "web")
    assert one.taken.sum() == 3_000_000_019
    assert np.array_equal(one.taken.sum(axis=1), np.diff(one.ends, prepend=0))
    far = one(0, np.array([0, 2_999_999_999]))
    assert far.min() >= 0
    assert far.max() < 3_000_000_019


def test_after_the_ranked_rows_of_an_epoch_come_those_of_it_that_are_left():
    shares, rows = {"web": 1.0}, {"web": 100}
    plain = Order(shares, rows, block_rows=10, seed=7)
    pool = plain.uniform(0, np.zeros(40, int), np.arange(40))
    course = Course(rank(np.random.default_rng(0).random(100), pool, descending=False), walk("vanilla", 40, finished=1))
    ordered = Order(shares, rows, block_rows=10, seed=7, courses={"web": course}).locate(np.arange(100)).row
    assert sorted(ordered[:40]) == sorted(pool)
    assert sorted(ordered) == list(range(100))
