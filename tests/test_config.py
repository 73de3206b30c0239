from pathlib import Path

import pytest
import yaml

from ratoon import config
from ratoon.config import Ask, ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path):
    """Writes params.yaml with one thing changed."""

    def write(change=lambda raw: None):
        raw = yaml.safe_load((ROOT / "params.yaml").read_text())
        change(raw)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
        return tmp_path

    return write


def refused(root, **kwargs):
    with pytest.raises(ConfigError) as caught:
        config.load(root, **kwargs)
    return str(caught.value)


def test_an_unknown_key_is_named_with_its_neighbour(project):
    message = refused(project(lambda raw: raw["train"].update(lerning_rate=1)))
    assert message == "params.yaml: train.lerning_rate: no key 'lerning_rate'; did you mean 'learning_rate'?"


def test_every_mistake_is_told_at_once(project):
    def change(raw):
        raw["train"]["tokens"] = -5
        raw["choose"]["tolerance"] = "much"

    message = refused(project(change))
    assert "params.yaml: train.tokens: Input should be greater than 0 (found -5)" in message
    assert "params.yaml: choose.tolerance" in message


def test_ranks_that_cannot_follow_the_recipe_are_refused_before_anything_is_trained(project):
    message = refused(project(lambda raw: raw["train"].update(processes=2, adapter={"name": "lora"})))
    assert message.startswith("params.yaml: train: adapter: lora on 2 ranks is not supported: weights are cut up there")
    assert message.endswith("leave it out, or train on one rank")


def test_a_ratio_in_percent_is_refused(project):
    assert "less than or equal to 1 (found 40)" in refused(
        project(lambda raw: raw["sweep"].update(ratios=[10, 20, 30, 40, 50]))
    )


def test_a_tolerance_in_percent_is_refused(project):
    message = refused(project(lambda raw: raw["choose"].update(tolerance=3)))
    assert message == "params.yaml: choose.tolerance: Input should be less than 1 (found 3)"


def test_fewer_than_five_ratios_are_refused(project):
    assert "3 ratios; the laws need at least five" in refused(
        project(lambda raw: raw["sweep"].update(ratios=[0.1, 0.2, 0.3]))
    )


def test_an_unknown_law_is_refused_with_those_there_are(project):
    assert "Input should be 'auto', " in refused(project(lambda raw: raw["choose"].update(law="chinchila")))


def test_an_unknown_budget_is_refused_with_a_guess(project):
    assert "no budget 'smal'; did you mean 'small'?" in refused(project(), budget="smal")


def test_a_budget_lies_over_params_and_what_was_asked_over_both(project):
    root = project()
    assert config.load(root, budget="small").train.tokens < config.load(root).train.tokens
    asked = Ask(tokens=4096, budget="small")
    params = config.load(root, budget=asked.budget, changes=asked.changes())
    assert params.train.tokens == 4096
    assert params.train.rows_per_step == config.load(root, budget="small").train.rows_per_step


def test_an_undeclared_source_is_refused_with_a_guess_and_a_way():
    with pytest.raises(
        ConfigError, match=r"no source 'python-dox'; did you mean 'python-docs'\?\n.*write data/sources/python-dox.yaml"
    ):
        config.source(ROOT, "python-dox")


def test_an_undeclared_base_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="no base 'gemma'; there are nano, pico, smollm2-135m"):
        config.base(ROOT, "gemma")


def test_a_declaration_in_a_file_of_another_name_is_refused(tmp_path):
    folder = tmp_path / "data" / "sources"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("name: b\nrole: domain\norigins: [{path: x}]\n")
    with pytest.raises(ConfigError, match="name is 'b'; it must be the file's, 'a'"):
        config.source(tmp_path, "a")


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("train: [")
    assert "not readable as YAML" in refused(tmp_path)


def test_a_day_that_is_none_is_told_with_its_line(tmp_path):
    (tmp_path / "params.yaml").write_text("prepare:\n  dates:\n    max_date: 2024-02-31\n")
    told = refused(tmp_path)
    assert "params.yaml: not readable as YAML: day is out of range for month" in told
    assert "line 3, column 15" in told


def test_a_missing_params_file_is_told_with_what_to_do(tmp_path):
    assert "not found; run from the project's folder or pass --root" in refused(tmp_path)
