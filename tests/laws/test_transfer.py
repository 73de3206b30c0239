"""A new domain's law from its probe, on planted domains."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from ratoon.config import ConfigError
from ratoon.laws.design.foresight import scatter
from ratoon.laws.design.transfer import Domain, transfer
from ratoon.laws.equations.crossdomain import CrossDomain
from ratoon.laws.fitting.runs import Runs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TRUTH = CrossDomain(E=1.2, A=0.05, a=0.34, B=0.02, n=0.6, b=0.4, C=0.15, e=0.05, c=0.4, F=0.8, m=1.2, w1=1.6, w2=3.0)
SIZES, RATIOS, TOKENS = (5e8, 1.8e9, 4e9), (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 1.0), (2e8, 1e9, 5e9, 2e10)
# Six domains: loss at the start of a run, and how fast it falls at first, nats per billion tokens.
FEATURES = {
    "code": (1.3, 0.30), "law": (2.0, 0.22), "math": (1.6, 0.16), "music": (2.7, 0.12), "medical": (2.2, 0.26),
    "chemistry": (1.8, 0.11),
}  # fmt: skip
PERCENT = np.array([0.5e7, 1e7, 1.5e7, 2e7])  # one percent of two billion tokens


def swept(name, noise=0.0, seed=0):
    k1, k2 = FEATURES[name]
    N, D, r = np.array(list(itertools.product(SIZES, TOKENS, RATIOS))).T
    random = np.random.default_rng([seed, len(name)])
    loss = TRUTH.loss(N, D, r, k1, k2) * (1 + noise * random.normal(size=len(N)))
    return Domain(name, Runs.of(N, D, r, loss), *probe(name))


def probe(name):
    k1, k2 = FEATURES[name]
    return PERCENT, k1 - k2 * (PERCENT - PERCENT[0]) / 1e9


KNOWN = ("code", "law", "math", "music")


@pytest.mark.parametrize("name", ["medical", "chemistry"])
def test_a_domain_nobody_swept_is_foreseen_from_one_percent_of_a_run(name):
    found = transfer([swept(one, noise=0.003) for one in KNOWN], *probe(name))
    new = swept(name).runs
    away = np.abs(found.loss(new.params, new.tokens, new.own) / new.loss - 1)
    assert np.median(away) < 0.01
    assert away.max() < 0.03
    assert found.unseen_error < 0.1
    domains_alike = np.mean([swept(one).runs.loss for one in KNOWN], axis=0)
    assert np.median(away) < np.median(np.abs(domains_alike / new.loss - 1)) / 3


def test_a_level_no_probe_tells_is_learnt_from_a_few_short_runs():
    known = [swept(one, noise=0.003) for one in KNOWN]
    new = swept("medical").runs
    moved = Runs(new.inputs, new.loss + 0.1, new.weights)
    short = moved.where((moved.params == SIZES[0]) & (moved.tokens == TOKENS[0]))
    spent = float((short.params * short.tokens).sum() / (new.params * new.tokens).sum())
    assert spent < 0.01
    blind, told = transfer(known, *probe("medical")), transfer(known, *probe("medical"), few=short)
    errors = [np.median(np.abs(one.loss(new.params, new.tokens, new.own) / moved.loss - 1)) for one in (blind, told)]
    assert blind.level == 0
    assert errors[1] < errors[0] / 2


def test_two_domains_are_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"2 swept domains \(code, law\) cannot show how domains differ; sweep 3"):
        transfer([swept("code"), swept("law")], *probe("music"))


# ---------------------------------------------------------------- how sure


def test_an_interval_holds_a_domain_that_has_a_level_of_its_own_and_narrows_once_its_runs_tell_it():
    """One percent to either side of what the probe tells: five known domains leave one degree of freedom to learn that
    from, so the interval is wide, and a few short runs of the domain itself are worth more than all of them."""
    random = np.random.default_rng(1)
    levels = dict(zip(FEATURES, random.normal(0, 0.01, len(FEATURES)), strict=True))

    def own(name, seed):
        one = swept(name, noise=0.001, seed=seed)
        runs = Runs(one.runs.inputs, one.runs.loss * np.exp(levels[name]), one.runs.weights)
        return Domain(name, runs, one.probe_tokens, one.probe_losses)

    known = [own(name, 0) for name in (*KNOWN, "chemistry")]
    new = own("medical", 1).runs
    short = new.where((new.params == SIZES[0]) & (new.tokens == TOKENS[0]))
    blind, told = transfer(known, *probe("medical")), transfer(known, *probe("medical"), few=short)
    for N, D, r in ((4e9, 2e10, 0.2), (4e9, 2e10, 0.8)):
        truth = float(TRUTH.loss(N, D, r, *FEATURES["medical"]) * np.exp(levels["medical"]))
        wide, narrow = blind.interval(N, D, r), told.interval(N, D, r)
        assert wide.low <= truth <= wide.high
        assert narrow.low <= truth <= narrow.high
        assert narrow.high - narrow.low < (wide.high - wide.low) / 3
    assert blind.draws(4e9, 2e10, [0.2, 0.8]).shape == (400, 2)


def test_three_domains_leave_nothing_to_learn_an_interval_from_and_none_is_told():
    found = transfer([swept(name) for name in KNOWN[:3]], *probe("music"))
    assert found.interval(4e9, 2e10, 0.5) is None
    assert found.draws(4e9, 2e10, 0.5) is None


def test_a_noisy_probe_widens_the_interval():
    known = [swept(name, noise=0.001) for name in (*KNOWN, "chemistry")]
    tokens = np.linspace(PERCENT[0], 50 * PERCENT[0], 20)
    k1, k2 = FEATURES["medical"]
    exact = k1 - k2 * (tokens - tokens[0]) / 1e9
    rough = exact * (1 + 1e-3 * np.random.default_rng(0).normal(size=20))
    widths = []
    for losses in (exact, rough):
        found = transfer(known, tokens, losses)
        widths.append(np.std(found.foresight.features[:, 1]))
        assert found.foresight.features[:, 1].min() > 0
    assert widths[1] > 5 * widths[0]


def test_probes_that_are_straight_lines_show_their_noise_and_two_losses_show_none():
    random = np.random.default_rng(0)
    tokens = np.linspace(1e6, 1e8, 50)
    lines = [(tokens, (2 - 0.3 * tokens / 1e9) * (1 + 1e-3 * random.normal(size=50))) for _ in range(6)]
    assert scatter(lines) == pytest.approx(1e-3, rel=0.15)
    assert scatter([(tokens[:2], np.array([2.0, 1.9]))]) is None


@pytest.mark.slow
@pytest.mark.parametrize("known", [5, 8])
def test_of_new_domains_drawn_anew_ninety_percent_intervals_hold_most(known):
    """benchmarks/laws_transfer.py is the large simulation. 20 studies tell 90% from 60%."""
    spec = importlib.util.spec_from_file_location("laws_transfer", BENCHMARKS / "laws_transfer.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    quads = np.stack([made.study(known, 0.005, False, seed)[0] for seed in range(20)])
    truth, _, low, high = np.moveaxis(quads, 2, 0)
    assert ((low <= truth) & (truth <= high)).mean() >= 0.75
