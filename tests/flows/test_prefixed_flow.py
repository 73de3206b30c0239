"""From prepare.prefixes to a run that reads them, by the commands that a person gives."""

import json

import pytest
import yaml


@pytest.fixture(scope="module")
def prefixed(new_project):
    made = new_project(
        "prefixed",
        400_000,
        prepare={"prefixes": {"field": "source"}},
        train={"tokens": 24_576, "loss": {"prefix": {"until_share": 0.5}}},
    )
    made.edit("models/bases/nano.yaml", lambda raw: raw["weights"].update(context=256))  # rows grow by their prefixes
    return made


def rows(project, source):
    return json.loads((project.root / "data" / "rows" / "nano" / source / "rows.json").read_text())


@pytest.mark.slow
def test_prefixes_are_packed_by_dvc_and_read_by_a_run_up_to_their_share(prefixed):
    prefixed.ratoon("prepare")
    packed = {name: rows(prefixed, name) for name in ("python-docs", "python-code")}
    assert all(index["prefixes"]["tokens"] > index["prefixes"]["documents"] > 0 for index in packed.values())
    lock = yaml.safe_load((prefixed.root / "dvc.lock").read_text())["stages"]
    assert lock["pack@nano-python-docs"]["params"]["params.yaml"]["prepare.prefixes"] == {"field": "source"}
    prefixed.ratoon("train", "--ratio", "0.3")
    (found,) = prefixed.root.glob(".ratoon/refreshes/ratoon-nano/*/train/result.json")
    read = json.loads(found.read_text())["data"]
    assert all(0 < each["prefix_tokens"] < 0.3 * each["tokens"] for each in read.values())

    # Another prefix packs anew, and nothing else is made again.
    prefixed.edit("params.yaml", lambda raw: raw["prepare"].update(prefixes={"field": "source", "label": "From"}))
    done = prefixed.ratoon("prepare")
    assert sorted(stage.split("@")[0] for stage in done.stdout.split("'")[1::2]) == ["pack", "pack"]
    assert rows(prefixed, "python-docs")["prefixes"]["key"] != packed["python-docs"]["prefixes"]["key"]
    assert rows(prefixed, "python-docs")["totals"] == packed["python-docs"]["totals"]
