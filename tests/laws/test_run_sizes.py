"""Runs of several sizes: laws without a size read them through their parents, laws of size say what two leave open."""

import itertools

import numpy as np
import pytest
from planted_runs import observation

from ratoon.config import ChooseConfig
from ratoon.laws.decision.choose import choose
from ratoon.laws.decision.sizes import as_one_size
from ratoon.laws.equations import warm
from ratoon.laws.equations.dcpt import DCPT
from ratoon.laws.fitting.fit import fit
from ratoon.laws.tables.parents import starts
from ratoon.laws.tables.table import tabulate

DOMAIN = DCPT(E=0.6, A=0.3, a=0.3, B=0.5, n=0.5, b=0.5, C=1.0, e=0.02, c=0.3)
GENERAL = DCPT(E=1.9, A=0.3, a=0.3, B=0.05, n=0.5, b=0.3, C=0.25, e=0.1, c=0.4)


def configure(**changes):
    return ChooseConfig.model_validate({"bootstrap": 50, "law": "dcpt", **changes})


def warm_loss(role, params, tokens, share):
    """Sizes differ by what they start from alone."""
    own = share if role == "domain" else 1 - share
    fresh = (1 + tokens / 3e8) ** -0.5
    return 2.5 + 0.4 * (params / 1e8) ** -0.3 + 0.5 * fresh + (0.6 - 0.4 * fresh) * (1 - own**0.3)


def warm_sweep(sizes, noise=0.0, start=True, seed=0):
    random, found = np.random.default_rng(seed), []
    shares, lengths = (0.1, 0.3, 0.5, 0.7, 0.9), (5e7, 1e8, 2e8, 4e8)
    for params, share, tokens, role in itertools.product(sizes, shares, lengths, ("general", "domain")):
        loss = warm_loss(role, params, tokens, share) + noise * random.normal()
        found.append(observation(role, params, tokens, share, loss))
    for params, role in itertools.product(sizes if start else (), ("general", "domain")):
        found.append(observation(role, params, 0, 0.5, parent(params), finished=False))
    return found


def parent(params):
    return 3.2 + 0.4 * (params / 1e8) ** -0.3


def told(observations, params, **changes):
    return choose(
        observations,
        params_non_embedding=int(params),
        tokens=int(1.2e9),
        parent_general=parent(params),
        parent_domain=parent(params),
        config=configure(**{"law": "warm", "ratio": 0.5, **changes}),
    )


def test_a_law_without_a_size_reads_all_sizes_once_each_is_counted_from_its_own_parent():
    together = told(warm_sweep((3e7, 1e8)), 1e8)
    apart = told(warm_sweep((3e7, 1e8), start=False), 1e8)
    assert {report.observations for report in together.laws if report.law == "warm"} == {40}
    assert {report.observations for report in apart.laws if report.law == "warm"} == {20}
    assert together.predicted_general.value == pytest.approx(warm_loss("general", 1e8, 1.2e9, 0.5), rel=1e-4)


def test_two_sizes_read_together_predict_better_than_one_through_noise():
    truth, errors = warm_loss("general", 1e8, 1.2e9, 0.5), {"together": [], "alone": []}
    for seed in range(8):
        rows = warm_sweep((3e7, 1e8), noise=0.004, seed=seed)
        table = tabulate(rows)[0]["general"]
        joined = as_one_size(table, 1e8, starts(rows)["general"], far=4)
        for name, runs in (("together", joined.runs), ("alone", table.near_size(1e8).runs)):
            found = fit(warm.FORM, runs.inputs, runs.loss, reach={"D": 1.2e9}, hold_out=False)
            errors[name].append(float(found.loss(1e8, 1.2e9, 0.5)) - truth)
    rms = {name: np.sqrt(np.mean(np.square(found))) for name, found in errors.items()}
    assert rms["together"] < rms["alone"]


def test_a_size_that_was_not_run_is_answered_from_its_parents_loss():
    found = told(warm_sweep((3e7, 1e8)), 3e8)
    assert found.predicted_general.value == pytest.approx(warm_loss("general", 3e8, 1.2e9, 0.5), rel=1e-4)
    assert not any("the law has no size" in line for line in found.warnings)
    without = told(warm_sweep((3e7, 1e8), start=False), 3e8)
    assert any("the law has no size" in line for line in without.warnings)


def test_two_sizes_leave_a_third_in_doubt_and_the_interval_says_so():
    rows = [
        observation(role, params, tokens, share, law.loss(params, tokens, own))
        for params, share, tokens in itertools.product((5e8, 2e9), (0.1, 0.3, 0.5, 0.7, 0.9), (1e9, 2e9, 4e9, 8e9))
        for role, law, own in (("general", GENERAL, 1 - share), ("domain", DOMAIN, share))
    ]

    def predicted(params):
        return choose(
            rows,
            params_non_embedding=params,
            tokens=8 * 10**9,
            parent_general=2.7,
            parent_domain=2.6,
            config=configure(ratio=0.5),
        ).predicted_domain

    at, beyond = predicted(2 * 10**9), predicted(8 * 10**9)
    assert beyond.high - beyond.low > 3 * (at.high - at.low)
    assert beyond.low <= float(DOMAIN.loss(8e9, 8e9, 0.5)) <= beyond.high
