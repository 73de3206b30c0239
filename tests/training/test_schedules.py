"""Learning rates against their formulas, written out again here, and what holds for every schedule."""

import itertools
import math
import random

import pytest

from ratoon.config import ConfigError, Schedule, TrainConfig, parse
from ratoon.config.schedule import KINDS
from ratoon.laws.equations.hyper import power_learning_rate
from ratoon.training.group import run_group
from ratoon.training.run import train
from ratoon.training.schedules import decay_start, learning_rate, phases
from ratoon.training.sweep import Group, group_tokens

STEP_TOKENS = 2**20
ROUNDING = 4e-16  # two roundings of a double


def curve(steps, peak=1.0, **options):
    at = learning_rate(Schedule(**options), peak, steps, STEP_TOKENS)
    return [at(step) for step in range(steps)]


def settings(name, pick):
    """Random options that are allowed together, and a run that has room for them."""
    steps = pick.randint(30, 1500)
    options = {"name": name, "warmup_steps": pick.randint(name == "power_steps", steps // 10)}
    fields = KINDS[name].model_fields
    if "decay_share" in fields:
        options["decay_share"] = pick.uniform(0.05, 0.4)
    if "floor" in fields:
        # Lower than power falls to in this many steps.
        options["floor"] = pick.uniform(1e-6, 1e-3 if name.startswith("power") else 0.5)
    if "tail" in fields:
        options["tail"] = pick.choice(["linear", "cosine", "sqrt", "exponential", "inverse"])
    if name == "rewarm" and pick.random() < 0.5:
        options["start"] = pick.random()
    if name == "infinite":
        options["level"] = pick.uniform(options["floor"], 1)
        options |= {"cooldown_steps": steps // 3} if pick.random() < 0.5 else {"cooldown_share": pick.random() / 3}
    if name == "wsd_s":
        options |= {"ends": (pick.uniform(0.3, 0.5), pick.uniform(0.6, 0.8), 1), "decay_share": pick.uniform(0.2, 0.6)}
    if name.startswith("power"):
        options["exponent"] = -pick.uniform(0.1, 0.6)
    return Schedule(**options), 10 ** pick.uniform(-6, 0), steps


def some(name, number=25):
    pick = random.Random(f"schedules {name}")
    return [settings(name, pick) for _ in range(number)]


# ---------------------------------------------------------------- the three there were


def before(name, warmup, decay_share, floor, peak, steps):
    """wsd, cosine and constant as they were when they were the only ones."""
    start = {
        "wsd": max(min(warmup, steps), steps - round(steps * decay_share)),
        "cosine": min(warmup, steps),
        "constant": steps,
    }[name]
    for step in range(steps):
        if step < warmup:
            yield peak * (step + 1) / warmup
        elif step < start:
            yield peak
        else:
            through = (step - start + 1) / (steps - start)
            shape = 1 - through if name == "wsd" else (1 + math.cos(math.pi * through)) / 2
            yield peak * (floor + (1 - floor) * shape)


@pytest.mark.parametrize("name", ["wsd", "cosine", "constant"])
def test_the_schedules_there_were_have_not_moved_by_a_bit(name):
    pick = random.Random(5)
    for _ in range(100):
        steps, peak = pick.randint(1, 2000), 10 ** pick.uniform(-6, 0)
        warmup = pick.randrange(steps)
        decay_share, floor = pick.choice([0, pick.random(), 1]), pick.choice([0, pick.random(), 1])
        given = {"wsd": {"decay_share": decay_share, "floor": floor}, "cosine": {"floor": floor}}.get(name, {})
        found = curve(steps, peak, name=name, warmup_steps=warmup, **given)
        assert found == list(before(name, warmup, decay_share, floor, peak, steps))


def test_the_default_is_wsd_with_a_linear_fifth():
    assert curve(300) == list(before("wsd", 20, 0.2, 0.0, 1.0, 300))


# ---------------------------------------------------------------- what holds for every schedule


@pytest.mark.parametrize("name", KINDS)
def test_no_rate_is_above_the_peak_or_below_the_floor_and_each_is_a_number(name):
    for schedule, peak, steps in some(name):
        at = learning_rate(schedule, peak, steps, STEP_TOKENS)
        rates = [at(step) for step in range(steps)]
        floor = getattr(schedule.root, "floor", 0.0)
        assert all(math.isfinite(rate) for rate in rates)
        assert max(rates) <= peak * (1 + ROUNDING)
        assert min(rates) >= 0
        assert min(rates[schedule.warmup_steps :]) >= floor * peak * (1 - 10 * ROUNDING)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "constant"])
def test_the_last_update_is_at_the_floor(name):
    for schedule, peak, steps in some(name):
        last = learning_rate(schedule, peak, steps, STEP_TOKENS)(steps - 1)
        assert last == pytest.approx(schedule.root.floor * peak, rel=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_phases_meet_in_step_and_in_rate(name):
    for schedule, peak, steps in some(name):
        found = phases(schedule, peak, steps, STEP_TOKENS)
        assert (found[0].start, found[-1].end) == (0, steps)
        for one, other in itertools.pairwise(found):
            assert one.end == other.start
            if (name, one.name) == ("wsd_s", "decay"):  # up again at once: that is the schedule
                assert other.rate(other.start + 1) == pytest.approx(peak)
            else:
                assert one.rate(one.end) == pytest.approx(other.rate(other.start), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "rewarm"])
def test_warm_up_is_a_straight_line_from_0_to_where_the_schedule_begins(name):
    for schedule, peak, steps in some(name):
        warmup = schedule.warmup_steps
        if warmup:
            at = learning_rate(schedule, peak, steps, STEP_TOKENS)
            top = peak
            if name == "power_tokens":
                top = min(peak, 4 * 256 * (STEP_TOKENS * warmup) ** schedule.root.exponent)
            assert [at(n) for n in range(warmup)] == pytest.approx([top * (n + 1) / warmup for n in range(warmup)])


@pytest.mark.parametrize("name", KINDS)
def test_a_rate_depends_on_the_step_alone_so_that_a_resumed_run_is_on_its_curve(name):
    for schedule, peak, steps in some(name, 5):
        at = learning_rate(schedule, peak, steps, STEP_TOKENS)
        whole = [at(step) for step in range(steps)]
        again = Schedule.model_validate_json(schedule.model_dump_json())
        assert again == schedule
        resumed = learning_rate(again, peak, steps, STEP_TOKENS)
        assert [resumed(step) for step in range(steps // 2, steps)] == whole[steps // 2 :]
        assert [at(step) for step in reversed(range(steps))] == whole[::-1]


@pytest.mark.parametrize("name", KINDS)
def test_twice_the_peak_is_twice_every_rate_but_of_the_one_that_follows_tokens(name):
    for schedule, peak, steps in some(name, 5):
        one, two = (learning_rate(schedule, p, steps, STEP_TOKENS) for p in (peak, 2 * peak))
        if name != "power_tokens":
            assert [2 * one(step) for step in range(steps)] == [two(step) for step in range(steps)]


# ---------------------------------------------------------------- each against its formula


def test_linear_is_a_straight_line_to_the_floor():
    rates = curve(110, 2.0, name="linear", warmup_steps=10, floor=0.1)
    assert rates[9] == 2
    assert rates[10:] == pytest.approx([2 - 1.8 * n / 100 for n in range(1, 101)])


def test_linear_without_warm_up_is_the_mid_training_anneal_from_the_first_update_to_0():
    assert curve(4, name="linear", warmup_steps=0) == [0.75, 0.5, 0.25, 0]


def test_rewarm_goes_on_at_the_rate_the_parent_ended_at():
    parent = learning_rate(Schedule(name="rewarm", warmup_steps=10), 3e-4, 1000)
    first, *_ = phases(Schedule(name="rewarm", warmup_steps=10), 3e-4, 1000)
    assert first.rate(0) == pytest.approx(parent(999), rel=1e-12)
    assert parent(999) == pytest.approx(3e-5)  # the published pair, 3e-4 to 3e-5
    assert [parent(n) for n in (4, 9)] == pytest.approx([3e-5 + 2.7e-4 / 2, 3e-4])
    assert parent(504) == pytest.approx((3e-4 + 3e-5) / 2)  # half of the cosine


def test_rewarm_from_another_rate_than_its_floor_starts_there():
    first, *_ = phases(Schedule(name="rewarm", start=0.02, floor=0.1, warmup_steps=10), 1.0, 100)
    assert first.rate(0) == 0.02


@pytest.mark.parametrize(
    ("tail", "half_way", "floor"),
    [
        ("linear", 0.505, 0.01),
        ("cosine", 0.505, 0.01),
        ("sqrt", 0.01 + 0.99 * (1 - math.sqrt(0.5)), 0.01),
        ("exponential", 0.1, 0.01),
        ("inverse", 2 / 101, 0.01),
    ],
)
def test_a_tail_is_half_way_down_where_its_formula_says(tail, half_way, floor):
    rates = curve(1000, name="wsd", warmup_steps=0, decay_share=0.2, tail=tail, floor=floor)
    assert rates[799] == 1
    assert rates[899] == pytest.approx(half_way)
    assert rates[999] == pytest.approx(floor)


def test_the_exponential_tail_is_that_of_minicpm_whose_half_life_the_floor_sets():
    half_lives = 3
    rates = curve(1000, name="wsd", warmup_steps=0, decay_share=0.3, tail="exponential", floor=0.5**half_lives)
    assert rates[700:] == pytest.approx([0.5 ** ((n - 700) / (300 / half_lives)) for n in range(701, 1001)])


def test_of_the_inverse_tail_one_over_the_rate_is_a_straight_line():
    rates = curve(1000, name="wsd_s", warmup_steps=0, ends=(1,), decay_share=0.1, tail="inverse", floor=0.1)
    assert [1 / rate for rate in rates[900:]] == pytest.approx([1 + 9 * n / 100 for n in range(1, 101)])


def test_wsd_s_with_one_cycle_is_wsd_to_the_bit():
    for schedule, peak, steps in some("wsd"):
        one_cycle = schedule.model_dump() | {"name": "wsd_s", "ends": (1,)}
        options = {"peak": peak, "steps": steps}
        assert curve(**options, **one_cycle) == curve(**options, **schedule.model_dump())


def test_wsd_s_decays_at_the_end_of_each_cycle_and_is_back_at_the_peak_at_once():
    rates = curve(400, name="wsd_s", warmup_steps=10)  # cycles of 100, 100 and 200 updates
    assert [rates[n] for n in (89, 99, 100, 179, 189, 199, 200, 379, 399)] == [1, 0, 1, 1, 1, 0, 1, 1, 0]
    assert [n for n, rate in enumerate(rates) if rate < 1 and n >= 10] == [
        *range(90, 100),
        *range(190, 200),
        *range(380, 400),
    ]


def test_infinite_has_the_four_phases_and_rates_of_the_published_run():
    steps = 7680
    given = Schedule(name="infinite", warmup_steps=77)
    found = phases(given, 3e-5, steps)
    assert [(p.name, p.start, p.end) for p in found] == [
        ("warm-up", 0, 77),
        ("cooldown", 77, 77 + 4608),
        ("constant", 4685, 6605),
        ("anneal", 6605, 7680),
    ]
    at = learning_rate(given, 3e-5, steps)
    assert [at(n) for n in (76, 4684, 6604, 7679)] == pytest.approx([3e-5, 1.65e-5, 1.65e-5, 2e-6])
    assert at(77 + 2304 - 1) == pytest.approx((3e-5 + 1.65e-5) / 2)
    assert at(6605 + 430 - 1) == pytest.approx(1.65e-5 * (2 / 16.5) ** (430 / 1075))


def test_power_by_tokens_is_the_paper_s_rule_with_its_constants():
    # The Power scheduler's own: a 4, b -0.51, peak 0.02 (arXiv 2408.13359), here as laws/equations/hyper.py has them.
    for rows in (1, 64, 1024):
        step_tokens = rows * 4096
        at = learning_rate(Schedule(name="power_tokens", warmup_steps=5), 0.02, 20_000, step_tokens)
        for step in (5, 100, 5000, 17_999):
            assert at(step) == pytest.approx(float(power_learning_rate((step + 1) * step_tokens, step_tokens)))
    assert at(17_999) == pytest.approx(4 * 1024 * (18_000 * 1024 * 4096) ** -0.51)
    assert at(17_999) < 0.02


def test_power_by_tokens_at_one_number_of_tokens_is_in_proportion_to_the_batch():
    small, large = (learning_rate(Schedule(name="power_tokens", decay_share=0), 1.0, 8192, n) for n in (2**14, 2**15))
    assert large(999) == pytest.approx(2 * small(1999))


def test_power_by_steps_is_the_peak_times_the_power_of_the_steps_in_warm_ups():
    rates = curve(2000, 3e-4, name="power_steps", warmup_steps=20)
    assert rates[19] == 3e-4
    assert rates[1799] == pytest.approx(3e-4 * 90**-0.51)
    assert rates[1899] == pytest.approx(3e-4 * 90**-0.51 / 2)  # half of the linear tail, the last tenth
    assert rates[1999] == 0


def test_the_two_published_powers_are_not_one():
    by_tokens = curve(2000, 0.02, name="power_tokens", warmup_steps=20, decay_share=0)
    by_steps = curve(2000, 0.02, name="power_steps", warmup_steps=20, decay_share=0)
    assert by_tokens[19] == by_steps[19] == 0.02
    assert by_tokens[1000] > 2 * by_steps[1000]


def test_anneal_is_at_the_parent_s_rate_from_the_first_update_and_falls_over_the_last_tenth():
    rates = curve(1000, 3e-4, name="anneal")
    assert set(rates[:900]) == {3e-4}
    assert rates[949] == pytest.approx(1.5e-4)


# ---------------------------------------------------------------- trunks

TRUNKS = [
    {"name": "wsd", "warmup_steps": 3, "decay_share": 0.25},
    {"name": "constant", "warmup_steps": 3},
    {"name": "anneal", "decay_share": 0.3, "tail": "sqrt"},
    {"name": "power_steps", "warmup_steps": 3},
    {"name": "power_tokens", "warmup_steps": 3, "factor": 1e3},
    {"name": "infinite", "warmup_steps": 3, "cooldown_steps": 4},
    {"name": "wsd_s", "warmup_steps": 3, "ends": (1,)},
]
OTHERS = [
    ({"name": "linear"}, "falls towards the end of the run"),
    ({"name": "cosine"}, "falls towards the end of the run"),
    ({"name": "rewarm"}, "falls towards the end of the run"),
    ({"name": "wsd_s"}, "decays inside the run"),
    ({"name": "infinite"}, "a share of the run's own length; give cooldown_steps"),
    ({"name": "anneal", "decay_share": 1}, "nothing before the decay"),
]


@pytest.mark.parametrize("options", TRUNKS, ids=lambda options: options["name"])
def test_before_the_decay_of_a_trunk_runs_of_any_length_agree_to_the_bit(options):
    assert Schedule(**options).no_trunk is None
    whole = curve(400, **options)
    for steps in (20, 100, 399):
        start = decay_start(Schedule(**options), steps)
        assert start >= steps // 2
        assert curve(steps, **options)[:start] == whole[: min(start, decay_start(Schedule(**options), 400))]


@pytest.mark.parametrize(("options", "why"), OTHERS, ids=lambda x: x["name"] if isinstance(x, dict) else "")
def test_a_schedule_that_cannot_be_a_trunk_is_refused_with_the_reason(options, why):
    schedule = Schedule(**options)
    assert why in schedule.no_trunk
    with pytest.raises(ConfigError, match=f"{schedule.name} cannot be the trunk of a sweep: .*{why}") as refused:
        decay_start(schedule, 100)
    assert "take wsd, power_tokens, power_steps, anneal, constant, or infinite with cooldown_steps" in str(
        refused.value
    )


def test_a_sweep_of_a_schedule_that_cannot_be_a_trunk_is_refused_before_anything_is_trained(request_for):
    group = Group(
        request=request_for(tokens=40 * 128, schedule={"name": "rewarm", "warmup_steps": 3}),
        horizons=(20 * 128, 40 * 128),
        target_tokens=40 * 128,
    )
    with pytest.raises(ConfigError, match="rewarm cannot be the trunk of a sweep"):
        group_tokens(group)


@pytest.mark.parametrize("options", [o for o in TRUNKS if o["name"] in ("infinite", "anneal", "power_steps")])
def test_a_branch_of_a_trunk_is_the_whole_run_of_its_length_whatever_the_schedule(options, request_for):
    tokens = (20 * 128, 40 * 128)
    request = request_for("trunk", tokens=tokens[-1], schedule=options)
    found = run_group(Group(request=request, horizons=tokens, target_tokens=tokens[-1]))
    whole = train(request_for("whole", tokens=tokens[0], schedule=options)).observations
    alone = {o.evaluated: o.loss_nats for o in whole if o.step == 20}
    assert {o.evaluated: o.loss_nats for o in found if o.step == 20} == alone


# ---------------------------------------------------------------- what is refused


def refused(**options):
    with pytest.raises(ConfigError) as error:
        parse(TrainConfig, {"tokens": 1, "learning_rate": 1, "rows_per_step": 1, "schedule": options}, "params.yaml")
    return str(error.value)


def test_an_option_of_another_schedule_is_refused_with_whose_it_is():
    assert refused(name="cosine", decay_share=0.1) == (
        "params.yaml: schedule: decay_share is of wsd, wsd_s, infinite, power_tokens, power_steps, anneal, "
        "not of cosine, which takes warmup_steps, floor; "
        "leave it out, or make it null where it comes from a section under this one"
    )
    assert "cooldown_share is of infinite, not of wsd" in refused(cooldown_share=0.1)
    assert "ends is of wsd_s, not of wsd" in refused(name="wsd", ends=[1])


def test_an_option_that_nobody_has_is_refused_with_the_nearest():
    assert "wsd: no option 'decay_shares'; did you mean 'decay_share'?" in refused(decay_shares=0.1)
    assert "no schedule 'wsds'; did you mean 'wsd_s'?" in refused(name="wsds")


def test_a_null_takes_away_what_a_section_underneath_has():
    under = {"name": "wsd", "decay_share": 0.2}
    assert Schedule.model_validate(under | {"name": "cosine", "decay_share": None}) == Schedule(name="cosine")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tail": "exponential"}, "never comes down to 0; give a floor"),
        ({"name": "wsd_s", "tail": "inverse"}, "never comes down to 0; give a floor"),
        ({"name": "wsd_s", "ends": [0.5, 0.3, 1]}, "rising, the last 1"),
        ({"name": "wsd_s", "ends": [0.5]}, "rising, the last 1"),
        ({"name": "wsd_s", "ends": []}, "rising, the last 1"),
        ({"name": "infinite", "cooldown_share": 0.1, "cooldown_steps": 10}, "give one of them"),
        ({"name": "infinite", "floor": 0.6}, "floor 0.6 is above level 0.55"),
        ({"name": "infinite", "floor": 0}, "greater than 0"),
        ({"name": "power_steps", "warmup_steps": 0}, "greater than 0"),
        ({"name": "power_tokens", "exponent": 0.5}, "less than 0"),
        ({"floor": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, why):
    assert why in refused(**options)


def test_a_run_shorter_than_its_warm_up_is_refused():
    with pytest.raises(ConfigError, match="10 steps of warm-up in a run of 8; lower warmup_steps"):
        learning_rate(Schedule(warmup_steps=10), 1.0, 8)


def test_phases_that_a_run_has_no_room_for_are_refused():
    with pytest.raises(ConfigError, match=r"warm-up and cooldown end at step 70, .* 100 steps the anneal starts at 60"):
        learning_rate(Schedule(name="infinite", warmup_steps=10, cooldown_share=0.6, decay_share=0.4), 1.0, 100)
    with pytest.raises(ConfigError, match="cycle of steps 0 to 25 has no room"):
        learning_rate(Schedule(name="wsd_s", warmup_steps=30), 1.0, 100)
    with pytest.raises(ConfigError, match=r"above the .* that power_steps has come to .* lower floor"):
        learning_rate(Schedule(name="power_steps", floor=0.5), 1.0, 1000)


def test_power_by_tokens_is_refused_where_the_tokens_of_a_step_are_not_known():
    with pytest.raises(ConfigError, match="how many a step has is not known here; take power_steps"):
        learning_rate(Schedule(name="power_tokens"), 1.0, 100)
