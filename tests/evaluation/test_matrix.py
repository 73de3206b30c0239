"""Figures of continual learning, against the formulas written out and what must hold for any scores."""

import math

import numpy as np
import pytest

from ratoon.evaluation.matrix import NAMES, Slice, bits_per_byte, figures, resampled

TOY = np.array([[0.1, 0.1, 0.1], [0.5, 0.2, 0.1], [0.45, 0.6, 0.25], [0.4, 0.55, 0.7]])  # row 0: the base
OWN = np.array([1, 2, 3])  # one slice per refresh


def by_hand(scores):
    """The formulas of the literature, for one slice per refresh."""
    last = len(scores) - 1
    r = {(i, j): scores[i, j - 1] for i in range(last + 1) for j in range(1, last + 1)}
    earlier, all_rows = range(1, last), range(1, last + 1)
    return {
        "acc": sum(r[last, j] for j in all_rows) / last,
        "bwt": sum(r[last, j] - r[j, j] for j in earlier) / (last - 1),
        "fwt": sum(r[j - 1, j] - r[0, j] for j in range(2, last + 1)) / (last - 1),
        "forgetting": sum(max(r[i, j] for i in range(1, last)) - r[last, j] for j in earlier) / (last - 1),
        "plasticity": sum(r[j, j] - r[j - 1, j] for j in all_rows) / last,
        "diagonal": sum(r[j, j] for j in all_rows) / last,
        "lower": sum(r[i, j] for i in all_rows for j in range(1, i)) / (last * (last - 1) / 2),
        "upper": sum(r[i, j] for j in all_rows for i in range(1, j)) / (last * (last - 1) / 2),
        "step": sum(r[last, j] - r[last - 1, j] for j in all_rows) / last,
        "total": sum(r[last, j] - r[0, j] for j in all_rows) / last,
    }


def test_the_toy_gives_the_known_figures():
    found = figures(TOY, OWN)
    assert found["bwt"] == pytest.approx(-0.075)
    assert found["fwt"] == pytest.approx(0.125)
    assert found["forgetting"] == pytest.approx(0.075)
    assert set(found) == set(NAMES)


@pytest.mark.parametrize("seed", range(8))
def test_one_slice_per_refresh_gives_the_formulas_of_the_literature(seed):
    last = 2 + seed
    scores = np.random.default_rng(seed).normal(size=(last + 1, last))
    assert {k: float(v) for k, v in figures(scores, np.arange(1, last + 1)).items()} == pytest.approx(by_hand(scores))


def test_a_frozen_model_neither_forgets_nor_learns():
    found = figures(np.tile([0.3, 0.9, 0.5], (4, 1)), OWN)
    assert found["bwt"] == found["forgetting"] == found["plasticity"] == found["step"] == found["total"] == 0


@pytest.mark.parametrize("seed", range(30))
def test_forgetting_is_at_least_what_was_lost_since_learning(seed):
    rng = np.random.default_rng(seed)
    last, slices = int(rng.integers(2, 6)), int(rng.integers(2, 9))
    born = rng.integers(1, last + 1, slices)
    found = figures(rng.normal(size=(last + 1, slices)), born)
    if (born < last).any():
        assert found["forgetting"] >= -found["bwt"] - 1e-12


def test_forgetting_equals_the_loss_where_every_slice_was_best_when_it_was_new():
    found = figures(TOY, OWN)
    assert found["forgetting"] == pytest.approx(-found["bwt"])


def test_after_one_refresh_what_needs_two_is_undefined_and_not_zero():
    found = figures(TOY[:2, :2], np.array([1, 1]))
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == {"bwt", "fwt", "forgetting", "lower", "upper"}


def test_a_base_alone_has_no_figures():
    with pytest.raises(ValueError, match="rows 1 to 0 are refreshes"):
        figures(TOY[:1], OWN)


def test_adding_a_constant_to_all_scores_moves_no_difference():
    moved = figures(TOY + 7, OWN)
    for name in ("bwt", "fwt", "forgetting", "plasticity", "step", "total"):
        assert moved[name] == pytest.approx(figures(TOY, OWN)[name])


def test_what_was_not_measured_is_left_out_of_means_and_of_the_best():
    scores = TOY.copy()
    scores[1, 2] = np.nan  # a model that is gone was not asked about later text
    found = figures(scores, OWN)
    assert found["upper"] == pytest.approx((0.2 + 0.25) / 2)
    assert found["forgetting"] == pytest.approx(0.075)


def test_bits_per_byte_are_a_ratio_of_sums_and_draws_pair_the_models():
    rng = np.random.default_rng(3)
    hard = rng.uniform(1, 5, 50)
    bytes_D = rng.uniform(100, 1000, 50)
    bits = np.stack([hard * bytes_D, (hard - 0.1) * bytes_D])
    slices = [Slice(bits, bytes_D)]
    assert bits_per_byte(slices)[0, 0] == pytest.approx((hard * bytes_D).sum() / bytes_D.sum())
    drawn = resampled(slices, 200, 0)
    assert drawn.shape == (200, 2, 1)
    assert np.allclose(drawn[:, 1] - drawn[:, 0], -0.1)
    assert drawn[:, 0].std() > 0.05


def test_a_figure_of_many_draws_is_that_of_each():
    drawn = np.random.default_rng(0).normal(size=(5, 4, 3))
    together = figures(drawn, OWN)
    for k in range(5):
        assert {n: float(v[k]) for n, v in together.items()} == pytest.approx(
            {n: float(v) for n, v in figures(drawn[k], OWN).items()}
        )
