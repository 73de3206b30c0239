"""The engine that fits every law: what it reaches, what it says of itself, and what it refuses."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from ratoon.config import ConfigError
from ratoon.laws.equations import chinchilla, dcpt, injection
from ratoon.laws.fitting.fit import fit
from ratoon.laws.fitting.folds import leave_out
from ratoon.laws.fitting.objective import ABSOLUTE, HUBER, SQUARES, Objective
from ratoon.laws.fitting.pin import would_pin

TRUTH = chinchilla.Chinchilla(E=1.8, A=0.36, a=0.35, B=1.06, b=0.37)


def scattered(n=60, noise=0.01, seed=0, line=False):
    random = np.random.default_rng(seed)
    N = np.exp(random.uniform(np.log(5e7), np.log(1e10), n))
    D = 20 * N * np.exp(random.normal(0, 0.15, n)) if line else np.exp(random.uniform(np.log(1e9), np.log(1e11), n))
    return {"N": N, "D": D}, TRUTH.loss(N, D) * np.exp(random.standard_t(3, n) * noise)


@pytest.mark.parametrize("objective", [HUBER, SQUARES, ABSOLUTE, Objective("raw", 0.02)], ids=str)
def test_no_other_search_finds_a_lower_objective(objective):
    inputs, loss = scattered()
    found = fit(chinchilla.FORM, inputs, loss, objective=objective, hold_out=False)

    def value(x):
        law = chinchilla.Chinchilla(*np.exp(x))
        return float(objective.value(law.loss(**inputs)[None], loss, np.ones((1, len(loss))))[0])

    best, x = np.inf, np.log(list(TRUTH))
    for _ in range(8):
        other = minimize(value, x, method="Nelder-Mead", options={"xatol": 1e-11, "fatol": 1e-18, "maxfev": 4000})
        best, x = min(best, other.fun), other.x
    assert found.objective <= best * (1 + 1e-6)
    assert found.converged
    assert found.agreement > 0.5


def test_standard_errors_are_those_of_many_samples():
    fits = [fit(chinchilla.FORM, *normal(seed), objective=SQUARES, hold_out=False) for seed in range(40)]
    for name in ("a", "b"):
        spread = np.std(np.log([found.params[name] for found in fits]))
        said = np.median([found.identification.errors[name] for found in fits])
        assert 0.7 < said / spread < 1.4, name


def normal(seed, noise=0.004):
    inputs, _ = scattered(seed=0)
    random = np.random.default_rng(100 + seed)
    return inputs, TRUTH.loss(**inputs) * np.exp(random.normal(0, noise, len(inputs["N"])))


def test_runs_along_one_line_leave_the_exponents_loose_and_a_run_off_it_is_proposed():
    inputs, loss = scattered(n=12, noise=0.01, line=True)
    found = fit(chinchilla.FORM, inputs, loss, hold_out=False)
    assert found.identification.loose
    assert found.identification.condition > 30
    pin = would_pin(found, inputs)
    assert pin is not None
    assert pin.after < 0.8 * pin.now
    assert abs(np.log(pin.inputs["D"] / (20 * pin.inputs["N"]))) > 0.5
    assert f"would pin {pin.parameter} best" in str(pin)


def test_a_run_that_was_proposed_pins_what_it_was_proposed_for():
    inputs, loss = scattered(n=12, noise=0.01, line=True)
    found = fit(chinchilla.FORM, inputs, loss, objective=SQUARES, hold_out=False)
    pin = would_pin(found, inputs)
    more = {name: np.append(inputs[name], pin.inputs[name]) for name in inputs}
    again = fit(chinchilla.FORM, more, np.append(loss, TRUTH.loss(**pin.inputs)), objective=SQUARES, hold_out=False)
    before, after = (one.identification.errors[pin.parameter] / one.identification.noise for one in (found, again))
    assert after < 0.8 * before


def test_a_well_spread_table_leaves_nothing_loose_and_asks_for_no_run():
    inputs, loss = scattered(n=200, noise=0.001)
    found = fit(chinchilla.FORM, inputs, loss, hold_out=False)
    assert found.identification.loose == ()
    assert would_pin(found, inputs) is None
    assert found.identification.noise == pytest.approx(0.001 * np.sqrt(3), rel=0.5)


def test_a_run_that_is_asked_for_can_be_made():
    N, D, p = np.array(list(itertools.product([1e8, 4e8], [1e6, 1e7], [0, 0.3, 0.6]))).T
    inputs = {"N": N, "D": D, "p": p, "L0": np.full(12, 2.3)}
    for seed in range(6):
        noise = 1 + 0.2 * np.random.default_rng(seed).normal(size=12)
        loss = 2.3 + 0.9 * (D / 1e9) ** 0.3 * ((1 + 5 * p) * N / 1e9) ** -0.4 * noise
        if pin := would_pin(fit(injection.FORM, inputs, loss, hold_out=False), inputs):
            assert pin.inputs["p"] <= 1  # a share
            assert pin.inputs["L0"] == 2.3  # what the parent had


def test_weights_count_as_repeats_would():
    inputs, loss = scattered(n=20)
    weights = np.where(np.arange(20) < 5, 3.0, 1.0)
    weighted = fit(chinchilla.FORM, inputs, loss, weights=weights, hold_out=False)
    times = np.repeat(np.arange(20), weights.astype(int))
    repeated = fit(chinchilla.FORM, {k: v[times] for k, v in inputs.items()}, loss[times], hold_out=False)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "letter"),
    [
        (np.zeros(20), r"observation 1 counts 0, 20 of 20 are no finite numbers above 0"),
        (np.where(np.arange(20) == 4, -1.0, 1.0), r"observation 5 counts -1, 1 of 20"),
        (np.where(np.arange(20) == 4, np.nan, 1.0), r"observation 5 counts nan"),
        (np.ones(19), r"weights have shape \(19,\) and loss has 20 values"),
    ],
)
def test_weights_that_are_none_are_refused(weights, letter):
    inputs, loss = scattered(n=20)
    with pytest.raises(ConfigError, match=letter):
        fit(chinchilla.FORM, inputs, loss, weights=weights, hold_out=False)


def test_repeats_do_not_make_up_for_points():
    N, D = np.repeat([1e9, 2e9, 4e9], 4), np.repeat([2e10, 4e10, 8e10], 4)
    loss = TRUTH.loss(N, D) + np.random.default_rng(0).normal(0, 0.01, 12)
    with pytest.raises(ConfigError, match=r"12 observations at 3 different points cannot pin its \d free parameters"):
        fit(dcpt.FORM, {"N": N, "D": D, "r": np.tile([0.1, 0.5, 0.9], 4)[np.repeat([0, 1, 2], 4)]}, loss)


def test_a_law_that_rises_where_it_must_fall_is_refused():
    inputs, loss = scattered()
    rising = chinchilla.FORM.__class__(
        **{
            **{field: getattr(chinchilla.FORM, field) for field in chinchilla.FORM.__dataclass_fields__},
            "free": frozenset({"A", "B"}),
        }
    )
    with pytest.raises(ConfigError, match="lets loss rise with N"):
        fit(rising, {"N": 1e18 / inputs["N"], "D": inputs["D"]}, loss, hold_out=False)


def test_inputs_of_another_length_and_missing_ones_are_refused():
    inputs, loss = scattered(n=10)
    with pytest.raises(ConfigError, match="D has 9 values and loss 10"):
        fit(chinchilla.FORM, {"N": inputs["N"], "D": inputs["D"][:9]}, loss)
    with pytest.raises(ConfigError, match="no D among the inputs"):
        fit(chinchilla.FORM, {"N": inputs["N"]}, loss)


@pytest.mark.parametrize("off", [0.0, 1e-15, 1e-9, 1e-4])
def test_a_ratio_is_held_out_with_every_run_of_it_however_its_share_was_rounded(off):
    asked = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 4)
    recorded = asked + off * np.tile([-1, 0, 0.5, 1], 5)
    held = [fold.keep for fold in leave_out({"r": recorded}) if fold.name == "a ratio"]
    assert [keep.tolist() for keep in held] == [(asked != ratio).tolist() for ratio in (0.3, 0.5, 0.7)]


def test_a_mixture_is_held_out_with_every_run_of_it():
    mixtures = np.repeat(np.random.default_rng(0).dirichlet(np.ones(3), 6), 3, axis=0)
    rounded = mixtures * (1 + 1e-15 * np.random.default_rng(1).normal(size=mixtures.shape))
    assert [(~fold.keep).sum() for fold in leave_out({"h": rounded})] == [3] * 6
