"""The equations, against planted truths and published figures."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from ratoon.config import ConfigError
from ratoon.laws.decision.choose import crossing
from ratoon.laws.equations import cmr, dcpt, warm
from ratoon.laws.fitting import varpro
from ratoon.laws.fitting.fit import fit as fit_form
from ratoon.laws.size import train_flops

PUBLISHED = Path(__file__).parents[3] / "shared" / "published"
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not beside this checkout")

TRUTH = dcpt.DCPT(E=1.2, A=0.35, a=0.3, B=0.15, n=1.1, b=0.35, C=0.9, e=0.08, c=0.35)


def grid(sizes, tokens, ratios):
    return (axis.ravel() for axis in np.meshgrid(sizes, tokens, ratios, indexing="ij"))


def fit(form, N, D, r, loss, tokens_to=None, **how):
    reach = None if tokens_to is None else {"D": tokens_to}
    return fit_form(form, {"N": N, "D": D, "r": r}, loss, reach=reach, **how)


def paper_grid():
    return grid([0.5e9, 1.8e9, 4e9], np.geomspace(0.5e9, 20e9, 8), [0.1, 0.2, 1 / 3, 0.5, 2 / 3, 0.8, 0.9, 1.0])


def test_the_inner_solve_equals_nonnegative_least_squares(monkeypatch):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(50, 12, 4)), random.normal(size=(50, 12))
    gram, moment = np.einsum("bni,bnj->bij", X, X), np.einsum("bni,bn->bi", X, y)
    theirs = np.array([nnls(X[k], y[k])[0] for k in range(50)])
    everything, all_signed = np.ones((50, 4), dtype=bool), np.ones(4, dtype=bool)
    np.testing.assert_allclose(varpro.solve(gram, moment, everything, all_signed), theirs, atol=1e-9)
    monkeypatch.setattr(varpro, "WAYS", 2)  # the way of many coefficients
    np.testing.assert_allclose(varpro.solve(gram, moment, everything, all_signed), theirs, atol=1e-9)


def test_a_coefficient_of_open_sign_keeps_it():
    random = np.random.default_rng(1)
    X = random.normal(size=(1, 30, 3))
    y = X @ np.array([2.0, -1.0, -0.5])
    gram, moment = np.einsum("bni,bnj->bij", X, X), np.einsum("bni,bn->bi", X, y)
    found = varpro.solve(gram, moment, np.ones((1, 3), dtype=bool), np.array([True, False, False]))[0]
    np.testing.assert_allclose(found, [2.0, -1.0, -0.5], atol=1e-9)


def test_a_planted_dcpt_law_is_recovered_without_noise():
    N, D, r = paper_grid()
    found = fit(dcpt.FORM, N, D, r, TRUTH.loss(N, D, r), hold_out=False)
    assert found.seen_error < 1e-6
    for name, value in TRUTH._asdict().items():
        assert found.params[name] == pytest.approx(value, rel=0.02), name
    assert found.at_bounds == ()


def test_a_planted_dcpt_law_predicts_beyond_its_runs_through_noise():
    N, D, r = paper_grid()
    noisy = TRUTH.loss(N, D, r) + np.random.default_rng(1).normal(0, 0.003, len(N))
    found = fit(dcpt.FORM, N, D, r, noisy, tokens_to=50e9)
    at = (np.array([7e9]), np.array([50e9]), np.array([0.25, 0.6, 0.95]))
    np.testing.assert_allclose(found.loss(*at), TRUTH.loss(*at), rtol=0.01)
    assert found.unseen_error is not None
    assert found.unseen_error < 0.003


@pytest.mark.parametrize("form", [dcpt.FORM, cmr.FORM, warm.FORM], ids=lambda form: form.name)
def test_loss_never_rises_with_the_own_share_anywhere_in_the_box(form):
    N, D, r = grid([1e9], [1e9, 2e9, 4e9, 8e9], [0.05, 0.3, 0.6, 0.9])
    loss = 3 + np.random.default_rng(2).normal(0, 0.1, len(N))  # noise only: the worst temptation
    law = fit(form, N, D, r, loss, tokens_to=30e9, hold_out=False).law
    shares = np.linspace(0.03, 1, 60)
    for tokens in np.geomspace(1e9, 30e9, 7):
        assert (np.diff(law.loss(1e9, tokens, shares)) <= 1e-9).all()


@pytest.mark.parametrize("form", [dcpt.FORM, cmr.FORM, warm.FORM], ids=lambda form: form.name)
def test_the_law_says_what_its_columns_said(form):
    N, D, r = grid([2e5, 4e5, 8e5], [1e5, 2e5, 4e5, 8e5], [0.1, 0.3, 0.5, 0.7, 0.9])
    loss = 3 + (N / 1e5) ** -0.3 + 0.4 * (D / 1e5) ** -0.3 + 0.3 * r**-0.4
    found = fit(form, N, D, r, loss, tokens_to=2e6, hold_out=False)
    columns = form.columns(found.theta[None], {"N": N, "D": D, "r": r}, found.frame)[0]
    np.testing.assert_allclose(found.loss(N, D, r), columns @ found.coefficients, rtol=1e-6)


def test_a_planted_warm_start_is_predicted_three_times_further():
    truth = warm.Warm(beta0=3.0, beta1=0.006, alpha0=-0.6, alpha1=0.002, s=0.3, t=0.6, D0=0.0004)
    N, D, r = grid([2e5], [5e4, 1e5, 2e5, 4e5], [0.0, 0.3, 0.45, 0.6, 0.75, 0.9])
    found = fit(warm.FORM, N, D, r, truth.loss(N, D, r), tokens_to=1.2e6)
    assert found.seen_error < 1e-5
    np.testing.assert_allclose(found.loss(2e5, 1.2e6, [0.3, 0.6]), truth.loss(2e5, 1.2e6, [0.3, 0.6]), rtol=1e-3)


def test_what_one_size_cannot_decide_is_fixed_and_said():
    N, D, r = grid([1e9], [1e9, 2e9, 4e9], [0.1, 0.4, 0.7, 1.0])
    found = fit(dcpt.FORM, N, D, r, TRUTH.loss(N, D, r), hold_out=False)
    assert found.params["A"] == 0
    assert {"A", "a", "e"} <= set(found.at_bounds)
    assert any("one model size" in reason for reason in found.reasons)
    two = fit(dcpt.FORM, np.concatenate([N, 2 * N]), *(np.tile(x, 2) for x in (D, r, TRUTH.loss(N, D, r))))
    assert two.params["a"] == pytest.approx(dcpt.CAPACITY)


def test_runs_without_the_corpus_are_no_business_of_dcpt():
    N, D, r = grid([1e9], [1e9, 2e9, 4e9], [0.0, 0.1, 0.4, 0.7, 1.0])
    assert fit(dcpt.FORM, N, D, r, TRUTH.loss(N, D, r), hold_out=False).observations == 12
    assert fit(cmr.FORM, N, D, r, TRUTH.loss(N, D, r), hold_out=False).observations == 15


@pytest.mark.parametrize(
    ("change", "letter"),
    [
        (lambda N, D, r, loss: (N, D, r * 100, loss), "divide by 100"),
        (lambda N, D, r, loss: (N, D, r, np.where(D > 3e9, np.nan, loss)), "loss is not a number in observations"),
        (lambda N, D, r, loss: (N, D, r, np.full_like(loss, 3.0)), "a constant says nothing"),
        (lambda N, D, r, loss: (N, D, np.where(r < 0.5, 0.3, 0.6), loss), r"2 ratios \(0.3, 0.6\)"),
        (lambda N, D, r, loss: [x[[0, 1, 2, 7, 8]] for x in (N, D, r, loss)], "5 observations cannot pin its 6 free"),
        (lambda N, D, r, loss: (N, D * 0, r, loss), "a row at 0 tokens is the parent"),
    ],
)
def test_runs_that_cannot_carry_a_law_are_refused_with_what_would_mend_it(change, letter):
    N, D, r = grid([1e9], [1e9, 2e9, 4e9], [0.1, 0.4, 0.7, 1.0])
    with pytest.raises(ConfigError, match=letter):
        fit(dcpt.FORM, *change(N, D, r, TRUTH.loss(N, D, r)))


# ---------------------------------------------------------------- CMR, arXiv:2407.17467


@pytest.mark.parametrize(
    ("losses", "measured", "theirs"),
    [
        ([1.4628, 1.4844, 1.5122, 1.5387], 1.5561, 1.5566),
        ([1.3723, 1.3910, 1.4155, 1.4385], 1.4538, 1.4546),
        ([1.3242, 1.3416, 1.3643, 1.3854], 1.3994, 1.3999),
        ([1.2585, 1.2750, 1.2965, 1.3170], 1.3305, 1.3303),
    ],
)
def test_the_ratio_law_predicts_the_papers_quarter_at_least_as_well_as_the_paper(losses, measured, theirs):
    law = cmr.ratio_law([1, 0.75, 0.5, 1 / 3], losses)
    assert abs(float(law.loss(0.25)) - measured) <= max(abs(theirs - measured), 1.5e-4)


@pytest.mark.parametrize(
    ("constants", "at_100"),
    [
        ((0.22524761, 0.26944345, -0.48139982), 0.298),
        ((0.7520627, 0.13720245, -1.06581937), 0.349),
        ((-2.36384831, -0.15125569, 1.59223649), 0.414),
        ((-2.5368197, -0.42071423, 0.84375368), 0.478),
    ],
)
def test_the_critical_ratio_reproduces_the_papers_table(constants, at_100):
    law = cmr.CriticalRatio(*constants)
    assert float(law.at(100)) == pytest.approx(at_100, abs=6e-4)
    tokens = np.array([25.0, 50, 75, 100])
    assert float(cmr.critical_law(tokens, law.at(tokens)).at(100)) == pytest.approx(at_100, abs=6e-4)


def test_increments_are_recovered_and_turn_where_general_loss_does():
    general = cmr.Increment(a1=0.05, s1=0.3, a2=-0.004, s2=0.8, b=0.01)
    tokens = np.linspace(1, 100, 40)
    found = cmr.increment_law(tokens, general.loss(tokens), powers=2)
    np.testing.assert_allclose(found.loss(tokens), general.loss(tokens), atol=1e-6)
    domain = cmr.Increment(a1=-0.2, s1=0.2, a2=0, s2=1, b=0)
    np.testing.assert_allclose(
        cmr.increment_law(tokens, domain.loss(tokens), powers=1).loss(tokens), domain.loss(tokens), atol=1e-8
    )
    limit = (-(0.05 * 0.3) / (-0.004 * 0.8)) ** (1 / (0.8 - 0.3))
    found_turn = cmr.turning_point(domain, general, penalty=1e7, longest=100)
    assert found_turn == pytest.approx(limit, rel=1e-3)
    assert cmr.turning_point(domain, general, penalty=1e7, longest=limit / 2) is None


# ---------------------------------------------------------------- published runs


def test_the_largest_share_of_the_dcpt_paper_is_found_from_its_table():
    """arXiv:2406.01375: chemistry at 1.8B and 10B tokens, 3% tolerance: 0.924."""
    shares = np.array([0.90, 0.91, 0.92, 0.924, 0.93, 0.94, 1.0])
    losses = np.array([2.9052, 2.9193, 2.9376, 2.9445, 2.9644, 2.9848, 3.4667])
    ceiling = 1.03 * 2.8602
    assert crossing(shares, losses[None], ceiling)[0] == pytest.approx(0.9245, abs=2e-4)
    N, D = np.full(7, 1.8e9), np.full(7, 1e10)
    found = fit(dcpt.FORM, N, D, 1 - shares, losses, hold_out=False)
    fine = np.linspace(0.9, 0.95, 501)
    smooth = found.loss(1.8e9, 1e10, 1 - fine)
    assert crossing(fine, smooth[None], ceiling)[0] == pytest.approx(0.924, abs=0.002)


def read(name):
    with (PUBLISHED / name).open() as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key != "model"}


@published
def test_the_critical_pile_share_of_the_data_mixing_laws_is_found():
    """arXiv:2403.16952, Pythia-70M on Pile and Python: 0.2862 printed, 0.2831 by plain least squares."""
    table, base = read("dml_ct_pythia70m.csv"), 2.8733675921404798
    last = table["step"] == 10000
    law = cmr.ratio_law(table["general_proportion"][last], table["general_loss"][last])
    general = np.linspace(0.15, 0.5, 3501)
    assert 0.278 <= general[np.abs(law.loss(general) - base).argmin()] <= 0.290


@published
@pytest.mark.parametrize("role", ["general", "domain"])
def test_a_left_out_ratio_of_the_data_mixing_laws_is_predicted_within_a_fifth_of_a_percent(role):
    table = read("dml_ct_pythia70m.csv")
    loss = table["general_loss" if role == "general" else "python_loss"]
    found = fit(dcpt.FORM, table["model_params"], table["tokens"], table[f"{role}_proportion"], loss)
    ratio = next(split for split in found.held_out if split.name == "a ratio")
    assert np.median(np.abs(ratio.errors)) <= 0.002


def test_training_costs_six_flops_per_parameter_and_token():
    assert train_flops(1e9, 2e10) == 1.2e20
