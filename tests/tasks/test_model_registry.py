"""Promises of the registry: which model is in use, which was before, and where its weights are."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from ratoon.config import ConfigError
from tasks import environment, tracking


@pytest.fixture(scope="module")
def run_id(tmp_path_factory):
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    environment.apply(tmp_path_factory.mktemp("project"))
    with tracking.run("line", "train", kind="train") as run:
        pass
    yield run.id
    os.environ.clear()
    os.environ.update(before)


def model(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_version_points_to_weights_that_stay_where_they_are(run_id, tmp_path):
    folder = model(tmp_path / "m")
    number = tracking.register("pointed", folder, run_id, {"verdict": "pending"})
    assert number == 1
    assert tracking.version_path("pointed", 1) == folder
    found = tracking.versions("pointed")[0]
    assert found.tags["verdict"] == "pending"
    pointer = tracking.client().download_artifacts(run_id, "model/pointer.json", str(tmp_path))
    described = json.loads(Path(pointer).read_text(encoding="utf-8"))
    assert described["path"] == str(folder)
    assert described["files"]["model.safetensors"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match=r"pointed version 1: its weights are not at .*; bring the directory back"):
        tracking.version_path("pointed", 1)
    tracking.tag("pointed", 1, {"weights": "removed by ratoon gc 2026-11-21"})
    with pytest.raises(ConfigError, match=r"version 1: its weights were removed by ratoon gc 2026-11-21, from .*/m; "):
        tracking.version_path("pointed", 1)
    with pytest.raises(ConfigError, match="pointed: no version 7; there are 1"):
        tracking.version_path("pointed", 7)


def test_the_champion_moves_only_on_promotion_and_rollback_takes_it_back(run_id, tmp_path):
    assert tracking.champion("line") is None
    with pytest.raises(ConfigError, match=r"line: there is no previous champion.*no version was ever promoted"):
        tracking.rollback("line")
    numbers = [tracking.register("line", model(tmp_path / f"m{n}"), run_id) for n in range(3)]
    assert numbers == [1, 2, 3]
    assert tracking.champion("line") is None

    tracking.promote("line", 1)
    assert tracking.champion("line").version == 1
    with pytest.raises(ConfigError, match="no previous champion to go back to; version 1 is the only one so far"):
        tracking.rollback("line")

    tracking.refuse("line", 2, ["general loss rose by 3%", "no gain"])
    assert tracking.champion("line").version == 1

    tracking.promote("line", 3, ["domain -12%"])
    tracking.promote("line", 3)  # twice is once: the way back is not lost
    assert tracking.champion("line").version == 3
    assert tracking.champion("line").path == tmp_path / "m2"
    assert tracking.rollback("line") == (3, 1)
    assert tracking.champion("line").version == 1
    assert tracking.rollback("line") == (1, 3)

    tags = {item.version: item.tags for item in tracking.versions("line")}
    assert tags[2]["verdict"] == "refused"
    assert tags[2]["reasons"] == "general loss rose by 3%\nno gain"
    assert tags[3]["verdict"] == "promoted"
    assert tags[3]["replaces"] == "1"


def test_a_rollback_to_weights_that_are_gone_is_refused_and_changes_nothing(run_id, tmp_path):
    for name in ("a", "b"):
        tracking.promote("lost", tracking.register("lost", model(tmp_path / name), run_id))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(ConfigError, match="lost version 1: its weights are not at"):
        tracking.rollback("lost")
    assert tracking.champion("lost").version == 2


def test_the_same_weights_are_one_version_whatever_is_said_of_them(run_id, tmp_path):
    folder = model(tmp_path / "m")
    first = tracking.register("once", folder, run_id, {"gate": "ask"}, "asks")
    tracking.challenge("once", first, ["not shown"])
    (folder / "README.md").write_text("a card, which is no part of the weights", encoding="utf-8")
    assert tracking.register("once", folder, run_id, {"gate": "refuse"}, "refused") == first
    assert tracking.client().get_model_version("once", str(first)).description == "refused"
    tracking.refuse("once", first, ["too much forgotten"])
    assert tracking.challenger("once") is None  # nobody is asked about what is refused
    (folder / "model.safetensors").write_bytes(b"trained again")
    second = tracking.register("once", folder, run_id)
    tracking.tag("once", second, {"weights": "removed by ratoon gc 2026-11-21"})
    third = tracking.register("once", folder, run_id)
    assert [item.version for item in tracking.versions("once")] == [third, second, first]
    assert tracking.versions("once")[-1].tags["gate"] == "refuse"


def test_a_folder_that_is_no_model_is_not_registered(run_id, tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json and \*\.safetensors were expected, found config\.json"):
        tracking.register("none", tmp_path, run_id)
    assert tracking.versions("none") == []
