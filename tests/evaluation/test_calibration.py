"""Calibration: what is known of models made to be calibrated, too sure, or certain."""

import math

import numpy as np
import pytest

from ratoon.evaluation.calibration import calibrated


def items(count, sharpen=1.0, seed=0):
    """Answers drawn from the softmax of log-likelihoods, which are then told sharper or flatter than they are."""
    draw = np.random.default_rng(seed)
    logliks = draw.normal(0, 1.5, (count, 4))
    chances = np.exp(logliks) / np.exp(logliks).sum(1, keepdims=True)
    gold = [int(draw.choice(4, p=p)) for p in chances]
    return (sharpen * logliks).tolist(), gold


def test_a_model_that_answers_as_sure_as_it_is_has_the_error_of_chance():
    found = calibrated(*items(4000))
    assert found.ece == pytest.approx(found.by_chance, abs=0.01)
    assert found.ece < 0.03
    assert found.overconfidence == pytest.approx(0, abs=0.02)


def test_a_model_that_is_too_sure_is_found_out():
    found = calibrated(*items(4000, sharpen=4))
    assert found.ece > 0.15
    assert found.overconfidence == pytest.approx(found.ece, abs=0.02)
    assert calibrated(*items(4000, sharpen=0.2)).overconfidence < -0.1


def test_the_error_equals_one_counted_by_hand():
    certain, even = [[0.0, -math.inf], [0.0, -1000.0]], [[math.log(0.65), math.log(0.35)]] * 2
    found = calibrated([*certain, *even], [0, 1, 0, 0])
    assert found.ece == pytest.approx(2 / 4 * abs(0.5 - 1) + 2 / 4 * abs(1 - 0.65))
    assert [(it.low, it.items, it.accuracy) for it in found.bins] == [(0.6, 2, 1.0), (0.9, 2, 0.5)]


def test_few_items_say_what_even_a_calibrated_model_would_miss():
    few, many = calibrated(*items(20)), calibrated(*items(4000))
    assert few.by_chance > 5 * many.by_chance


def test_a_constant_added_to_all_choices_of_an_item_changes_nothing():
    logliks, gold = items(50)
    shifted = [[value - 300.0 for value in each] for each in logliks]
    assert calibrated(shifted, gold).ece == pytest.approx(calibrated(logliks, gold).ece)
