"""Laws of mixtures, of domains never swept, and of ratio against learning rate: planted truths, published runs."""

import csv
from pathlib import Path

import numpy as np
import pytest

from ratoon.config import ConfigError
from ratoon.laws.equations import additive, almr, bimix, crossdomain, loglinear, mixing
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.objective import Objective

PUBLISHED = Path(__file__).parents[3] / "shared" / "published"
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not beside this checkout")

NATS = Objective("raw", 0.02)  # as the mixing laws were fitted
FOUR = ("web", "code", "maths", "law")


def read(name):
    with (PUBLISHED / name).open() as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key not in ("model", "run_id")}


def mixtures(domains, number, seed=0):
    """Random ones, all of one domain, and half and half: shares of exactly zero are among them."""
    drawn = np.random.default_rng(seed).dirichlet(np.full(domains, 0.7), number)
    drawn[:domains] = np.eye(domains)
    drawn[domains, :] = np.eye(domains)[:2].mean(axis=0)
    return drawn


def crossed(*axes):
    return (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))


def assert_slopes_are_those_of_the_columns(form, inputs):
    frame, random = form.frame(inputs, None), np.random.default_rng(1)
    middle = np.where(form.logarithmic, np.sqrt(np.abs(form.low * form.high)), 1.0)
    theta = middle * random.uniform(0.7, 1.4, (3, len(middle)))
    coefficients = random.uniform(0.5, 1.5, (3, len(form.linear)))
    slopes = form.slopes(theta, coefficients, inputs, frame)
    for j in range(len(middle)):
        step = np.zeros_like(theta)
        step[:, j] = 1e-6 * theta[:, j]
        change = form.columns(theta + step, inputs, frame) - form.columns(theta - step, inputs, frame)
        expected = np.einsum("bnm,bm->bn", change, coefficients) / (2 * step[:, j, None])
        np.testing.assert_allclose(slopes[..., j], expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-5)


def assert_gradient_is_that_of_the_loss(law, h):
    slopes = [(law.loss(h + step) - law.loss(h - step)) / 2e-6 for step in 1e-6 * np.eye(h.shape[1])]
    np.testing.assert_allclose(law.gradient(h), np.stack(slopes, axis=-1), rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------- data mixing laws, arXiv:2403.16952


@pytest.mark.parametrize("objective", [Objective(), NATS], ids=["log loss", "nats"])
@pytest.mark.parametrize("domains", [2, 4, 17])
def test_a_planted_mixing_law_is_recovered_for_any_number_of_domains(domains, objective):
    t = np.random.default_rng(1).normal(0, 1, domains)
    t[0] = -12.0
    truth = mixing.Mixing(1.7, 0.4, tuple(t - t.mean()))
    names, h = tuple(f"d{i}" for i in range(domains)), mixtures(domains, 6 * domains)
    found = fit(mixing.form(names), {"h": h}, truth.loss(h), objective=objective, hold_out=False)
    new = mixtures(domains, 60, seed=2)
    np.testing.assert_allclose(found.law.loss(new), truth.loss(new), rtol=1e-5)
    np.testing.assert_allclose(found.law.t, truth.t, rtol=1e-4, atol=1e-4)
    assert sum(found.law.t) == pytest.approx(0, abs=1e-9)


def test_a_blend_of_unknown_make_up_is_recovered_as_one_curve():
    truth = mixing.Blend((0.4, 0.6), (1.5, 2.0), (1.0, 1.2), ((-4.0, 1.0, 2.0, 1.0), (1.0, -3.0, 0.0, 2.0)))
    h, new = mixtures(4, 60), mixtures(4, 60, seed=2)
    found = fit(mixing.form(FOUR, parts=2), {"h": h}, truth.loss(h), hold_out=False)
    np.testing.assert_allclose(found.law.loss(new), truth.loss(new), rtol=1e-5)
    assert np.dot(found.law.s, found.law.c) == pytest.approx(0.4 * 1.5 + 0.6 * 2.0, rel=1e-4)
    assert_gradient_is_that_of_the_loss(found.law, new)


def test_a_constant_added_to_every_t_is_the_same_law():
    h = mixtures(4, 20)
    one = mixing.Mixing(1.7, 0.9, (-3.0, 1.0, 0.4, 1.6))
    other = mixing.Mixing(1.7, 0.9 * np.exp(-2), tuple(t + 2 for t in one.t))
    np.testing.assert_allclose(one.loss(h), other.loss(h), rtol=1e-12)
    np.testing.assert_allclose(one.gradient(h).sum(axis=1), 0, atol=1e-12)
    assert_gradient_is_that_of_the_loss(one, h)
    assert_gradient_is_that_of_the_loss(other, h)


def test_two_domains_read_as_the_paper_s_curve_of_one_share():
    law, r = mixing.Mixing(1.1, 0.8, (-1.2, 0.5)), np.linspace(0, 1, 7)
    c, b, k = law.along(0)
    np.testing.assert_allclose(law.loss(np.stack([r, 1 - r], axis=1)), c + np.exp(b + k * r), rtol=1e-12)
    with pytest.raises(ConfigError, match="takes two domains"):
        mixing.Mixing(1.0, 1.0, (0.0, 1.0, -1.0)).along()


def test_slopes_of_the_mixing_law_are_those_of_its_columns():
    assert_slopes_are_those_of_the_columns(mixing.form(FOUR), {"h": mixtures(4, 20)})
    assert_slopes_are_those_of_the_columns(mixing.form(FOUR, parts=2), {"h": mixtures(4, 20)})


def test_domains_that_no_run_varies_are_named_and_too_few_mixtures_leave_c_out():
    truth = mixing.Mixing(1.7, 0.9, (-3.0, 1.0, 0.4, 1.6))
    h = mixtures(3, 20)
    h = np.stack([h[:, 0], h[:, 1], np.zeros(20), h[:, 2]], axis=1)
    found = fit(mixing.form(FOUR), {"h": h}, truth.loss(h), hold_out=False)
    assert found.settled.exponents == {"t_maths": 0.0}
    assert "maths do not vary by themselves" in found.reasons[0]
    np.testing.assert_allclose(found.law.loss(h), truth.loss(h), rtol=1e-5)
    few = fit(mixing.form(FOUR), {"h": mixtures(4, 20)[:4]}, truth.loss(mixtures(4, 20)[:4]), hold_out=False)
    assert few.settled.absent == ("c",)
    assert few.reasons == ("4 different mixtures: c is fixed at 0",)


@pytest.mark.parametrize("domains", [(), ("web",), ("web", "web")])
def test_a_mixture_of_fewer_than_two_domains_is_refused(domains):
    for make in (mixing.form, loglinear.form, additive.form):
        with pytest.raises(ConfigError, match="two or more different domains"):
            make(domains)


# The notebook's output for L = c + exp(b + k r), r the domain's own share: (loss, step, k, b).
PRINTED = [
    ("github", 10000, -2.4381, -0.5978),
    ("github", 20000, -1.5473, -0.6506),
    ("github", 30000, -1.6405, -0.6819),
    ("pilecc", 10000, -2.9041, -0.5333),
    ("pilecc", 20000, -2.2959, -0.5862),
    ("pilecc", 30000, -2.5189, -0.6257),
]
PAIR = ("github", "pilecc")


def pair(step):
    table = read("dml_2mix_70m.csv")
    at = table["step"] == step
    losses = {name: table[f"loss_{name}"][at] for name in PAIR}
    return np.stack([table[f"mix_{name}"][at] for name in PAIR], axis=1), losses


@published
@pytest.mark.parametrize(("domain", "step", "k", "b"), PRINTED)
def test_fitted_mixing_laws_predict_what_the_printed_ones_do(domain, step, k, b):
    """c is not printed: it is what makes the printed curve right on average."""
    h, losses = pair(step)
    shape = np.exp(b + k * h[:, PAIR.index(domain)])
    printed = shape + np.mean(losses[domain] - shape)
    found = fit(mixing.form(PAIR), {"h": h}, losses[domain], objective=NATS, hold_out=False)
    np.testing.assert_allclose(found.law.loss(h), printed, atol=0.002)


@published
@pytest.mark.parametrize(("domain", "limit"), [("github", 0.005), ("pilecc", 0.0015)])
def test_a_left_out_mixture_is_predicted_by_the_others(domain, limit):
    """All five in turn, the two at the ends included."""
    h, losses = pair(30000)
    found = fit(mixing.form(PAIR), {"h": h}, losses[domain], objective=NATS)
    (split,) = found.held_out
    assert split.name == "mixtures"
    assert len(split.errors) == 5
    assert np.mean(np.abs(split.errors)) <= limit


@published
def test_the_critical_pile_share_of_continued_pretraining_is_found_by_the_mixing_law():
    """0.2862 printed; to about 0.004, since four points carry three parameters and the recipes differ."""
    table, base = read("dml_ct_pythia70m.csv"), read("dml_ct_base.csv")["general_loss"][0]
    last = table["step"] == 10000
    h = np.stack([table["general_proportion"], table["domain_proportion"]], axis=1)
    found = fit(
        mixing.form(("pile", "python")), {"h": h[last]}, table["general_loss"][last], objective=NATS, hold_out=False
    )
    pile = np.linspace(0.15, 0.5, 3501)
    losses = found.law.loss(np.stack([pile, 1 - pile], axis=1))
    assert pile[np.abs(losses - base).argmin()] == pytest.approx(0.2862, abs=0.004)


# ---------------------------------------------------------------- Olmix, arXiv:2602.12237


def test_the_log_linear_law_is_the_mixing_law_with_k_in_its_exponents():
    truth, h = loglinear.LogLinear(0.5, (-3.0, 1.0, 0.4, 1.6)), mixtures(4, 24)
    found = fit(loglinear.form(FOUR), {"h": h}, truth.loss(h), objective=NATS, hold_out=False)
    np.testing.assert_allclose([found.law.c, *found.law.t], [truth.c, *truth.t], atol=1e-4)
    twin = fit(mixing.form(FOUR), {"h": h}, truth.loss(h), objective=NATS, hold_out=False)
    np.testing.assert_allclose(twin.law.loss(h), found.law.loss(h), rtol=1e-9)
    assert twin.law.c == pytest.approx(np.exp(found.law.c))
    assert_gradient_is_that_of_the_loss(found.law, h)


def test_the_log_linear_law_is_convex_in_the_mixture():
    random = np.random.default_rng(3)
    for _ in range(20):
        law = loglinear.LogLinear(float(random.normal()), tuple(random.normal(0, 5, 6)))
        h, g = random.dirichlet(np.ones(6), 50), random.dirichlet(np.ones(6), 50)
        assert (law.loss((h + g) / 2) <= (law.loss(h) + law.loss(g)) / 2 + 1e-12).all()


# ---------------------------------------------------------------- BiMix, arXiv:2405.14908


def test_a_planted_bimix_law_is_recovered_with_its_scale_in_b_and_c():
    truth = bimix.BiMix(A=0.8, a=0.15, B=2.0, b=0.3, C=1.5)
    D, r = crossed(np.geomspace(1e9, 3e10, 6), [0.0, 0.05, 0.2, 0.5, 1.0])
    seen = np.maximum(r, 1e-3)
    found = fit(bimix.FORM, {"D": D, "r": r}, truth.loss(D, seen), hold_out=False)
    assert found.observations == 24  # at a share of zero the law is infinite: those runs are left out
    np.testing.assert_allclose(found.law, (1.0, 0.15, 1.6, 0.3, 1.2), rtol=1e-5)
    assert_slopes_are_those_of_the_columns(bimix.FORM, {"D": D[r > 0], "r": r[r > 0]})
    short = fit(bimix.FORM, {"D": np.full(4, 1e9), "r": r[1:5]}, truth.loss(1e9, r[1:5]), hold_out=False)
    assert short.reasons == ("one run length: B is fixed at 0, loss does not depend on tokens",)


# ---------------------------------------------------------------- additive and joint, arXiv:2507.09404

ADDITIVE = additive.Additive(1.2, (2.0, 1.0, 0.5, 3.0), (0.3, 0.6, 0.4, 0.8), 0.4, 0.35, 0.7, 0.3)
JOINT = additive.Joint(
    1.2, (2.0, 1.0, 0.5, 3.0), (0.3, 0.6, 0.4, 0.8), (0.5, 0.3, 0.2, 0.4), 0.8, 0.35, (0.9, 0.3, 0.6, 0.4), 1.5, 0.3
)


def sweep(number):
    N, D, run = crossed([2e8, 6e8, 2e9], [2e9, 8e9, 3e10], np.arange(number))
    return {"N": N, "D": D, "h": mixtures(4, number)[run.astype(int)]}


@pytest.mark.parametrize(("truth", "number"), [(ADDITIVE, 14), (JOINT, 24)], ids=["additive", "joint"])
def test_planted_optimal_mixture_laws_are_recovered_and_predict_a_larger_run(truth, number):
    inputs, form = sweep(number), additive.form(FOUR, joint=truth is JOINT)
    found = fit(form, inputs, truth.loss(**inputs), hold_out=False)
    new = mixtures(4, 60, seed=2)
    np.testing.assert_allclose(found.law.loss(7e9, 1e11, new), truth.loss(7e9, 1e11, new), rtol=1e-5)
    assert_slopes_are_those_of_the_columns(form, inputs)


def test_eight_domains_have_the_parameters_the_joint_law_reports():
    assert additive.form(tuple("abcdefgh"), joint=True).num_parameters == 37


def test_the_best_mixture_is_the_same_at_every_size_under_the_additive_law_and_moves_under_the_joint():
    best, everywhere = ADDITIVE.best(), mixtures(4, 4000, seed=4)
    for N, D in ((2e8, 2e9), (7e9, 1e12)):
        assert float(ADDITIVE.loss(N, D, best)) <= ADDITIVE.loss(N, D, everywhere).min()
        assert float(JOINT.loss(N, D, JOINT.best(N, D))) <= JOINT.loss(N, D, everywhere).min()
    pull = np.array(ADDITIVE.C) * np.array(ADDITIVE.g) * best ** (np.array(ADDITIVE.g) - 1)
    np.testing.assert_allclose(pull / pull[0], 1, rtol=1e-3)  # every domain's next token is worth the same
    assert np.abs(JOINT.best(2e8, 2e9) - JOINT.best(7e9, 1e12)).max() > 0.05


def test_mixtures_too_few_for_the_law_are_said_and_no_best_one_is_made_up():
    inputs = sweep(24)
    few = {name: values[inputs["h"][:, 0] == 1] for name, values in inputs.items()}
    found = fit(additive.form(FOUR), few, ADDITIVE.loss(**few), hold_out=False)
    assert "1 mixture of 4 domains: the mixture is taken not to matter" in found.reasons
    np.testing.assert_allclose(found.law.loss(**few), ADDITIVE.loss(**few), rtol=1e-5)
    with pytest.raises(ConfigError, match="no mixture is better than another"):
        found.law.best()


def test_a_domain_that_no_run_has_does_not_stand_as_the_unit_of_the_others():
    inputs = sweep(24)
    kept = inputs["h"][:, 0] == 0
    inputs = {name: values[kept] for name, values in inputs.items()}
    h = np.random.default_rng(5).dirichlet(np.ones(3), len(inputs["N"]))
    inputs["h"] = np.concatenate([np.zeros((len(h), 1)), h], axis=1)
    settled = additive.form(FOUR).settle(inputs)
    assert {"g_web", "w_code"} <= set(settled.exponents)


# ---------------------------------------------------------------- cross-domain D-CPT, arXiv:2406.01375

INITIAL = np.array([1.9, 2.6, 3.3, 2.2, 2.9, 2.4])  # k1 of six domains; the last two are nobody's training domains
DECLINE = np.array([0.25, 0.60, 0.50, 0.20, 0.90, 0.45])  # k2


def swept(domains):
    N, D, r, which = crossed([0.5e9, 1.8e9, 4e9], np.geomspace(1e9, 2e10, 5), [0.1, 0.25, 0.5, 0.75, 1.0], domains)
    return {"N": N, "D": D, "r": r, "k1": INITIAL[which.astype(int)], "k2": DECLINE[which.astype(int)]}


@pytest.mark.parametrize("F", [0.5, -0.5])
@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 1e-5), (0.002, 0.004)], ids=["exact", "noisy"])
def test_two_domains_never_swept_are_predicted_from_four_that_were(F, noise, allowed):
    truth = crossdomain.CrossDomain(1.2, 0.35, 0.3, 0.15, 1.1, 0.35, 0.9, 0.08, 0.35, F, 0.7, 1.0, 0.8)
    inputs, new = swept([0, 1, 2, 3]), swept([4, 5])
    shaken = np.exp(np.random.default_rng(0).normal(0, noise, len(inputs["N"])))
    found = fit(crossdomain.FORM, inputs, truth.loss(**inputs) * shaken, hold_out=False)
    np.testing.assert_allclose(found.law.loss(**new), truth.loss(**new), rtol=allowed)
    assert np.sign(found.law.F) == np.sign(F)
    if not noise:
        assert found.law.w2 / found.law.w1 == pytest.approx(0.8, rel=1e-3)


def test_a_probe_reads_the_first_loss_and_how_fast_it_falls():
    tokens = np.array([0.0, 1e7, 2e7, 3e7])
    k1, k2 = crossdomain.probe(tokens, 2.5 - 0.7 * tokens / 1e9)
    assert (k1, k2) == (pytest.approx(2.5), pytest.approx(0.7))
    assert float(crossdomain.learnability(k1, k2, w1=1.0, w2=2.0)) == pytest.approx(1 / 2.5 + 1.4)
    with pytest.raises(ConfigError, match="evaluate the first percent of the run at least twice"):
        crossdomain.probe([0.0], [2.5])


def test_domains_too_few_for_learnability_are_said_and_a_rising_probe_is_refused():
    truth = crossdomain.CrossDomain(1.2, 0.35, 0.3, 0.15, 1.1, 0.35, 0.9, 0.08, 0.35, 0.5, 0.7, 1.0, 0.8)
    one = swept([0])
    found = fit(crossdomain.FORM, one, truth.loss(**one), hold_out=False)
    assert found.law.F == 0
    assert "one domain: F is fixed at 0, other domains cannot be predicted" in found.reasons
    two = swept([0, 1])
    with pytest.raises(ConfigError, match="probe it for longer"):
        fit(crossdomain.FORM, {**two, "k2": two["k2"] - 0.25}, truth.loss(**two), hold_out=False)


# ---------------------------------------------------------------- ALMR against learning rate, arXiv:2409.06624


def bowl(lr0=1e-5):
    return almr.Surface(b0=2.1, br=-0.4, by=0.05, brr=0.6, bry=-0.12, byy=0.03, lr0=lr0)


def test_a_planted_surface_and_its_optimum_are_recovered_by_both_ways_of_fitting():
    r, lr = crossed([0.1, 0.3, 0.5, 0.7], [3e-6, 1e-5, 3e-5, 1e-4])
    truth = bowl()
    best = truth.optimum()
    found = fit(almr.FORM, {"r": r, "lr": lr}, truth.loss(r, lr), hold_out=False)
    np.testing.assert_allclose(found.law.optimum(), best, rtol=1e-5)
    np.testing.assert_allclose(almr.respond(r, lr, truth.loss(r, lr)).optimum, best, rtol=1e-5)
    assert float(truth.ridge(best[1])) == pytest.approx(best[0])
    assert float(truth.rate(best[0])) == pytest.approx(best[1])
    around = truth.loss(best[0] + np.array([-0.01, 0.01, 0, 0]), best[1] * np.array([1, 1, 0.9, 1.1]))
    assert (around > truth.loss(*best)).all()


def test_the_interval_of_the_optimum_holds_the_truth_as_often_as_it_says():
    r, lr = crossed([0.1, 0.3, 0.5, 0.7], [3e-6, 1e-5, 3e-5])
    truth, random, held = bowl(), np.random.default_rng(0), []
    best = truth.optimum()
    for _ in range(150):
        response = almr.respond(r, lr, truth.loss(r, lr) + random.normal(0, 0.003, len(r)))
        assert response.inside
        held.append(response.share[0] <= best[0] <= response.share[1])
    assert 0.84 <= np.mean(held) <= 0.96


def test_a_sweep_without_a_sure_minimum_gives_no_interval():
    r, lr = crossed([0.1, 0.3, 0.5, 0.7], [3e-6, 1e-5, 3e-5])
    noisy = bowl().loss(r, lr) + np.random.default_rng(0).normal(0, 0.1, len(r))
    response = almr.respond(r, lr, noisy)
    assert response.share is None
    assert response.bowls < 0.95
    dome = bowl()._replace(brr=-0.6)
    assert dome.optimum() is None
    with pytest.raises(ConfigError, match="widen the sweep"):
        dome.ridge(1e-5)
    far = bowl()._replace(br=-2.0)
    assert not almr.respond(r, lr, far.loss(r, lr)).inside


@pytest.mark.parametrize(
    ("r", "lr", "letter"),
    [
        ([0.1, 0.3, 0.5] * 2, [1e-5] * 3 + [3e-5] * 3, "leave nothing to judge the noise"),
        ([0.1, 0.3, 0.5, 0.7] * 2, [1e-5] * 4 + [3e-5] * 4, "do not span a quadratic"),
        ([10, 30, 50, 70] * 2, [1e-5] * 4 + [3e-5] * 4, "shares must lie in 0..1"),
    ],
)
def test_a_sweep_that_cannot_carry_a_surface_is_refused(r, lr, letter):
    with pytest.raises(ConfigError, match=letter):
        almr.respond(r, lr, np.linspace(2, 3, len(r)))
