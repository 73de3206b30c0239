"""A former sweep's law: contradicted or carried on, on planted laws."""

import re

import numpy as np
import pytest

from ratoon.config import ChooseConfig, ConfigError
from ratoon.laws.decision.choose import choose
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.design.belief import believe_weakly
from ratoon.laws.design.drift import compare, examine, recalibrated
from ratoon.laws.design.rows import Rows
from ratoon.laws.tables.table import tabulate
from ratoon.records import Observation

SIZE, TARGET, RIGHT = 160_000, 1_200_000, 0.6
RATIOS, HORIZONS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.9), (50_000, 100_000, 200_000, 400_000)
NOISE = 0.002


def same(role, D, own):
    if role == "general":
        return 3.3 + 0.05 * own * (D / 1e5) ** -0.4 + 0.16 / (own + 0.15) ** 0.5
    return 2.0 + 0.35 * own**0.2 * (D / 1e5) ** -0.3 + 1.3 / (own + 0.05) ** 0.2


def bent(role, D, own):
    """General loss bends with the share in another way: it hardly moves until little general text is left."""
    return same(role, D, own) if role == "domain" else 3.4 + 0.05 * own * (D / 1e5) ** -0.4 + 0.03 / (own + 0.15)


def sweep(truth, seed, ratios=RATIOS, level=0.0, scale=1.0, size=SIZE):
    random, found = np.random.default_rng(seed), []
    for share in ratios:
        for role in ("general", "domain"):
            luck = random.normal(0, NOISE)
            for tokens in HORIZONS:
                exact = truth(role, tokens, share if role == "domain" else 1 - share)
                loss = level + 3.3 + scale * (exact - 3.3) + luck + random.normal(0, NOISE)
                found.append(
                    Observation(
                        run=f"{share}-{tokens}", group=f"{share}", commit=None, config="", model="m",
                        params_non_embedding=size, tokens=tokens, share=share, learning_rate=1e-3, step=1,
                        finished=True, evaluated=role, role=role, loss_nats=loss, bits_per_byte=None,
                    )
                )  # fmt: skip
    return found


def compared(former, new):
    return compare(former, new, params=SIZE, tokens=TARGET)


def test_an_unchanged_law_is_called_changed_about_as_often_as_was_allowed():
    """A small simulation of 24: none to four alarms where one is due. The level and the scale have moved."""
    p_values = [
        compared(sweep(same, [seed, 1]), sweep(same, [seed, 2], (0.1, 0.4, 0.8), level=0.1, scale=0.9)).p_value
        for seed in range(24)
    ]
    assert sum(p < 0.05 for p in p_values) <= 4
    assert 0.25 < np.mean(np.array(p_values) < 0.5) < 0.75


def test_a_level_and_a_scale_that_moved_are_measured_and_said():
    found = compared(sweep(same, [0, 1]), sweep(same, [0, 2], level=0.1, scale=0.9))
    assert not found.contradicted
    assert found.checks["domain"].scale == pytest.approx(0.9, abs=0.02)
    exact = np.mean([0.1 - 0.1 * (same("domain", D, own) - 3.3) for D in HORIZONS for own in RATIOS])
    assert found.checks["domain"].level == pytest.approx(exact, abs=0.01)
    assert found.statement.startswith("the new runs agree with the former refresh's law")
    assert re.search(r"domain loss moved by \+0.0\d+ nats, its slopes by -(9|10|11)%", found.statement)


def test_a_changed_law_is_found_out_and_its_prior_dropped():
    drifts = [compared(sweep(same, [seed, 1]), sweep(bent, [seed, 2], (0.25, 0.55, 0.9))) for seed in range(5)]
    assert all(one.contradicted and one.prior == {} and one.weight == 0 for one in drifts)
    assert "contradict the former refresh's law of general loss" in drifts[0].statement
    assert recalibrated(sweep(same, [0, 1]), drifts[0], SIZE) == []


def test_with_an_unchanged_law_a_third_of_the_runs_is_as_sure_as_all():
    ratios = []
    ceiling = 0.1 + same("general", TARGET, 1 - RIGHT)
    stakes = Stakes(ceiling / 1.02, 4.0, ChooseConfig())
    for seed in range(4):
        full = sweep(same, [seed, 2], level=0.1)
        third = [o for o in full if o.share in (0.25, 0.7)]
        drift = compared(sweep(same, [seed, 1]), third)
        beliefs = []
        for observations, prior in ((full, {}), (third, drift.prior)):
            rows = {role: Rows.of(table) for role, table in tabulate(observations)[0].items()}
            rows = {role: mine.and_former(prior[role]) if prior else mine for role, mine in rows.items()}
            beliefs.append(believe_weakly(rows, params=SIZE, tokens=TARGET, stakes=stakes))
        assert beliefs[1].median == pytest.approx(RIGHT, abs=0.05)
        ratios.append(beliefs[1].width / beliefs[0].width)
    assert np.median(ratios) < 1.2


def test_recalibrated_runs_can_be_read_as_if_run_now():
    former, full = sweep(same, [0, 1]), sweep(same, [0, 2], level=0.1)
    third = [o for o in full if o.share in (0.1, 0.4, 0.7)]
    prior = recalibrated(former, compared(former, third), SIZE)
    assert len(prior) == len(former)
    ceiling = 0.1 + same("general", TARGET, 1 - RIGHT)
    choice = choose(
        [*third, *prior], params_non_embedding=SIZE, tokens=TARGET, parent_general=ceiling / 1.02, parent_domain=4.0,
        config=ChooseConfig(bootstrap=60),
    )  # fmt: skip
    assert choice.interval.value == pytest.approx(RIGHT, abs=0.06)


def test_without_former_runs_of_this_size_nothing_is_said():
    assert compared([], sweep(same, [0, 2])) is None
    former, new = sweep(same, [0, 1], size=40_000), sweep(same, [0, 2])
    assert compared(former, new) is None
    with pytest.raises(ConfigError, match="no general loss of a model of 160,000 parameters, the nearest has 40,000"):
        examine(tabulate(former)[0], tabulate(new)[0], params=SIZE, tokens=TARGET)
