"""A new domain's law from its probe, on planted domains."""

import itertools

import numpy as np
import pytest

from ratoon.config import ConfigError
from ratoon.laws.design.transfer import Domain, transfer
from ratoon.laws.equations.crossdomain import CrossDomain
from ratoon.laws.fitting.runs import Runs

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
