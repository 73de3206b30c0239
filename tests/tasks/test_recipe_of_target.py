"""The recipe of the target run: what its sweep chose of rates and schedules, or the parent's trunk gone on with."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ratoon import records
from ratoon.config import ConfigError, Params, TrainConfig
from ratoon.records import Choice, Interval
from ratoon.training.request import Portion, Request, Result, Trunk
from tasks.job import Job
from tasks.sweep import continued
from tasks.train import recipe_of

AT = Interval(value=0.5, low=0.4, high=0.6, confidence=0.9)


def job(tmp_path, **train):
    recipe = TrainConfig(**{"tokens": 1000, "learning_rate": 0.01, "rows_per_step": 1, **train})
    params = Params.model_construct(train=recipe)
    return SimpleNamespace(params=params, folder=tmp_path / "refresh", parent=tmp_path / "champion" / "model")


def choose(folder, **chosen):
    choice = Choice(
        share=0.5,
        interval=AT,
        reason="interior",
        law="dcpt",
        laws=(),
        params_non_embedding=1,
        tokens=1,
        parent_general_nats=1,
        parent_domain_nats=1,
        ceiling_nats=1,
        tolerance=0.02,
        predicted_general=AT,
        predicted_domain=AT,
        **chosen,
    )
    records.write(folder / "choice.json", choice)


def keep_trunk(parent: Path):
    trunk = Trunk(folder=str(parent), hash="0" * 12, learning_rate=0.01, peak=0.01, step=5)
    result = Result(
        name="r",
        model=str(parent),
        steps=1,
        tokens=1,
        params_non_embedding=1,
        seconds=1,
        tokens_per_second=1,
        observations=(),
        trunk=trunk,
    )
    records.write(parent.parent / "result.json", result)
    (parent.parent / "request.json").write_text("{}")
    return trunk


def test_without_a_sweep_of_them_rate_and_schedule_are_those_of_the_recipe(tmp_path):
    asked = job(tmp_path)
    assert recipe_of(asked) == (asked.params.train, None)
    choose(asked.folder)
    assert recipe_of(asked) == (asked.params.train, None)


def test_the_target_takes_the_rate_and_schedule_its_sweep_chose(tmp_path):
    asked = job(tmp_path)
    choose(asked.folder, learning_rate=0.003, schedule={"name": "cosine", "warmup_steps": 4})
    recipe, trunk = recipe_of(asked)
    assert (recipe.learning_rate, recipe.schedule.name, recipe.schedule.warmup_steps) == (0.003, "cosine", 4)
    assert trunk is None


@pytest.mark.parametrize("trunk", ["keep", "none"])
def test_a_trunk_is_continued_only_where_it_is_asked_for(trunk, tmp_path):
    asked = job(tmp_path, trunk=trunk)
    keep_trunk(asked.parent)
    assert recipe_of(asked) == (asked.params.train, None)


def test_a_refresh_that_continues_starts_from_the_champions_trunk(tmp_path):
    asked = job(tmp_path, trunk="continue")
    kept = keep_trunk(asked.parent)
    recipe, trunk = recipe_of(asked)
    assert trunk == kept
    assert (recipe.schedule.name, recipe.schedule.warmup_steps, recipe.learning_rate) == ("anneal", 0, 0.01)


def test_where_the_parent_has_no_trunk_a_new_one_begins(tmp_path):
    asked = job(tmp_path, trunk="continue")
    assert recipe_of(asked) == (asked.params.train, None)


def test_a_member_of_the_family_without_a_trunk_is_not_annealed_a_second_time(tmp_path):
    """What it is to follow began from a trunk: its recipe holds the way down alone."""
    kept = keep_trunk(tmp_path / "champion" / "model")
    portions = {role: Portion(rows="rows", role=role, share=0.5) for role in ("general", "domain")}
    recipe = TrainConfig(tokens=1000, learning_rate=0.01, rows_per_step=1, schedule={"name": "anneal"})
    request = Request(
        name="r",
        label="m",
        model="m",
        portions=portions,
        row_tokens=16,
        recipe=recipe,
        held_out_tokens=16,
        out=str(tmp_path / "train"),
        trunk=kept,
    )
    with pytest.raises(
        ConfigError, match=r"pico of the family has kept no trunk.*set train\.trunk: keep, which begins"
    ):
        continued("pico", tmp_path / "pico", request, "line")


@pytest.mark.parametrize(("version", "told"), [(None, {}), (3, {"continues": 3})])
def test_requests_say_which_version_they_continue(tmp_path, version, told):
    held_out = SimpleNamespace(max_tokens=16)
    asked = SimpleNamespace(
        parent_version=version,
        base=SimpleNamespace(row_tokens=8),
        params=SimpleNamespace(prepare=SimpleNamespace(held_out=held_out)),
        layout=SimpleNamespace(root=tmp_path),
    )
    assert {key: value for key, value in Job.common.fget(asked).items() if key == "continues"} == told
