"""The shortest proxy of a sweep is of the recipe of the target, or it is not begun."""

import pytest

from ratoon.config import ConfigError, SweepConfig, TrainConfig
from ratoon.training.shortest import check_shortest

STEP = 128
SWEEP = SweepConfig(tokens=400 * STEP, horizons=3)  # 100, 200, 400 steps


def recipe(**asked):
    schedule = {"warmup_steps": 5}
    return TrainConfig(tokens=4000 * STEP, learning_rate=0.01, rows_per_step=8, schedule=schedule, **asked)


LATE = {
    r"train\.mixture\.phases first acts after 12,800": {"mixture": {"phases": [{"until": 100 * STEP, "share": 0.1}]}},
    r"train\.mixture\.lengths first": {"mixture": {"lengths": [{"until": 100 * STEP, "row_tokens": 8}]}},
    r"train\.forgetting\.anchor\.every first": {"forgetting": {"anchor": {"epsilon": 0.5, "every": 101}}},
    r"train\.forgetting\.average\.start first": {"forgetting": {"average": {"decay": 0.5, "start": 100}}},
    r"train\.loss\.reweight\.burn_in_steps first": {"loss": {"reweight": {"burn_in_steps": 100}}},
    r"not more than the warm-up of 12,800": {"schedule": {"warmup_steps": 100}},
}
FITS = {
    "a phase that ends before": {"mixture": {"phases": [{"until": 99 * STEP, "share": 0.1}]}},
    "a share of the run": {"mixture": {"phases": [{"until": 0.9, "share": 0.1}]}},
    "the last step": {"forgetting": {"anchor": {"epsilon": 0.5, "every": 100}}},
    "an average that begins before": {"forgetting": {"average": {"decay": 0.5, "start": 99}}},
    "what is off": {"forgetting": {"anchor": {"every": 500}, "average": {"start": 500}}},
}


@pytest.mark.parametrize(("said", "asked"), LATE.items(), ids=LATE)
def test_what_would_not_come_to_act_in_the_shortest_proxy_is_refused_by_name(said, asked):
    with pytest.raises(ConfigError, match=rf"the shortest of 3 horizons is 12,800 tokens.*{said}.*raise sweep\.tokens"):
        check_shortest(SWEEP, TrainConfig(**{**recipe().model_dump(), **asked}), 100 * STEP, STEP)


@pytest.mark.parametrize("asked", FITS.values(), ids=FITS)
def test_what_acts_in_the_shortest_proxy_too_is_not(asked):
    check_shortest(SWEEP, recipe(**asked), 100 * STEP, STEP)
