"""Published rules for learning rate and batch, against what their sources say of them."""

import numpy as np
import pytest

from ratoon.laws.equations import hyper


def test_step_law_gives_its_published_rate_and_batch():
    """arXiv:2503.04715 at 1e9 parameters and 1e11 tokens."""
    assert float(hyper.step_learning_rate(1e9, 1e11)) == pytest.approx(1.63e-3, abs=5e-6)
    assert float(hyper.step_batch_tokens(1e11)) == pytest.approx(1.11e6, abs=5e3)


@pytest.mark.parametrize(
    ("exponent", "between"),
    [
        (hyper.STEP_ETA_PARAMS, hyper.STEP_ETA_PARAMS_RANGE),
        (hyper.STEP_ETA_TOKENS, hyper.STEP_ETA_TOKENS_RANGE),
        (hyper.STEP_BATCH_TOKENS, hyper.STEP_BATCH_TOKENS_RANGE),
    ],
)
def test_each_step_law_exponent_lies_in_its_bootstrap_range(exponent, between):
    assert between[0] < exponent < between[1]


def test_the_proxy_fit_of_the_power_scheduler_gives_its_published_rate():
    """arXiv:2408.13359: 10e12 tokens, 1024 sequences of 4096."""
    assert float(hyper.power_proxy_learning_rate(10e12, 1024 * 4096)) == pytest.approx(0.0011, abs=5e-5)


def test_the_power_scheduler_starts_at_its_peak_and_then_follows_its_power():
    batch = 1024 * 4096
    assert float(hyper.power_learning_rate(0.0, batch)) == 0.02
    early, late = hyper.power_learning_rate([1e9, 1e12], batch)
    assert early == 0.02
    assert late == pytest.approx(1024 * 4 * 1e12**-0.51, rel=1e-12)


def test_the_two_published_forms_of_the_power_scheduler_differ_by_their_factors_alone():
    tokens = np.geomspace(1e12, 1e14, 5)
    proxy, scheduled = (
        rule(tokens, 4096 * 64) for rule in (hyper.power_proxy_learning_rate, hyper.power_learning_rate)
    )
    np.testing.assert_allclose(proxy / scheduled, 4.6 / 4)


def test_the_minicpm_batch_follows_its_published_power():
    """arXiv:2404.06395."""
    one, three = hyper.minicpm_batch_tokens([1.0, 3.0])
    assert one == pytest.approx(1.21e9)
    assert np.log(one / three) / np.log(3.0) == pytest.approx(6.24)
