"""Arms that are trained: the target's request but for one thing, and never twice the same."""

import pytest

from ratoon import records
from ratoon.config import ConfigError, TrainConfig
from ratoon.config.arms import Seeded, Trained
from ratoon.lm.fresh import forget
from ratoon.lm.load import load_model
from ratoon.training.controls import control, same_request
from ratoon.training.reading import Reading
from ratoon.training.request import Result, Trunk, ended
from ratoon.training.run import train

TRUNK = Trunk(folder="t", hash="0" * 12, learning_rate=0.01, peak=0.01, step=5)


def differing(one, other):
    """Names of what two requests do not have in common."""
    a, b = one.model_dump(mode="json"), other.model_dump(mode="json")
    recipe = {f"recipe.{key}" for key in a["recipe"] if a["recipe"][key] != b["recipe"][key]}
    return {key for key in a if a[key] != b[key] and key != "recipe"} | recipe


def test_a_control_differs_from_the_target_in_one_thing(request_for, tmp_path):
    target = request_for()
    plain = control("domain_only", Trained(), target, target.recipe, tmp_path / "a")
    assert differing(plain, target) == {"name", "out", "recipe.trunk"}
    assert plain.identity() == target.identity()
    other = control("second_seed", Seeded(seed=7), target, target.recipe, tmp_path / "b")
    assert differing(other, target) == {"name", "out", "recipe.trunk", "recipe.seed"}
    less = control("replay_only", Trained(tokens=1280), target, target.recipe, tmp_path / "c")
    assert differing(less, target) == {"name", "out", "recipe.trunk", "recipe.tokens"}
    fresh = control("scratch", Seeded(seed=7), target, target.recipe, tmp_path / "d")
    assert differing(fresh, target) == {"name", "out", "recipe.trunk", "model"}
    assert len({one.identity() for one in (plain, other, less, fresh)}) == 4


@pytest.mark.parametrize(("name", "share", "other"), [("domain_only", 1.0, "general"), ("replay_only", 0.0, "domain")])
def test_an_arm_of_one_role_reads_it_alone_whatever_the_phases_of_the_target(name, share, other, request_for, tmp_path):
    target = request_for(share=share, mixture={"phases": [{"until": 0.5, "share": 0.5}]})
    assert other in Reading(target).account(target.steps)
    alone = control(name, Trained(), target, target.recipe, tmp_path)
    assert other not in Reading(alone).account(alone.steps)
    assert control("second_seed", Seeded(), target, target.recipe, tmp_path).recipe.mixture == target.recipe.mixture


def test_a_second_seed_that_is_the_first_is_refused(request_for, tmp_path):
    target = request_for(seed=1)
    with pytest.raises(ConfigError, match=r"^params\.yaml: arms\.second_seed\.seed: 1, and .* give another$"):
        control("second_seed", Seeded(), target, target.recipe, tmp_path)


def test_random_weights_have_no_parent_to_be_held_near_and_no_trunk(request_for, tmp_path):
    held = {"anchor": {"epsilon": 0.5, "every": 2}}
    target = request_for(forgetting=held).model_copy(update={"trunk": TRUNK})
    own = TrainConfig.model_validate({**target.recipe.model_dump(), "learning_rate": 0.02})
    fresh = control("scratch", Seeded(), target, own, tmp_path)
    assert fresh.trunk is None
    assert fresh.recipe.forgetting == TrainConfig.model_fields["forgetting"].default
    assert fresh.recipe.learning_rate == 0.02
    again = control("domain_only", Trained(), target, own, tmp_path)
    assert again.trunk == TRUNK
    assert again.recipe.forgetting == target.recipe.forgetting


def test_random_weights_are_those_of_their_seed_in_the_parents_shape(tiny, tmp_path):
    folders = [forget(tiny / "model", seed, tmp_path / name) for seed, name in ((1, "a"), (1, "b"), (2, "c"))]
    parent, one, same, other = (dict(load_model(path).named_parameters()) for path in (tiny / "model", *folders))
    assert {name: p.shape for name, p in one.items()} == {name: p.shape for name, p in parent.items()}
    assert all((one[name] == same[name]).all() for name in one)
    drawn = [name for name in one if one[name].dim() > 1]
    assert all((one[name] != other[name]).any() and (one[name] != parent[name]).any() for name in drawn)


def finish(request, folder):
    result = Result(
        name="r",
        model=str(folder),
        steps=1,
        tokens=1,
        params_non_embedding=1,
        seconds=1,
        tokens_per_second=1,
        observations=(),
    )
    records.write(folder / "request.json", request)
    records.write(folder / "result.json", result)


def test_a_finished_run_that_was_asked_the_same_is_found_and_no_other(request_for, tmp_path):
    target = request_for()
    arm = control("domain_only", Trained(), request_for(share=1.0), target.recipe, tmp_path / "arm")
    folders = [tmp_path / "unfinished", tmp_path / "target", tmp_path / "twin"]
    finish(target, folders[1])
    assert same_request(arm, folders) is None
    finish(request_for(share=1.0), folders[2])
    assert same_request(arm, folders) == folders[2]
    moved = arm.model_copy(update={"model": str(tmp_path / "elsewhere" / "model")})
    assert same_request(moved, folders) is None
    result = records.read(folders[2] / "result.json", Result)
    records.write(folders[2] / "result.json", result.model_copy(update={"model": str(folders[2] / "gone")}))
    assert ended(folders[2]) is None
    assert same_request(arm, folders) is None


@pytest.mark.parametrize(("name", "share"), [("domain_only", 1.0), ("replay_only", 0.0)])
def test_an_arm_at_either_end_trains_and_is_measured_on_both(name, share, request_for, tmp_path):
    request = control(name, Trained(tokens=1280), request_for(share=share), request_for().recipe, tmp_path)
    result = train(request)
    assert {o.evaluated for o in result.observations} == {"general", "domain"}
    read = {source: one.tokens for source, one in result.data.items() if one.tokens}
    assert read == {"domain" if share else "general": 1280}
