"""Temperature, sweeps of changing mixtures, and letters about what cannot be read."""

import json
import math
import shutil

import pytest

from ratoon.config import ConfigError, Curriculum, MixtureConfig
from ratoon.corpus.packed import INDEX
from ratoon.training.group import branches, limited, run_group
from ratoon.training.run import Run, train
from ratoon.training.sweep import Corpus, Group, portions

STEPS, ROWS, LENGTH = 20, 8, 16


def test_shares_within_a_role_follow_the_temperature(tiny, tmp_path):
    small = tmp_path / "small"
    shutil.copytree(tiny / "general", small)
    raw = json.loads((small / INDEX).read_text())
    raw["totals"]["train"]["tokens"] //= 4
    (small / INDEX).write_text(json.dumps(raw))
    corpora = {
        "large": Corpus(rows=str(tiny / "general"), role="general"),
        "small": Corpus(rows=str(small), role="general"),
        "code": Corpus(rows=str(tiny / "domain"), role="domain"),
    }

    def ratio(temperature, weight=1.0):
        found = portions({**corpora, "small": corpora["small"].model_copy(update={"weight": weight})}, 0.2, temperature)
        assert sum(p.share for p in found.values()) == pytest.approx(1)
        assert found["code"].share == pytest.approx(0.2)
        return found["large"].share / found["small"].share

    assert ratio(1) == pytest.approx(4, rel=1e-3)
    assert ratio(2) == pytest.approx(2, rel=1e-3)
    assert ratio(1e9) == pytest.approx(1)
    assert ratio(None) == 1
    assert ratio(1, weight=2) == pytest.approx(2, rel=1e-3)
    assert MixtureConfig(temperature=math.inf).temperature is None


def test_a_sweep_trains_each_length_apart_where_what_is_read_follows_the_length(request_for):
    step = ROWS * LENGTH
    for mixture, shared in [
        ({}, True),
        ({"max_epochs": 50}, True),
        ({"phases": [{"until": 40 * LENGTH, "share": 0.1}]}, True),
        ({"phases": [{"until": 0.5, "share": 0.1}]}, False),
        ({"lengths": [{"until": 0.5, "row_tokens": 8}]}, False),
    ]:
        request = request_for(str(len(str(mixture))), mixture=mixture)
        group = Group(request=request, horizons=(10 * step, 20 * step), target_tokens=20 * step)
        assert branches(group) == shared
    found = {o.tokens: o.loss_nats for o in run_group(group) if o.finished and o.evaluated == "general"}
    alone = train(request_for("alone", tokens=10 * step, mixture=mixture, evaluations=1))
    assert found[10 * step] == [o.loss_nats for o in alone.observations if o.evaluated == "general"][-1]


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"curriculum": {"score": "good"}}, "no score 'good'; there are none yet"),
        ({"curriculum": {"score": "good", "sources": ["genera"]}}, "no source 'genera'; did you mean 'general'"),
        ({"lengths": [{"until": 0.5, "row_tokens": 5}]}, "5 does not divide the base's 16; allowed: 1, 2, 4"),
        ({"phases": [{"until": 0.01, "share": 0.5}]}, "each must end later than the one before"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_run(request_for, mixture, message):
    with pytest.raises(ConfigError, match=message):
        Run(request_for(mixture=mixture))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"order": "vanilla", "passes": 2}, "passes is of interleaved, not of vanilla, which takes no option"),
        ({"order": "paced", "share": 0.1}, "share is of warmup, not of paced, which takes pace, start, full"),
    ],
)
def test_an_option_of_another_order_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(score="good", **raw)


def test_a_proxy_repeats_text_as_often_as_the_phases_of_the_target_will(request_for):
    """Half of the run reads only the domain: its share over all is 0.65."""
    phases = [{"until": 0.5, "share": 1.0}]
    target, horizon = 10_000 * LENGTH, 1000 * LENGTH
    request = request_for(tokens=horizon, mixture={"phases": phases})
    group = Group(request=request, horizons=(horizon,), target_tokens=target)
    plain = Group(request=request_for(tokens=horizon), horizons=(horizon,), target_tokens=target)
    available = Run(request).mixture.rows["domain"].num_rows
    assert 0.3 < available / 10_000 < 0.65
    assert {*limited(plain, horizon)} == {"general"}
    assert limited(group, horizon)["domain"] == round(available / 10)
