"""Proxies that are stopped by a declared rule."""

import pytest

from ratoon import records
from ratoon.config import ChooseConfig
from ratoon.config.sweep import Hopeless
from ratoon.records import Observation
from ratoon.training.group import run_group
from ratoon.training.hopeless import Bound, why_stop
from ratoon.training.proxies import Group, group_tokens, stopped, tokens_run
from ratoon.training.stacked import run_bundle
from ratoon.training.sweep import SweepRequest, SweepResult, merge, run_sweep

STEP = 8 * 16
NEVER, ALWAYS = (lambda curve, steps: False), (lambda curve, steps: True)


def curve(general, domain):
    """Losses at steps 0, 10, 20, ..."""
    return [
        Observation(
            run=f"r{n}",
            group="g",
            commit=None,
            config="",
            model="m",
            params_non_embedding=1,
            tokens=n * 10 * STEP,
            share=0.5,
            learning_rate=0.01,
            step=n * 10,
            finished=n > 0,
            evaluated=role,
            role=role,
            loss_nats=loss,
            bits_per_byte=None,
        )
        for role, losses in (("general", general), ("domain", domain))
        for n, loss in enumerate(losses)
    ]


def bound(tolerance=0.02, **rule):
    return Bound(rule=Hopeless(**rule), tolerance=tolerance)


def test_general_loss_far_above_the_ceiling_stops_a_proxy():
    said = why_stop(bound(), curve([3.0, 3.3], [4.0, 3.5]), 40, NEVER)
    assert said == "general loss is 10.0% above the parent's, more than 5.0% above the ceiling of 2.0%"


def test_general_loss_within_the_margin_does_not():
    assert why_stop(bound(), curve([3.0, 3.2], [4.0, 3.5]), 40, NEVER) is None


def test_a_proxy_that_the_parent_dominates_is_stopped():
    said = why_stop(bound(), curve([3.0, 3.03], [4.0, 4.04]), 40, NEVER)
    assert said == "the parent dominates it: general loss +1.0%, domain loss +1.0% of its"
    assert why_stop(bound(parent=None), curve([3.0, 3.03], [4.0, 4.04]), 40, NEVER) is None


def test_the_weighted_goal_has_no_ceiling_to_be_above():
    assert why_stop(bound(tolerance=None), curve([3.0, 6.0], [4.0, 3.5]), 40, NEVER) is None


def test_nothing_is_stopped_inside_the_stability_gap():
    bad = curve([3.0, 3.6], [4.0, 3.5])
    assert why_stop(bound(), bad, 40, ALWAYS) is None
    assert why_stop(bound(), bad, 40) is None  # one horizon after the start tells no gap from a level
    recovering = curve([3.0, 3.9, 3.5], [4.0, 3.6, 3.5])
    assert why_stop(bound(), recovering, 80) is None
    level = curve([3.0, 3.6, 3.6], [4.0, 3.6, 3.5])
    assert why_stop(bound(), level, 80) is not None


def test_nothing_is_stopped_before_the_declared_part_of_the_longest_run():
    bad = curve([3.0, 3.6], [4.0, 3.5])
    assert why_stop(bound(after=0.5), bad, 40, NEVER) is None
    assert why_stop(bound(after=0.25), bad, 40, NEVER) is not None


def test_what_was_not_measured_stops_nothing():
    missing = [o.model_copy(update={"loss_nats": None}) if o.step else o for o in curve([3.0, 9.0], [4.0, 9.0])]
    assert why_stop(bound(), missing, 40, NEVER) is None


def hopeless_group(request_for, name="g", **changes):
    """At this rate the tiny model only gets worse."""
    request = request_for(name, learning_rate=3.0, tokens=20 * STEP, **changes)
    request = request.model_copy(update={"name": name})
    rule = Bound(rule=Hopeless(margin=0, after=0), tolerance=0.0)
    horizons = tuple(n * STEP for n in (5, 10, 15, 20))
    return Group(request=request, horizons=horizons, target_tokens=20 * STEP, bound=rule)


def test_a_stopped_group_is_recorded_with_its_reason_and_its_tokens(request_for):
    group = hopeless_group(request_for)
    found = run_group(group)
    halted = stopped(group)
    assert max(o.tokens for o in found) == halted.tokens < 20 * STEP
    assert halted.left_out == tuple(h for h in group.horizons if h > halted.tokens)
    assert "g was stopped at" in halted.said
    assert "tokens are missing" in halted.said
    assert tokens_run(group) < group_tokens(group)
    assert run_group(group) == found


def test_without_a_rule_every_horizon_is_run(request_for):
    group = hopeless_group(request_for).model_copy(update={"bound": None})
    assert {o.tokens for o in run_group(group)} == {0, *group.horizons}
    assert stopped(group) is None


def test_a_rule_that_stops_nothing_changes_nothing(request_for):
    plain = run_group(Group(request=request_for("a"), horizons=(5 * STEP, 20 * STEP), target_tokens=20 * STEP))
    ruled = Group(request=request_for("b"), horizons=(5 * STEP, 20 * STEP), target_tokens=20 * STEP, bound=bound())
    assert run_group(ruled) == plain


def test_a_stack_stops_its_members_one_by_one(request_for):
    bad = hopeless_group(request_for, "bad")
    good = hopeless_group(request_for, "good").model_copy(update={"bound": None})
    found = run_bundle([bad, good])
    assert max(o.tokens for o in found[0]) < max(o.tokens for o in found[1]) == 20 * STEP
    assert stopped(bad) is not None
    assert stopped(good) is None


def test_the_record_of_a_sweep_names_what_was_stopped(request_for, tmp_path):
    group = hopeless_group(request_for)
    run_group(group)
    result = run_sweep(SweepRequest(groups=(group,), workers=1, out=str(tmp_path / "sweep")))
    assert [one.group for one in result.stopped] == ["g"]
    assert result.tokens == tokens_run(group)
    assert merge([result], tmp_path / "merged").stopped == result.stopped
    assert records.read(tmp_path / "sweep" / "result.json", SweepResult) == result


@pytest.mark.parametrize(("goal", "tolerance"), [("ceiling", 0.03), ("weighted", None)])
def test_the_rule_takes_its_ceiling_from_the_choice_to_be_made(goal, tolerance, tiny, tmp_path):
    from ratoon.config import SweepConfig, TrainConfig
    from ratoon.training.sweep import Plan

    plan = Plan(
        {"tiny": tiny / "model"},
        {},
        SweepConfig(tokens=1, hopeless={}),
        TrainConfig(tokens=1, learning_rate=1, rows_per_step=1),
        tmp_path,
        {},
        choose=ChooseConfig(goal=goal, tolerance=0.03),
    )
    assert plan.bound == Bound(rule=Hopeless(), tolerance=tolerance)
