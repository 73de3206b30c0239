"""Learning dynamics of continued pretraining, against the figures of arXiv:2505.07796 and planted truths."""

import numpy as np
import pytest

from ratoon.config import ConfigError
from ratoon.laws.equations import dynamics
from ratoon.laws.equations.dynamics import Dynamics, sums
from ratoon.laws.fitting.fit import fit

# FineWeb to Knowledge-Pile and to Pile-of-Law, 106M: loss on the old text and on the new.
KNOWLEDGE_OLD = Dynamics(3.057, 0.490, 0.497, 0.299, 0.298, 0.366, 28, 0.189)
KNOWLEDGE_NEW = Dynamics(3.024, 0.412, 0.677, 0.278, 0.324, -0.666, 5662, 0.146)
LAW_OLD = Dynamics(3.064, 0.482, 0.511, 0.294, 0.264, 1.353, 37, 0.262)
LAW_NEW = Dynamics(2.978, 0.485, 0.701, 0.274, 0.298, -1.409, 383, 0.368)
# Sizes 106M, 594M and 1.72B together.
JOINT_OLD = Dynamics(1.829, 0.504, 0.537, 0.090, 0.103, 0.278, 12, 0.359, g1=0.235, g2=0.199, F=3.072, g3=0.195)
JOINT_NEW = Dynamics(1.860, 0.438, 0.585, 0.333, 0.140, -0.552, 187, 0.326, g1=0.012, g2=0.145, F=2.718, g3=0.189)

PRETRAINING = np.concatenate([np.full(36_000, 2e-4), np.linspace(2e-4, 0, 4000)])
STAGE = np.concatenate([np.linspace(0, 2e-5, 500), 1e-5 * (1 + np.cos(np.pi * np.arange(9500) / 9500))])
PARENT = sums(PRETRAINING).end


def test_the_sums_of_a_schedule_are_those_of_the_paper_s_setup():
    assert float(PARENT.S1) == pytest.approx(7.600, abs=5e-4)
    assert float(PARENT.S2) == pytest.approx(0.15095, abs=5e-6)
    stage = sums(STAGE).end
    assert float(stage.S1) == pytest.approx(0.10001, abs=5e-6)
    assert float(stage.S2) == pytest.approx(-0.000984, abs=5e-7)


def test_the_fast_sum_equals_the_double_sum_of_the_definition():
    rates, decay = np.random.default_rng(0).uniform(0, 1, 40), 0.9
    eta = np.concatenate([[0.3], rates])
    slow = [
        sum((eta[k - 1] - eta[k]) * decay ** (i - k) for i in range(1, n + 1) for k in range(1, i + 1))
        for n in range(1, 41)
    ]
    np.testing.assert_allclose(sums(rates, decay, before=0.3).S2, slow, atol=1e-12)


@pytest.mark.parametrize(
    ("law", "start", "end"), [(KNOWLEDGE_OLD, 3.1907, 3.2714), (KNOWLEDGE_NEW, 3.0864, 2.6837)], ids=["old", "new"]
)
def test_the_printed_constants_give_the_losses_before_and_after_the_stage(law, start, end):
    assert float(law.loss(*PARENT, 0.0, 0.0)) == pytest.approx(start, abs=5e-5)
    path = law.trajectory(PARENT, STAGE)
    assert path.shape == STAGE.shape
    assert path[-1] == pytest.approx(end, abs=5e-5)


def test_fits_of_one_parent_agree_on_its_loss_and_only_with_sizes_in_millions():
    """Both stages start from the same FineWeb parent: two fits of its loss, and a third over sizes."""
    start = float(KNOWLEDGE_OLD.loss(*PARENT, 0.0, 0.0))
    assert float(LAW_OLD.loss(*PARENT, 0.0, 0.0)) == pytest.approx(start, abs=1e-3)
    assert float(JOINT_OLD.loss(*PARENT, 0.0, 0.0, 1.0, 106e6)) == pytest.approx(start, abs=0.03)
    assert float(JOINT_NEW.loss(*PARENT, 0.0, 0.0, 1.0, 106e6)) == pytest.approx(
        float(KNOWLEDGE_NEW.loss(*PARENT, 0.0, 0.0)), abs=0.03
    )
    assert float(JOINT_OLD.loss(*PARENT, 0.0, 0.0, 1.0, 106e12)) < start - 1  # as if N were counted one by one


def test_new_text_costs_the_old_and_pays_the_new_in_every_printed_fit():
    for old, new in ((KNOWLEDGE_OLD, KNOWLEDGE_NEW), (LAW_OLD, LAW_NEW), (JOINT_OLD, JOINT_NEW)):
        assert old.trajectory(PARENT, STAGE, N=106e6)[-1] > float(old.loss(*PARENT, 0.0, 0.0, 1.0, 106e6))
        assert new.trajectory(PARENT, STAGE, N=106e6)[-1] < float(new.loss(*PARENT, 0.0, 0.0, 1.0, 106e6))


def test_the_saturating_replay_factor_follows_the_separate_fits_and_the_exponential_cannot():
    """B fitted alone at 0, 33, 50 and 67% replay; a2 by least squares on it."""
    new, B = np.array([1.0, 0.67, 0.5, 0.33]), np.array([0.666, 0.632, 0.599, 0.532])

    def factor(a2):
        stage = Dynamics(0, 0, 1, 0, 0, 1, 1, 1, a2=a2)
        return stage.loss(1.0, 0.0, 1.0, 0.0, new) / stage.loss(1.0, 0.0, 1.0, 0.0, 1.0)

    best = min(np.linspace(1, 10, 200), key=lambda a2: float(np.sum((factor(a2) - B / B[0]) ** 2)))
    np.testing.assert_allclose(factor(best), B / B[0], atol=0.02)
    printed = np.expm1(5.696 * new)
    assert printed[0] / printed[2] == pytest.approx(18, abs=0.5)


# ---------------------------------------------------------------- planted truths


def checkpoints(shares=(1.0,), sizes=(106e6,)):
    """Two parents, each followed over its own training and into three stages."""
    cosine = 1e-4 * (1 + np.cos(np.pi * np.arange(40_000) / 40_000))
    warm = np.concatenate([np.linspace(0, 1e-4, 500), np.full(7500, 1e-4), np.linspace(1e-4, 0, 2000)])
    rows = []
    for size in sizes:
        for parent in (sums(PRETRAINING), sums(cosine)):
            rows += [(parent.S1[i], parent.S2[i], 0.0, 0.0, 1.0, size) for i in range(500, 40_000, 2500)]
            for stage in (sums(STAGE), sums(warm), sums(np.full(10_000, 5e-5), before=0.0)):
                for share in shares:
                    steps = np.unique(np.geomspace(20, 9999, 16).astype(int))
                    rows += [(*parent.end, stage.S1[i], stage.S2[i], share, size) for i in steps]
    return dict(zip(("S1pt", "S2pt", "S1cpt", "S2cpt", "new", "N"), np.array(rows).T, strict=True))


@pytest.mark.parametrize(
    ("form", "truth", "shares", "sizes"),
    [
        (dynamics.FORM, KNOWLEDGE_OLD, (1.0,), (106e6,)),
        (dynamics.FORM, KNOWLEDGE_NEW, (1.0,), (106e6,)),
        (dynamics.form(replay=True), KNOWLEDGE_OLD._replace(a1=-0.8, a2=3.0), (0.25, 0.5, 1.0), (106e6,)),
        (dynamics.form(sizes=True), JOINT_OLD._replace(a1=-0.8, a2=3.0), (0.5, 1.0), (106e6, 594e6, 1720e6)),
    ],
    ids=["old text", "new text", "replay", "sizes"],
)
def test_a_planted_law_is_recovered_with_its_sign_and_predicts_another_schedule(form, truth, shares, sizes):
    table = checkpoints(shares, sizes)
    inputs = {name: table[name] for name in form.inputs}
    found = fit(form, inputs, truth.loss(**inputs), hold_out=False)
    other = np.concatenate([np.linspace(0, 6e-5, 100), np.linspace(6e-5, 1e-5, 15_000)])
    np.testing.assert_allclose(
        found.law.trajectory(PARENT, other, new=shares[0], N=sizes[-1]),
        truth.trajectory(PARENT, other, new=shares[0], N=sizes[-1]),
        rtol=1e-5,
    )
    assert found.params["B"] == pytest.approx(truth.B, rel=1e-3)


def test_noise_moves_the_parameters_of_the_shift_and_hardly_the_prediction():
    table = checkpoints()
    inputs = {name: table[name] for name in dynamics.FORM.inputs}
    noise = np.random.default_rng(0).normal(0, 0.005, len(table["N"]))
    found = fit(dynamics.FORM, inputs, KNOWLEDGE_OLD.loss(**inputs) + noise, hold_out=False)
    assert abs(found.law.trajectory(PARENT, STAGE)[-1] - 3.2714) < 0.005


@pytest.mark.parametrize(
    "form", [dynamics.FORM, dynamics.form(replay=True), dynamics.form(sizes=True)], ids=["plain", "replay", "sizes"]
)
def test_slopes_are_those_of_the_columns(form):
    table = checkpoints((0.0, 0.4, 1.0), (1e8, 1e9))
    inputs = {name: table[name] for name in form.inputs}
    frame, random = form.frame(inputs, None), np.random.default_rng(1)
    middle = np.where(form.logarithmic, np.sqrt(np.abs(form.low * form.high)), 0.1)
    theta = middle * random.uniform(0.7, 1.4, (3, len(middle)))
    coefficients = random.uniform(0.5, 1.5, (3, len(form.linear)))
    slopes = form.slopes(theta, coefficients, inputs, frame)
    for j in range(len(middle)):
        step = np.zeros_like(theta)
        step[:, j] = 1e-6 * theta[:, j]
        change = form.columns(theta + step, inputs, frame) - form.columns(theta - step, inputs, frame)
        expected = np.einsum("bnm,bm->bn", change, coefficients) / (2 * step[:, j, None])
        np.testing.assert_allclose(slopes[..., j], expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-5)


def test_what_the_schedules_cannot_decide_is_fixed_and_said():
    table = checkpoints()
    stage = sums(STAGE)
    steps = np.arange(100, 10_000, 600)
    one_parent = {
        "S1pt": np.full(len(steps), PARENT.S1),
        "S2pt": np.full(len(steps), PARENT.S2),
        "S1cpt": stage.S1[steps],
        "S2cpt": stage.S2[steps],
    }
    found = fit(dynamics.FORM, one_parent, KNOWLEDGE_OLD.loss(**one_parent), hold_out=False)
    assert {"C1", "alpha"} <= set(found.at_bounds)
    assert any("annealed alike" in reason for reason in found.reasons)
    np.testing.assert_allclose(found.loss(*one_parent.values()), KNOWLEDGE_OLD.loss(**one_parent), rtol=1e-3)
    before = {name: values[table["S1cpt"] == 0] for name, values in table.items()}
    settled = dynamics.form(sizes=True).settle(before)
    assert {"B", "C2", "F"} <= set(settled.absent)
    assert any("nothing is learnt of replay" in reason for reason in settled.reasons)


# ---------------------------------------------------------------- questions asked of a law


def test_a_new_warm_up_lifts_loss_and_annealing_takes_it_back():
    law = Dynamics(3.0, 0.4, 0.5, 0.3, 0.3, 0.0, 1.0, 0.2)  # nothing new to learn: the schedule alone
    rates = np.concatenate([np.linspace(0, 2e-4, 300), np.full(20_000, 2e-4), np.linspace(2e-4, 0, 4000)])
    path = law.trajectory(PARENT, rates)
    assert path.max() > path[0] + 0.01
    assert path[20_300] - path[-1] > 0.3 * 0.15  # C2 times what the parent's own annealing left in S2
    assert path[-1] < path[0]


def test_general_loss_comes_back_at_the_turning_length_and_not_where_the_shift_costs_more():
    rate = 1e-4
    mild = KNOWLEDGE_OLD._replace(B=0.12, C2=0.0)
    total = mild.turning_sum(float(PARENT.S1))
    start = float(mild.loss(*PARENT, 0.0, 0.0))
    path = mild.trajectory(PARENT, np.full(int(1.5 * total / rate), rate))
    assert dynamics.turning_length(path, start) == pytest.approx(total / rate, abs=2)
    assert path.max() > start + 0.01
    assert dynamics.turning_length(path[: int(0.9 * total / rate)], start) is None
    assert KNOWLEDGE_OLD.turning_sum(float(PARENT.S1)) is None  # B = .366, and training on can give back .18
    assert KNOWLEDGE_NEW.turning_sum(float(PARENT.S1)) == 0.0
    assert dynamics.turning_length(KNOWLEDGE_NEW.trajectory(PARENT, STAGE), 3.0865) == 0
    replayed = KNOWLEDGE_OLD._replace(B=0.2, a2=3.0)
    assert replayed.turning_sum(float(PARENT.S1), new=1.0) is None
    assert replayed.turning_sum(float(PARENT.S1), new=0.1) is not None


def test_loss_potential_is_the_last_rate_over_the_highest():
    assert dynamics.loss_potential(PRETRAINING) == 0
    assert dynamics.loss_potential([1e-5, 2e-4, 5e-5]) == pytest.approx(0.25)


@pytest.mark.parametrize("rates", [[], [1e-4, float("nan")], [-1e-4], [[1e-4]]])
def test_a_schedule_that_is_none_is_refused(rates):
    with pytest.raises(ConfigError, match="one learning rate per step"):
        sums(rates)
