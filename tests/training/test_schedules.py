import itertools

import pytest

from ratoon.config import ConfigError, Schedule
from ratoon.training.schedules import decay_start, learning_rate


def curve(name, steps, **more):
    schedule = Schedule(name=name, warmup_steps=10, decay_share=0.2, **more)
    at = learning_rate(schedule, 1.0, steps)
    return [at(step) for step in range(steps)]


@pytest.mark.parametrize("name", ["wsd", "cosine", "constant"])
def test_every_schedule_warms_up_to_the_peak_and_never_passes_it(name):
    values = curve(name, 100)
    assert values[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert max(values) == 1.0


@pytest.mark.parametrize("name", ["wsd", "cosine"])
def test_the_last_update_is_at_the_floor(name):
    assert curve(name, 100)[-1] == pytest.approx(0)
    assert curve(name, 100, floor=0.1)[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["wsd", "cosine"])
def test_no_jump_is_larger_than_one_step_of_warm_up(name):
    values = curve(name, 1000)
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) <= 0.1 + 1e-9


def test_before_the_decay_runs_of_any_length_agree():
    short, long = curve("wsd", 100), curve("wsd", 400)
    start = decay_start(Schedule(warmup_steps=10, decay_share=0.2), 100)
    assert start == 80
    assert short[:start] == long[:start]


def test_a_run_shorter_than_its_warm_up_is_refused():
    with pytest.raises(ConfigError, match="10 steps of warm-up in a run of 8; lower warmup_steps"):
        learning_rate(Schedule(warmup_steps=10), 1.0, 8)
