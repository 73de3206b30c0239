"""arms in params.yaml and on the command line: what is asked for, and that asking changes nothing else."""

from pathlib import Path

import pytest
import yaml

from ratoon import cli, config
from ratoon.config import ArmsConfig, ConfigError, Params
from ratoon.config.arms import FewShot, Retrieved, Seeded, Trained
from tasks.job import Job, digest

ROOT = Path(__file__).parents[1]


def job(params):
    base = config.base(ROOT, "nano")
    return Job(None, None, params, base, (), Path(), None, {}, Path())


def test_without_arms_params_are_what_they_were():
    params = config.load(ROOT)
    assert params.arms.asked == ()
    assert "arms" not in params.model_dump(mode="json")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert digest(Params.model_validate({**raw, "arms": {}}).model_dump(mode="json")) == digest(
        params.model_dump(mode="json")
    )


def test_asking_for_arms_does_not_change_the_question_of_a_refresh():
    plain = config.load(ROOT)
    asked = config.load(ROOT, changes={"arms": {"retrieved": {"passages": 2}, "scratch": {}}})
    assert asked.arms.asked == ("retrieved", "scratch")
    assert job(asked).question == job(plain).question
    assert Params.model_validate(asked.model_dump(mode="json")) == asked


def test_names_on_the_command_line_are_those_of_params_or_their_defaults():
    asked = ArmsConfig(retrieved=Retrieved(passages=3), scratch=Seeded(seed=5))
    assert asked.only(()) == asked
    assert asked.only(("retrieved", "few_shot")) == ArmsConfig(retrieved=Retrieved(passages=3), few_shot=FewShot())
    every = asked.only(tuple(ArmsConfig.model_fields))
    assert every.asked == tuple(ArmsConfig.model_fields)
    assert every.domain_only == Trained()


def test_an_arm_nobody_knows_and_none_at_all_are_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="no arm 'retreived'; did you mean 'retrieved'"):
        ArmsConfig().only(("retreived",))
    with pytest.raises(ConfigError, match=r"no arm is asked for; name some there, .*\n  there are few_shot, retrieved"):
        ArmsConfig().only(())


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"retrieved": {"passages": 0}}, "arms.retrieved.passages: Input should be greater than 0"),
        ({"retrieved": {"k": 3}}, "arms.retrieved.k: no key 'k'"),
        ({"scratch": {"tokens": "all"}}, "arms.scratch.tokens"),
        ({"retreived": {}}, "arms.retreived: no key 'retreived'; did you mean 'retrieved'?"),
    ],
)
def test_a_wrong_arm_is_refused_at_the_door(arms, said):
    with pytest.raises(ConfigError) as caught:
        config.load(ROOT, changes={"arms": arms})
    assert f"params.yaml: {said}" in str(caught.value)


def test_the_command_line_refuses_a_wrong_name_before_it_starts_anything(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert cli.main(["--root", str(tmp_path), "arms", "fewshot"]) == cli.WRONG
    assert "no arm 'fewshot'; did you mean 'few_shot'?" in capsys.readouterr().err
    assert cli.main(["--root", str(tmp_path), "arms"]) == cli.WRONG
    assert "`ratoon arms retrieved`" in capsys.readouterr().err
    assert not (tmp_path / ".ratoon").exists()
