"""Errors, tests and intervals against formulas, other libraries and simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from ratoon.evaluation import statistics
from ratoon.records import Estimate


def test_equal_documents_give_the_error_of_a_mean_but_for_leaving_each_out():
    change = np.random.default_rng(1).normal(0.1, 1, 40)
    found = statistics.ratio(change, np.ones(40))
    assert found.value == pytest.approx(change.mean())
    # sum of squares / (1 - 1/n)^2 / n^2 against sum of squares / (n (n - 1))
    assert found.error == pytest.approx(change.std(ddof=1) / math.sqrt(40) * math.sqrt(40 / 39))
    assert found.freedom == pytest.approx(39)


def test_the_error_is_that_of_the_jackknife():
    draw = np.random.default_rng(2)
    base = draw.lognormal(6, 0.7, 30)
    change = base * draw.normal(0.02, 0.05, 30)
    left_out = [np.delete(change, k).sum() / np.delete(base, k).sum() for k in range(30)]
    value = change.sum() / base.sum()
    assert statistics.ratio(change, base).error == pytest.approx(math.sqrt(sum((x - value) ** 2 for x in left_out)))


def test_items_all_repeated_change_nothing():
    draw = np.random.default_rng(3)
    change, base = draw.normal(0, 1, 20), draw.lognormal(0, 0.5, 20)
    once, often = statistics.ratio(change, base), statistics.ratio(7 * change, 7 * base)
    assert often.model_dump() == pytest.approx(once.model_dump())


def test_an_interval_holds_every_margin_that_neither_side_rules_out():
    draw = np.random.default_rng(4)
    found = statistics.ratio(draw.exponential(1, 25) - 1.2, draw.lognormal(0, 0.5, 25))
    span = statistics.interval(found, 0.9)
    assert statistics.above(found, span.low) == pytest.approx(0.05)
    assert statistics.below(found, span.high) == pytest.approx(0.05)
    assert statistics.below(found, span.low) == pytest.approx(0.95)


def test_what_leans_to_one_side_has_a_longer_interval_there():
    skewed = np.random.default_rng(5).exponential(1, 60)
    found = statistics.interval(statistics.ratio(skewed, np.ones(60)), 0.95)
    assert found.high - found.value > 1.1 * (found.value - found.low)
    mirrored = statistics.interval(statistics.ratio(-skewed, np.ones(60)), 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("documents", [50, 300])
def test_ninety_five_percent_intervals_hold_the_truth_in_93_to_97(documents, clustered):
    draw, held, trials = np.random.default_rng(documents + clustered), 0, 1500
    for _ in range(trials):
        items = np.minimum(draw.geometric(0.3, documents), 15) if clustered else np.ones(documents)
        base = np.minimum(items * draw.lognormal(7.3, 1.2, documents), 4096.0 * items) * draw.gamma(20, 0.1, documents)
        change = base * (draw.normal(-0.01, 0.02, documents) + draw.normal(0, 0.02, documents) / np.sqrt(items))
        found = statistics.interval(statistics.ratio(change, base), 0.95)
        held += found.low <= -0.01 <= found.high
    assert 0.93 <= held / trials <= 0.97


def texts_alike(draw, size):
    base = draw.lognormal(6, 0.5, size)
    return base * draw.normal(0, 0.03, size), base


def texts_unequal_and_skewed(draw, size, side=1):
    base = np.minimum(draw.lognormal(7.3, 1.2, size), 4096.0) * draw.gamma(20, 0.1, size)
    return side * base * 0.04 * (draw.lognormal(0, 0.6, size) - math.exp(0.18)), base


def texts_of_several_items(draw, size):
    items = np.minimum(draw.geometric(0.3, size), 15)
    base = items * draw.lognormal(6, 0.3, size) * draw.gamma(20, 0.1, size)
    return base * (draw.normal(0, 0.02, size) + draw.normal(0, 0.02, size) / np.sqrt(items)), base


@pytest.mark.parametrize("documents", [50, 300])
@pytest.mark.parametrize("scene", [texts_alike, texts_unequal_and_skewed, texts_of_several_items])
def test_power_at_the_printed_detectable_change_is_80_percent_and_little_more(scene, documents):
    """Shown on another sample than the one that printed it, as in the next refresh."""
    draw, level, trials = np.random.default_rng(documents), 0.025 / 4, 1200
    found = [statistics.ratio(*scene(draw, documents)) for _ in range(trials)]
    shown = 0
    for first, second in itertools.pairwise([*found, found[0]]):
        printed = statistics.detectable(first, level, lower_is_better=True)
        shown += statistics.below(second, printed) <= level  # as if the truth were lower by so much
    assert 0.78 <= shown / trials <= 0.95


def test_a_change_for_the_better_upward_needs_as_much_as_its_mirror_image_downward():
    change, base = texts_unequal_and_skewed(np.random.default_rng(7), 60)
    down = statistics.detectable(statistics.ratio(change, base), 0.01, lower_is_better=True)
    assert statistics.detectable(statistics.ratio(-change, base), 0.01, lower_is_better=False) == pytest.approx(down)
    against = statistics.detectable(statistics.ratio(-change, base), 0.01, lower_is_better=True)
    assert against < 0.7 * down  # a few texts that lose much might be missing from the sample: then more is asked


def test_the_error_of_the_lean_is_that_of_samples_drawn_again():
    draw, size = np.random.default_rng(8), 400
    found = [statistics.ratio(draw.uniform(-1, 1, size) * base, base) for base in draw.uniform(1, 3, (600, size))]
    assert np.median([one.lean_error for one in found]) == pytest.approx(np.std([one.lean for one in found]), rel=0.15)
    seen = np.var([one.error**2 for one in found]) / np.mean([one.error**2 for one in found]) ** 2
    assert np.median([one.unsure for one in found]) == pytest.approx(seen, rel=0.3)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (5, 5), (12, 3), (40, 70), (0, 9)])
def test_one_item_per_document_is_the_exact_mcnemar_test(better, worse):
    change = np.array([1.0] * better + [-1.0] * worse + [0.0] * 30)
    expected = scipy.stats.binomtest(better, better + worse, 0.5).pvalue if better + worse else 1.0
    assert statistics.swapped(change) == pytest.approx(expected)


def test_several_items_per_document_are_every_way_to_swap_the_arms_of_documents():
    change = np.array([3.0, -1, 2, 2, 0, -1, 4])
    sums = [abs(np.dot(signs, change)) for signs in itertools.product([1, -1], repeat=7)]
    assert statistics.swapped(change) == pytest.approx(np.mean(np.array(sums) >= abs(change.sum())))


def test_very_many_answers_give_the_p_of_fewer_exactly_worked_out():
    change = np.repeat([1.0, -1.0], [10_050, 9_900])
    exact = statistics.swapped(change)
    assert len(change) <= statistics.EXACT_UP_TO
    much = np.concatenate([change, np.repeat([1.0, -1.0], 100)])
    assert statistics.swapped(much) == pytest.approx(exact, abs=0.01)


def test_models_that_agree_on_all_items_are_not_sure_to_agree_on_others():
    few, many = (statistics.interval(statistics.share(np.zeros(n), np.ones(n)), 0.95) for n in (50, 500))
    assert 0.03 < few.high < 0.1
    assert many.high == pytest.approx(few.high / 10, rel=0.1)


def test_holm_is_the_step_down_rule():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert statistics.holm([]) == ()
    assert statistics.holm([0.7, 0.8]) == (1.0, 1.0)


@pytest.mark.parametrize(("count", "items"), [(0, 10), (3, 10), (10, 10), (17, 400)])
def test_shares_have_the_exact_interval(count, items):
    expected = scipy.stats.binomtest(count, items).proportion_ci(0.95, method="exact")
    found = statistics.clopper_pearson(count, items, 0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_two_arms_alike_to_the_last_digit_are_neither_below_nor_above():
    found = statistics.ratio(np.zeros(9), np.arange(1.0, 10))
    assert found == Estimate(value=0, error=0, freedom=8)
    assert (statistics.below(found, 0), statistics.above(found, 0), statistics.unchanged(found)) == (1, 1, 1)
    assert (statistics.below(found, 0.01), statistics.above(found, 0.01)) == (0, 1)
