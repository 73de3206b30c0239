"""Intervals, against planted truths, classical references and one published experiment."""

import csv
import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from ratoon.config import ConfigError
from ratoon.laws.decision.believe import crossing
from ratoon.laws.equations import cmr, dcpt, mixing, warm
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.objective import SQUARES, Objective
from ratoon.laws.fitting.runs import Runs
from ratoon.laws.form import Form, Settled
from ratoon.laws.intervals.bend import Bend
from ratoon.laws.intervals.chance import criticals, variance
from ratoon.laws.intervals.forecast import bootstrap, forecast
from ratoon.laws.intervals.known import differences, repeated
from ratoon.laws.intervals.lanes import Lanes
from ratoon.laws.intervals.noise import Noise, learn
from ratoon.laws.intervals.profile import profile
from ratoon.laws.intervals.simulate import noise_of
from ratoon.laws.intervals.valley import Valley

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared" / "published"
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not beside this checkout")

SIZE, LENGTHS, TARGET = 160_000.0, (5e4, 1e5, 2e5, 4e5), 1.2e6
SHARES = np.linspace(0.01, 0.99, 99)
RIGHT = 0.6  # r*, domain share
TRUTH = cmr.CMR(beta0=2.9, beta1=0.012, alpha0=-0.5, alpha1=0.025, s=0.4, p=-0.25)


class Line(NamedTuple):
    a: float
    b: float

    def loss(self, x):
        return self.a + self.b * np.asarray(x)


LINE = Form(
    name="line",
    inputs=("x",),
    linear=("a", "b"),
    exponents={},
    frame=lambda inputs, reach: None,
    columns=lambda theta, inputs, frame: np.tile(np.stack([inputs["x"] ** 0, inputs["x"]], axis=1), (len(theta), 1, 1)),
    build=lambda theta, coefficients, frame: Line(*(float(x) for x in coefficients)),
    free=frozenset({"a", "b"}),
)


def sweep(lengths=LENGTHS, shares=(0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85)):
    """One size, as (inputs, groups)."""
    D, share = (axis.ravel() for axis in np.meshgrid(lengths, shares, indexing="ij"))
    return {"N": np.full(len(D), SIZE), "D": D, "r": 1 - share}, [f"{x:g}" for x in share]


def measure(exact, groups, seed, luck=0.002, noise=0.002):
    random = np.random.default_rng(seed)
    _, member = np.unique(groups, return_inverse=True)
    return exact + random.normal(0, luck, member.max() + 1)[member] + random.normal(0, noise, len(exact))


def study(form, truth, seed, replicates=200, **how):
    """(truth, low, high) of the loss at r* and of r* after three times the longest run."""
    inputs, groups = sweep()
    losses = measure(truth.loss(**inputs), groups, seed, **how)
    fitted = fit(form, inputs, losses, reach={"D": TARGET}, seed=seed)
    drawn = forecast(fitted, Runs.gather(inputs, losses), groups, tokens=TARGET, replicates=replicates, seed=seed)
    ceiling = float(truth.loss(SIZE, TARGET, 1 - RIGHT))
    at = np.quantile(drawn.draws(SIZE, TARGET, 1 - RIGHT)[:, 0], [0.05, 0.95])
    found = np.quantile(crossing(SHARES, drawn.draws(SIZE, TARGET, 1 - SHARES), ceiling), [0.05, 0.95])
    return (ceiling, *at), (RIGHT, *found)


def covered(triples):
    truth, low, high = np.array(triples).T
    return float(((low <= truth) & (truth <= high)).mean())


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of 40 studies nine tenths are 36; from 31 to 40 is all but one in 200 of a method that is right.
    benchmarks/laws_coverage.py is the large simulation."""
    studies = [study(cmr.FORM, TRUTH, seed) for seed in range(40)]
    losses, shares = zip(*studies, strict=True)
    assert covered(losses) >= 31 / 40
    assert covered(shares) >= 31 / 40
    # Not by being wide: an interval that always holds the truth is no wider than the spread of estimates asks.
    spread = np.std([(low + high) / 2 for _, low, high in shares])
    assert np.median([high - low for _, low, high in shares]) <= 1.6 * 2 * 1.645 * spread


WARM = warm.Warm(beta0=3.0, beta1=0.004, alpha0=-0.6, alpha1=0.002, s=0.3, t=0.6, D0=0.0002)
DCPT = dcpt.DCPT(E=2.6, A=0.0, a=0.34, B=0.002, n=0.8, b=0.4, C=0.3, e=0.1, c=0.4)


def simulations():
    spec = importlib.util.spec_from_file_location("laws_coverage", ROOT / "benchmarks" / "laws_coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_of_laws_drawn_anew_for_every_study_ninety_percent_intervals_hold_87_to_93():
    """What 90% promises: over laws, noise and luck as they may be. Of one law it may be more (below), or less. 360
    studies tell 90% from 86% or 94%, a cell's 60 from 80% or 98%."""
    made, losses, shares = simulations(), [], []
    for name, grid in itertools.product(made.FORMS, made.GRIDS.values()):
        found = [made.own_form(name, grid, seed) for seed in range(1, 81) if seed % made.PROFILED]
        losses.append(np.array([one.loss for one in found]))
        shares.append(np.array([one.share for one in found]))
    for cells in (losses, shares):
        every = np.concatenate(cells)
        assert 0.87 <= inside(every) <= 0.93
        assert abs(made.bias(every)) < 0.15  # of the spread; two standard errors
        for cell in cells:
            likely = stats.binom(len(cell), 0.87).ppf(0.002), stats.binom(len(cell), 0.93).ppf(0.998)
            assert likely[0] <= inside(cell) * len(cell) <= likely[1]


def inside(quads):
    """Of (S, 4) truth, estimate, low, high."""
    return covered(quads[:, [0, 2, 3]])


@pytest.mark.slow
@pytest.mark.parametrize("luck", [0.0, 0.004])
@pytest.mark.parametrize(("form", "truth"), [(cmr.FORM, TRUTH), (dcpt.FORM, DCPT)], ids=["cmr", "dcpt"])
def test_what_one_law_lacks_of_what_might_have_been_makes_its_intervals_wide_and_never_short(form, truth, luck):
    """An interval that is right nine times in ten over all laws and noises is right more often at those that are
    easier than most: here measurements do not correlate along a run, the law does not bend away, and luck is none or
    twice the noise, and no study can know it. So the bound is one of coverage below, and of width above."""
    for found in zip(*(study(form, truth, seed, luck=luck) for seed in range(150)), strict=True):
        assert covered(found) >= 0.87
        middles = [(low + high) / 2 for _, low, high in found]
        needed = np.ptp(np.quantile(middles, [0.05, 0.95]))  # were the noise known
        assert np.median([high - low for _, low, high in found]) <= 1.4 * needed


class Saturating(NamedTuple):
    """Pretraining that goes on and a shift that saturates: no law here has this form."""

    def loss(self, N, D, r):
        seen = np.asarray(D) / 1e5
        shift = 0.7 * (1 - (1 + 8 * seen) ** -0.25) * np.exp(-4.5 * np.asarray(r))
        return 2.2 + 2.05 * (16 + np.asarray(r) * seen) ** -0.1 + shift


def test_where_every_law_is_wrong_the_interval_is_wide_enough():
    losses, shares = zip(*(study(warm.FORM, Saturating(), seed) for seed in range(12)), strict=True)
    assert covered(losses) >= 8 / 12
    assert covered(shares) >= 8 / 12


# ---------------------------------------------------------------- against the textbook


def test_a_straight_line_has_students_interval():
    random = np.random.default_rng(0)
    x = np.linspace(0, 1, 12)
    y = 3 + 0.5 * x + random.normal(0, 0.01, 12)
    objective = Objective("raw", np.inf)
    fitted = fit(LINE, {"x": x}, y, objective=objective, hold_out=False)
    runs, groups = Runs.gather({"x": x}, y), [str(k) for k in range(12)]
    drawn = forecast(fitted, runs, groups, tokens=0.0, replicates=8000)
    theirs = stats.linregress(x, y)
    half = stats.t.ppf(0.95, 10) * theirs.stderr
    at = np.quantile(drawn.at({"x": np.array([0.0, 1.0])}) @ np.array([-1.0, 1.0]), [0.05, 0.5, 0.95])
    np.testing.assert_allclose(at, theirs.slope + half * np.array([-1, 0, 1]), atol=0.06 * half)
    slope = next(one for one in profile(fitted, runs, groups) if one.name == "b")
    np.testing.assert_allclose([slope.low, slope.high], theirs.slope + half * np.array([-1, 1]), atol=0.03 * half)
    assert slope.identified


def test_luck_and_measurement_are_told_apart():
    inputs, groups = sweep(lengths=np.geomspace(1e4, 4e5, 8), shares=np.linspace(0, 0.9, 40))
    losses = measure(TRUTH.loss(**inputs), groups, seed=3, luck=0.006, noise=0.002)
    fitted = fit(cmr.FORM, inputs, losses, hold_out=False)
    noise = noise_of(
        fitted, Runs.gather(inputs, losses), Lanes.of(groups, inputs), draws=400, random=np.random.default_rng(0)
    )
    mean = losses.mean()
    assert np.median(noise.luck) * mean == pytest.approx(0.006, rel=0.25)
    assert np.median(noise.measurement) * mean == pytest.approx(0.002, rel=0.1)
    assert (noise.memory == 0).mean() > 0.9
    assert (noise.bend == 0).mean() > 0.8


@pytest.mark.parametrize("lengths", [20, 80])
def test_many_checkpoints_of_few_runs_do_not_pass_for_luck(lengths):
    """Six parameters make up for nearly all that five runs may have of their own."""
    inputs, groups = sweep(np.linspace(1e8, 1e10, lengths), (0.1, 0.3, 0.5, 0.7, 0.9))
    inputs["N"] = np.full(len(groups), 1e9)
    truth = dcpt.DCPT(E=1.9, A=0.0, a=0.3, B=0.05, n=1.2, b=0.25, C=0.25, e=0.08, c=0.35)
    exact = truth.loss(**inputs)
    losses = exact * np.exp(np.random.default_rng(0).normal(0, 0.001, len(exact)))
    fitted = fit(dcpt.FORM, inputs, losses, reach={"D": 1e10}, seed=0)
    runs = Runs.gather(inputs, losses)
    noise = noise_of(fitted, runs, Lanes.of(groups, runs.inputs), draws=200, random=np.random.default_rng(0))
    assert np.median(noise.measurement) == pytest.approx(0.001, rel=0.15)
    assert np.median(noise.luck) < 0.002


def test_one_broken_run_does_not_pass_for_the_noise_of_all():
    random = np.random.default_rng(5)
    residual = random.normal(0, 0.001, 60)
    lanes = Lanes.of([str(k) for k in range(60)], {"x": residual})
    design, none = np.ones((60, 1)), np.empty((60, 0))
    calm = learn(residual, design, none, lanes, draws=400, random=random)
    broken = learn(np.append(residual[:-1], 0.2), design, none, lanes, draws=400, random=random)
    assert np.median(broken.measurement) < 1.25 * np.median(calm.measurement)


def test_the_same_checkpoint_seen_five_times_makes_no_interval_narrower():
    inputs, groups = sweep()
    losses = measure(TRUTH.loss(**inputs), groups, seed=1)
    widths = []
    for times in (1, 5):
        again = {name: np.tile(values, times) for name, values in inputs.items()}
        fitted = fit(cmr.FORM, again, np.tile(losses, times), hold_out=False)
        runs = Runs.gather(again, np.tile(losses, times))
        drawn = forecast(fitted, runs, groups * times, tokens=TARGET).draws(SIZE, TARGET, 0.5)
        widths.append(np.ptp(np.quantile(drawn, [0.05, 0.95])))
    assert widths[1] > 0.8 * widths[0]


def test_runs_of_one_group_are_resampled_together():
    inputs, groups = sweep()
    losses = measure(TRUTH.loss(**inputs), groups, seed=1)
    runs, fitted = Runs.gather(inputs, losses), fit(cmr.FORM, inputs, losses, hold_out=False)
    one = bootstrap(fitted, runs, ["a"] * len(losses), way="runs", replicates=50)
    np.testing.assert_allclose(one.theta, np.broadcast_to(fitted.theta, one.theta.shape), rtol=1e-3)
    many = bootstrap(fitted, runs, groups, way="runs", replicates=50)
    assert many.theta.std(axis=0).max() > 1e-2


# ---------------------------------------------------------------- noise that needs no law


def test_second_differences_find_the_noise_and_not_the_curve_or_the_luck():
    random = np.random.default_rng(2)
    steps, runs = np.arange(1.0, 41.0), np.arange(20)
    curve = 3 + 0.2 * np.exp(-steps / 20)
    losses = curve + random.normal(0, 0.05, (20, 1)) + random.normal(0, 0.003, (20, 40))
    found = differences(np.tile(steps, 20), losses.ravel(), [str(x) for x in np.repeat(runs, 40)])
    assert found.value * 3 == pytest.approx(0.003, rel=0.1)
    assert 100 < found.degrees < 200
    with pytest.raises(ConfigError, match="no run has three checkpoints"):
        differences([1, 2, 1, 2], [3, 3.1, 3, 3.1], ["a", "a", "b", "b"])


def test_repeated_seeds_tell_the_noise_where_the_law_does_not():
    """A kink no smooth law has would pass for luck; between seeds it does not show."""
    inputs, groups = sweep()
    again = {name: np.tile(values, 2) for name, values in inputs.items()}
    seeds = [f"{name}-{seed}" for seed in (0, 1) for name in groups]
    exact = TRUTH.loss(**again) + np.where(again["r"] > 0.6, 0.02, 0.0)
    losses = measure(exact, seeds, seed=4, luck=0.001, noise=0.001)
    lanes, runs = Lanes.of(seeds, again), Runs.gather(again, losses)
    fitted = fit(cmr.FORM, again, losses, hold_out=False)
    noise = noise_of(fitted, runs, lanes, draws=400, random=np.random.default_rng(0))
    assert noise.said == "repeated runs"
    assert np.median(noise.luck) * 3.2 < 0.003
    once = Runs.gather(inputs, losses[: len(groups)])
    alone = noise_of(fitted, once, Lanes.of(groups, inputs), draws=400, random=np.random.default_rng(0))
    assert np.median(alone.luck) * 3.2 > 0.004
    assert repeated(inputs, Lanes.of(groups, inputs)) is None


def test_seeds_whose_shares_were_realised_repeat_each_other():
    inputs, groups = sweep()
    again = {name: np.tile(values, 2) for name, values in inputs.items()}
    lanes = Lanes.of([f"{name}-{seed}" for seed in (0, 1) for name in groups], again)
    realised = {**again, "r": again["r"] + 1e-4 * again["r"] * np.repeat([0, 1], len(groups))}
    assert np.array_equal(repeated(realised, lanes), repeated(again, lanes))


# ---------------------------------------------------------------- profile likelihood


def test_a_parameter_the_runs_pin_has_a_closed_profile_that_holds_it():
    inputs, groups = sweep(shares=np.linspace(0, 0.9, 10))
    losses = measure(TRUTH.loss(**inputs), groups, seed=8, luck=0.001, noise=0.001)
    fitted = fit(cmr.FORM, inputs, losses, hold_out=False)
    found = {one.name: one for one in profile(fitted, Runs.gather(inputs, losses), groups, confidence=0.99)}
    assert set(found) == set(TRUTH._fields)
    for name, value in TRUTH._asdict().items():
        assert found[name].identified, name
        assert found[name].low <= value <= found[name].high, name


def test_a_parameter_that_others_make_up_for_does_not_close_and_those_that_lean_on_it_say_so():
    inputs, groups = sweep()
    losses = measure(WARM.loss(**inputs), groups, seed=0, noise=0.005)
    fitted = fit(warm.FORM, inputs, losses, hold_out=False)
    found = {one.name: one for one in profile(fitted, Runs.gather(inputs, losses), groups)}
    assert not found["t"].identified
    assert found["t"][2:4] == pytest.approx((0.1, 1.5))
    assert found["s"].identified
    assert found["s"].low <= WARM.s <= found["s"].high
    assert "t" in found["beta0"].leans_on
    assert not found["beta0"].identified
    with pytest.raises(ConfigError, match="'a' is no parameter that was fitted"):
        profile(fitted, Runs.gather(inputs, losses), groups, names=["a"])


def test_a_profile_is_the_line_of_least_squares_it_says_it_is():
    """Held at the ends of its interval a parameter costs what chance would: checked by a fit of its own."""
    inputs, groups = sweep()
    losses = measure(TRUTH.loss(**inputs), groups, seed=2, luck=0.0, noise=0.002)
    singles = [f"{name}-{k}" for k, name in enumerate(groups)]  # every measurement its own run: no luck to share
    fitted = fit(cmr.FORM, inputs, losses, objective=SQUARES, hold_out=False)
    runs = Runs.gather(inputs, losses)
    found = profile(fitted, runs, singles, names=["s"])[0]
    degrees = len(losses) - 6
    best = ((fitted.predict(inputs) / losses - 1) ** 2).sum()
    for end in (found.low, found.high):
        held = replace(cmr.FORM, settle=lambda _, end=end: Settled(exponents={"s": end}))
        other = fit(held, inputs, losses, objective=SQUARES, hold_out=False)
        rise = ((other.predict(inputs) / losses - 1) ** 2).sum() / best - 1
        assert np.sqrt(rise * degrees) == pytest.approx(stats.t.ppf(0.95, degrees), rel=0.05)


def test_chance_moves_a_parameter_by_the_noise_it_is_made_of_and_no_other():
    """A level told by six trunks feels their luck, a slope along their checkpoints does not: where luck may be none or
    twice the noise and the noise is known, the level alone has a longer way to go."""
    x = np.tile(np.linspace(-1, 1, 4), 6)
    groups = [str(k // 4) for k in range(24)]
    y = 3 + 0.5 * x + np.random.default_rng(4).normal(0, 0.01, 24)
    fitted = fit(LINE, {"x": x}, y, objective=Objective("raw", np.inf), hold_out=False)
    lanes, still, luck = Lanes.of(groups, {"x": x}), np.zeros(400), np.repeat([0.0, 0.02], 200)
    noise = Noise(luck, np.full(400, 0.01), still, still, 1.0, "")
    one = Noise(np.zeros(1), np.full(1, 0.01), np.zeros(1), np.zeros(1), 1.0, "")
    valley = Valley(fitted, Runs.gather({"x": x}, y), lanes, one)
    level, slope = criticals(valley, valley.held, noise, lanes, 0.9)
    assert [one.name for one in valley.held] == ["a", "b"]
    assert slope == pytest.approx(stats.norm.ppf(0.95), rel=0.01)
    # Half of the draws are sqrt(1 + 4 x 2^2) times as wide: 80% of those and all but none of the others lie inside.
    assert level == pytest.approx(np.sqrt(17) * stats.norm.ppf(0.9), rel=0.02)


def test_what_a_sum_of_measurements_varies_by_is_that_of_drawn_noise():
    lanes = Lanes.of(["a"] * 3 + ["b"] * 2, {"D": np.array([1.0, 2, 3, 1, 2])})
    one = Noise(np.array([0.5]), np.array([1.0]), np.array([0.5]), np.zeros(1), 1.0, "")
    weights = np.array([1.0, -2.0, 0.5, 1.0, 1.0])
    many = one.take(np.zeros(40_000, dtype=int))
    drawn = many.draw(lanes, np.random.default_rng(0)) @ weights
    assert variance(one, lanes, weights)[0] == pytest.approx(np.var(drawn), rel=0.03)


# ---------------------------------------------------------------- resampled runs


def test_resampled_runs_vary_as_leaving_each_out_in_turn_says():
    """A line asked half beyond its runs leans on the outermost, whose luck shows least: the jackknife (HC3) knows, and
    weights of one spread for all fall 0.16 short of it here."""
    x, groups, there = np.linspace(0, 1, 20), [str(k) for k in range(20)], {"x": np.array([1.5])}
    found = []
    for seed in range(4):
        y = 3 + 0.01 * np.random.default_rng(seed).normal(size=20)
        fitted = fit(LINE, {"x": x}, y, objective=Objective("raw", np.inf), hold_out=False)
        drawn = bootstrap(fitted, Runs.gather({"x": x}, y), groups, replicates=3000, way="runs").at(there)
        without = [np.polyval(np.polyfit(np.delete(x, k), np.delete(y, k), 1), 1.5) for k in range(20)]
        found.append(drawn.std() / np.sqrt(((np.array(without) - fitted.predict(there)) ** 2).sum()))
    assert np.mean(found) == pytest.approx(1.0, abs=0.07)
    assert min(found) > 0.86


# ---------------------------------------------------------------- misfit


def test_a_held_out_error_that_is_noise_is_no_misfit():
    inputs, groups = sweep()
    seen = []
    for seed in range(6):
        losses = measure(TRUTH.loss(**inputs), groups, seed=seed, luck=0.004, noise=0.004)
        fitted = fit(cmr.FORM, inputs, losses)
        drawn = forecast(fitted, Runs.gather(inputs, losses), groups, tokens=TARGET, replicates=50)
        assert {one.name for one in drawn.excesses} == {"longest runs", "a ratio"}
        seen.append(drawn.misfit)
    assert np.median(seen) == 0
    assert max(seen) < max(split.rms for split in fitted.held_out)


def test_a_law_that_misses_a_ratio_shows_misfit():
    inputs, groups = sweep()
    exact = TRUTH.loss(**inputs) + 0.05 * np.isclose(inputs["r"], 0.6)
    losses = measure(exact, groups, seed=0, luck=0.0, noise=0.0005)
    twice = {name: np.tile(values, 2) for name, values in inputs.items()}
    again = np.concatenate([losses, measure(exact, groups, seed=1, luck=0.0, noise=0.0005)])
    fitted = fit(cmr.FORM, twice, again)
    seeds = [f"{name}-{seed}" for seed in (0, 1) for name in groups]
    drawn = forecast(fitted, Runs.gather(twice, again), seeds, tokens=TARGET, replicates=50)
    assert drawn.misfit > 0.003


def test_bends_are_squares_along_tokens_and_size_and_their_products():
    inputs = {"N": np.array([1e8, 1e9]), "D": np.array([1e9, 1e11]), "r": np.array([0.2, 0.8])}
    bend = Bend.of(inputs)
    middle = {"N": np.array([10**8.5]), "D": np.array([1e10]), "r": np.array([0.5])}
    assert bend.columns(inputs).shape == (2, bend.number) == (2, 11)
    np.testing.assert_allclose(bend.columns(middle), 0, atol=1e-12)
    assert Bend.of({"h": np.eye(3)}).number == 0
    assert Bend.of({"N": np.array([1e9, 1e9]), "D": np.array([1e9, 1e9]), "r": np.array([0.2, 0.8])}).number == 0


# ---------------------------------------------------------------- bad cases


def test_exact_losses_have_intervals_of_no_width():
    inputs, groups = sweep()
    losses = TRUTH.loss(**inputs)
    fitted = fit(cmr.FORM, inputs, losses, reach={"D": TARGET})
    drawn = forecast(fitted, Runs.gather(inputs, losses), groups, tokens=TARGET, replicates=50)
    losses_there = drawn.draws(SIZE, TARGET, [0.2, 0.6])
    assert np.isfinite(losses_there).all()
    assert np.ptp(losses_there, axis=0).max() < 1e-4
    assert all(one.identified for one in profile(fitted, Runs.gather(inputs, losses), groups))


@pytest.mark.parametrize("lanes", ["one", "three", "own"])
def test_few_groups_and_many_give_finite_draws(lanes):
    inputs, groups = sweep()
    losses = measure(TRUTH.loss(**inputs), groups, seed=0)
    named = {"one": ["a"] * len(groups), "three": [str(k % 3) for k in range(len(groups))], "own": range(len(groups))}
    names = [str(x) for x in named[lanes]]
    fitted = fit(cmr.FORM, inputs, losses, reach={"D": TARGET})
    drawn = forecast(fitted, Runs.gather(inputs, losses), names, tokens=TARGET, replicates=100)
    found = drawn.draws(SIZE, TARGET, [0.2, 0.6])
    assert np.isfinite(found).all()
    assert np.ptp(found, axis=0).min() > 1e-3
    assert all(np.isfinite(one[1:4]).all() for one in profile(fitted, Runs.gather(inputs, losses), names))


def test_as_many_parameters_as_observations_leave_the_noise_unknown_and_say_so():
    inputs, groups = sweep(lengths=(4e5,), shares=(0.1, 0.4, 0.7))
    losses = measure(TRUTH.loss(**inputs), groups, seed=0)
    fitted = fit(cmr.FORM, inputs, losses)
    drawn = forecast(fitted, Runs.gather(inputs, losses), groups, tokens=4e5, replicates=400)
    assert "as many parameters as observations: 0.2%" in drawn.said
    assert drawn.draws(SIZE, 4e5, 0.6).std() == pytest.approx(0.002 * losses.mean(), rel=0.2)


def test_the_same_question_gets_the_same_draws():
    inputs, groups = sweep()
    losses = measure(TRUTH.loss(**inputs), groups, seed=0)
    fitted, runs = fit(cmr.FORM, inputs, losses), Runs.gather(inputs, losses)
    one, two = (forecast(fitted, runs, groups, tokens=TARGET, replicates=50, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.draws(SIZE, TARGET, 0.5), two.draws(SIZE, TARGET, 0.5))
    assert one.draws(SIZE, [TARGET, 5e5], [0.5, 0.6]).shape == (50, 2)
    np.testing.assert_allclose(
        one.draws(SIZE, TARGET, [0.2, 0.5])[:, 1], one.draws(SIZE, TARGET, 0.5)[:, 0], rtol=1e-12
    )


# ---------------------------------------------------------------- published runs


@published
def test_four_published_runs_give_the_critical_share_of_their_paper_and_how_sure_it_is():
    """arXiv:2403.16952, Pythia-70M on Pile and Python after 10,000 steps: 0.2862 printed, and the run at 0.28516 was
    just under the base model's loss. Four runs cannot be resampled: their noise is learnt from how far checkpoints lie
    off the line between their neighbours, and from the one degree of freedom that four runs leave three parameters.
    The law is the paper's own."""
    with (PUBLISHED / "dml_ct_pythia70m.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (PUBLISHED / "dml_ct_base.csv").open() as file:
        base = float(next(csv.DictReader(file))["general_loss"])
    pile, steps, losses = (np.array([float(row[key]) for row in rows])
                           for key in ("general_proportion", "step", "general_loss"))  # fmt: skip
    groups = [f"{x:g}" for x in pile]
    known = differences(steps, losses, groups)
    last = steps == 10_000
    inputs = {"h": np.stack([pile, 1 - pile], axis=1)[last]}
    fitted = fit(mixing.form(("pile", "python")), inputs, losses[last], objective=Objective("raw", 0.02))
    runs = Runs.gather(inputs, losses[last])
    own = [name for name, at in zip(groups, last, strict=True) if at]
    drawn = forecast(fitted, runs, own, tokens=0.0, known=known, replicates=2000)
    python = np.linspace(0.5, 0.95, 901)
    curves = drawn.at({"h": np.stack([1 - python, python], axis=1)})
    best = 1 - crossing(python, fitted.predict({"h": np.stack([1 - python, python], axis=1)})[None], base)[0]
    low, high = np.quantile(1 - crossing(python, curves, base), [0.05, 0.95])
    assert 0.278 <= best <= 0.290
    assert low <= 0.280
    assert high >= 0.285
    assert high - low < 0.03
    assert "second differences along checkpoints" in drawn.said
