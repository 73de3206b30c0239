"""The parent's losses, which ceilings are counted from, are the mean of the same texts as its runs'."""

import pytest
from planted_runs import observation

from ratoon.config import ConfigError
from ratoon.laws.tables.nats import refuse_parent_unit
from ratoon.laws.tables.parents import parent_losses, starts

LOSSES = {"prose": 3.4, "wiki": 2.8}


def start(evaluated="prose", loss=3.4, params=1e8, run="start"):
    return observation("general", params, 0, 0.5, loss, evaluated=evaluated, run=run, finished=False)


def runs(*evaluated):
    return [observation("general", 1e8, 1e8, share, LOSSES[x], evaluated=x) for share in (0.1, 0.9) for x in evaluated]


def general(rows, params=100_000_000):
    return parent_losses(rows, params, ["general"])["general"]


def test_a_parent_measured_on_some_of_its_runs_texts_is_refused_by_the_missing_ones_name():
    rows = [start(), *runs("prose", "wiki")]
    with pytest.raises(ConfigError, match=r"no general loss on wiki, .* mean over prose, wiki.*--parent-general"):
        general(rows)
    assert starts(rows)["general"] == {}
    refuse_parent_unit(rows, 1e8, "general", 3.1)  # what is told is not held against half of the texts
    assert general([*rows, start("wiki", 2.8)]) == pytest.approx(3.1)


def test_a_text_that_only_the_parent_was_measured_on_is_no_part_of_the_mean():
    assert general([start(), start("wiki", 2.8), *runs("prose")]) == 3.4


def test_several_starts_of_one_size_are_averaged_by_text_in_any_order():
    rows = [start(loss=3.4, run="a"), start(loss=3.5, run="b"), start("wiki", 2.8), *runs("prose", "wiki")]
    assert general(rows) == pytest.approx((3.45 + 2.8) / 2)
    assert general(rows[::-1]) == pytest.approx(general(rows), rel=1e-15)
    assert starts(rows)["general"][1e8] == general(rows)
    assert general([start(loss=3.46961, run=str(k)) for k in range(6)]) == 3.46961


def test_the_parent_is_the_nearest_of_the_targets_size():
    rows = [start(loss=3.4, params=1e8), start(loss=3.3, params=1.01e8), *runs("prose")]
    assert general(rows, 100_100_000) == 3.4
    assert general(rows, 101_100_000) == 3.3
    with pytest.raises(ConfigError, match=r"no general loss of the parent \(120,000,000 parameters at 0 tokens\)"):
        general(rows, 120_000_000)
    with pytest.raises(ConfigError, match="it is in bits"):
        refuse_parent_unit(rows, 100_100_000, "general", 3.4 * 1.442695)
