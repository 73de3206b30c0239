"""Ratio x learning rate, ratio x schedule, and the rules that suggest a rate."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ratoon.cli import main
from ratoon.config import Base, ChooseConfig, ConfigError, Schedule, SweepConfig, TrainConfig
from ratoon.laws.decision.goals import Stakes
from ratoon.laws.equations.hyper import step_learning_rate
from ratoon.laws.size import train_flops
from ratoon.lm.load import load_model, non_embedding
from ratoon.records import Observation
from ratoon.training.group import run_group
from ratoon.training.growth import Question
from ratoon.training.joint import settle
from ratoon.training.request import Trunk
from ratoon.training.run import train
from ratoon.training.suggest import size_of_base, suggest, text
from ratoon.training.sweep import Corpus, Plan

ROOT = Path(__file__).parents[2]
STEP = 8 * 16
RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
RATES = (0.002, 0.005, 0.01, 0.02)
PARAMS = 1000


def plan_for(tiny, tmp_path, trunks=None, **sweep):
    return Plan(
        {"tiny": tiny / "model"},
        {role: Corpus(rows=str(tiny / role), role=role) for role in ("general", "domain")},
        SweepConfig(**{"tokens": 20 * STEP, "ratios": RATIOS, "horizons": 2, **sweep}),
        TrainConfig(tokens=40 * STEP, learning_rate=0.01, rows_per_step=8, schedule={"warmup_steps": 2}, block_rows=10),
        tmp_path / "sweep",
        {"row_tokens": 16, "held_out_tokens": 400, "commit": None},
        trunks=trunks or {},
    )


def losses(share, rate, extra):
    """The best rate is 0.006, a little lower where there is more of the domain."""
    away = (np.log(rate / 0.006) + 0.4 * share) ** 2
    return {"general": 3.0 + 0.06 * share**2 + 0.02 * away + extra, "domain": 3.2 - 0.5 * share + 0.05 * away + extra}


def measured(plan, extra=lambda group: 0.0):
    for group in plan.grid():
        recipe = group.request.recipe
        found = losses(group.request.domain_share, recipe.learning_rate, extra(group))
        for role, loss in found.items():
            yield Observation(
                run=group.request.name,
                group=group.request.name,
                commit=None,
                config="",
                model="tiny",
                params_non_embedding=PARAMS,
                tokens=20 * STEP,
                share=group.request.domain_share,
                learning_rate=recipe.learning_rate,
                step=20,
                finished=True,
                evaluated=role,
                role=role,
                loss_nats=loss,
                bits_per_byte=None,
            )


def stakes(tolerance=0.02):
    return Stakes(3.0, 3.2, ChooseConfig(tolerance=tolerance))


def test_without_rates_and_schedules_the_grid_is_the_one_of_ratios(tiny, tmp_path):
    plan = plan_for(tiny, tmp_path)
    assert [g.request.name for g in plan.grid()] == [f"tiny-r{round(100 * r):03d}" for r in RATIOS]
    assert all(g.request.recipe.learning_rate == 0.01 for g in plan.grid())
    found = settle(plan, list(measured(plan)), PARAMS, stakes())
    assert (found.learning_rate, found.schedule, found.said) == (None, None, ())
    assert found.observations == list(measured(plan))


def test_every_rate_meets_every_ratio_and_is_in_the_record(tiny, tmp_path):
    plan = plan_for(tiny, tmp_path, learning_rates=(0.002, 0.01), ratios=RATIOS, horizons=1)
    grid = plan.grid()
    found = {(round(g.request.domain_share, 4), g.request.recipe.learning_rate) for g in grid}
    assert found == {(share, rate) for share in RATIOS for rate in (0.002, 0.01)}
    assert len({g.request.name for g in grid}) == len({g.request.out for g in grid}) == 10
    found = run_group(next(g for g in grid if g.request.recipe.learning_rate == 0.002))
    assert {o.learning_rate for o in found} == {0.002}


def test_the_rate_is_the_swept_one_nearest_to_the_best_of_the_surface(tiny, tmp_path):
    plan = plan_for(tiny, tmp_path, learning_rates=RATES)
    found = settle(plan, list(measured(plan)), PARAMS, stakes())
    assert found.learning_rate == 0.005
    assert {o.learning_rate for o in found.observations} == {0.005}
    assert len(found.observations) == 2 * len(RATIOS)
    assert "where the surface of share and rate is best" in found.said[0]


def test_two_rates_are_no_surface_and_the_best_measured_is_told(tiny, tmp_path):
    plan = plan_for(tiny, tmp_path, learning_rates=(0.005, 0.02))
    found = settle(plan, list(measured(plan)), PARAMS, stakes())
    assert found.learning_rate == 0.005
    assert "the best measured of 0.005, 0.02" in found.said[0]
    assert "no surface: " in found.said[0]


def test_a_run_over_the_ceiling_is_never_best_where_one_keeps_under_it(tiny, tmp_path):
    """The greater rate has the lower domain loss at every share, and is over the ceiling at each."""
    plan = plan_for(tiny, tmp_path, learning_rates=(0.005, 0.01))
    moved = [
        o if o.learning_rate == 0.005 else o.model_copy(update={"loss_nats": 3.2 if o.role == "general" else 1.0})
        for o in measured(plan)
    ]
    assert settle(plan, moved, PARAMS, stakes()).learning_rate == 0.005
    assert settle(plan, moved, PARAMS, stakes(tolerance=0.2)).learning_rate == 0.01


def test_of_schedules_the_best_measured_is_taken_and_no_law_is_said_to_know_it(tiny, tmp_path):
    kinds = ({"name": "wsd", "warmup_steps": 2}, {"name": "cosine", "warmup_steps": 2})
    plan = plan_for(tiny, tmp_path, schedules=kinds)
    table = list(measured(plan, lambda group: 0.01 * (group.request.recipe.schedule.name == "wsd")))
    found = settle(plan, table, PARAMS, stakes())
    assert found.schedule == Schedule(**kinds[1])
    assert {o.group for o in found.observations} == {
        g.request.name for g in plan.grid() if g.request.recipe.schedule.name == "cosine"
    }
    assert "no law reads its shape" in found.said[0]


def test_a_schedule_without_a_trunk_is_swept_by_whole_runs(tiny, tmp_path):
    kinds = ({"name": "wsd", "warmup_steps": 2}, {"name": "cosine", "warmup_steps": 2})
    cosine = next(g for g in plan_for(tiny, tmp_path, schedules=kinds).grid() if "cosine" in g.request.name)
    found = run_group(cosine)
    for steps in (10, 20):
        recipe = cosine.request.recipe.model_copy(update={"tokens": steps * STEP})
        out = str(tmp_path / f"whole-{steps}")
        whole = train(cosine.request.model_copy(update={"recipe": recipe, "out": out}))
        wanted = {o.evaluated: o.loss_nats for o in whole.observations if o.step == steps}
        assert {o.evaluated: o.loss_nats for o in found if o.step == steps} == wanted


def test_what_further_groups_would_cost_is_known_where_schedules_without_a_trunk_were_compared(tiny, tmp_path):
    kinds = ({"name": "wsd", "warmup_steps": 2}, {"name": "cosine", "warmup_steps": 2})
    plan = plan_for(tiny, tmp_path, schedules=kinds)
    plan = replace(plan, recipe=plan.recipe.model_copy(update={"schedule": Schedule(**kinds[1])}))
    found = Question(plan, {"tiny": PARAMS}, ChooseConfig()).options(list(measured(plan)))
    assert {one.flops for one in found if len(one.horizons) == 2} == {train_flops(PARAMS, 30 * STEP)}


def test_proxies_of_a_target_that_continues_a_trunk_continue_theirs(tiny, tmp_path):
    trunk = Trunk(folder=str(tmp_path), hash="0" * 12, learning_rate=0.01, peak=0.01, step=3)
    plan = plan_for(tiny, tmp_path, trunks={"tiny": trunk})
    group = plan.group("tiny", 0.5)
    assert group.request.trunk == trunk
    assert (group.request.recipe.schedule.name, group.request.recipe.schedule.warmup_steps) == ("anneal", 0)
    with pytest.raises(ConfigError, match="a trunk that is continued has its own rate"):
        plan_for(tiny, tmp_path, trunks={"tiny": trunk}, learning_rates=RATES).grid()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"learning_rates": (0.1,)}, "learning_rates: only a grid crosses them; give ratios"),
        ({"ratios": RATIOS, "learning_rates": (0.1, 0.1)}, "each once"),
        ({"ratios": RATIOS, "schedules": ()}, "give one or more"),
    ],
)
def test_rates_and_schedules_that_cannot_be_crossed_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        SweepConfig(tokens=1, **wrong)


def test_rates_are_suggested_by_the_published_rules_for_target_and_proxies(tmp_path):
    recipe = TrainConfig(tokens=8_000_000, learning_rate=1e-3, rows_per_step=16)
    target, small, own = suggest({"small": 40_000, "own": 160_000}, recipe, 1_000_000, 128)
    assert (
        target.step_rate
        == float(step_learning_rate(160_000, 8_000_000))
        == pytest.approx(1.79 * 160_000**-0.713 * 8e6**0.307)
    )
    assert (small.run, small.tokens, own.params_non_embedding) == ("proxy small", 1_000_000, 160_000)
    assert target.step_batch_rows == pytest.approx(0.58 * 8e6**0.571 / 128)
    said = text((target, small, own), recipe)
    assert "upper bounds for a continued one" in said
    assert "learning_rate 0.001, rows_per_step 16" in said


def test_the_size_of_a_base_that_is_not_made_yet_is_known(tiny, tmp_path):
    weights = {
        "kind": "scratch",
        "vocabulary": 512,
        "hidden": 16,
        "layers": 2,
        "heads": 2,
        "feed_forward": 32,
        "context": 32,
        "tokens": 1,
        "learning_rate": 1,
        "rows_per_step": 1,
    }
    base = Base(name="t", description="d", row_tokens=16, weights=weights)
    assert size_of_base(base, tmp_path) == non_embedding(load_model(tiny / "model"))


def test_the_command_line_suggests_and_trains_nothing(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["sweep", "--suggest", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["run"] for one in found] == ["target nano", "proxy pico", "proxy nano"]
    assert main(["sweep", "--suggest", "--estimate"]) == 2
