"""Promises of the bill of materials: complete, the same twice, and every package in it as it was pinned."""

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from tasks import inventory

ROOT = Path(__file__).parents[2]


class Made:
    """A package of which the metadata alone is known."""

    def __init__(self, version: str, *requires: str, **fields: str) -> None:
        self.version, self.requires, self.metadata = version, list(requires), fields


WITHIN = {
    "ratoon": Made("1", "b>=1", 'c; extra == "web"', 'never; python_version < "3"'),
    "b": Made("2", "Deep_One"),
    "c": Made("3+cpu"),
    "deep-one": Made("4", **{"License-Expression": "MIT"}),
    "stranger": Made("5"),
}


def test_what_the_program_reaches_is_held_against_its_pins():
    assert inventory.reached("ratoon", WITHIN) == {"ratoon", "b", "c", "deep-one"}
    pinned = {"b": "2", "c": "3", "deep-one": "4"}
    assert inventory.strays(WITHIN, pinned) == []
    assert inventory.strays(WITHIN, {**pinned, "b": "1"}) == ["b 2: pinned to 1"]
    assert inventory.strays(WITHIN, {"b": "2", "c": "3"}) == ["deep-one 4: no pin"]
    # Where the program itself is not installed nothing is reached, and nothing was checked.
    assert "not installed here" in inventory.strays({"b": WITHIN["b"]}, pinned)[0]


def test_the_bill_names_every_package_once_with_what_it_needs():
    made = inventory.bill(WITHIN)
    assert [item["purl"] for item in made["components"]] == [
        "pkg:pypi/b@2",
        "pkg:pypi/c@3+cpu",
        "pkg:pypi/deep-one@4",
        "pkg:pypi/stranger@5",
    ]
    needs = {item["ref"]: item["dependsOn"] for item in made["dependencies"]}
    assert needs["pkg:pypi/ratoon@1"] == ["pkg:pypi/b@2", "pkg:pypi/c@3+cpu"]
    assert made["components"][2]["licenses"] == [{"expression": "MIT"}]
    assert made["metadata"]["component"]["name"] == "ratoon"
    assert json.dumps(inventory.bill(WITHIN)) == json.dumps(made)
    assert inventory.bill({**WITHIN, "b": Made("2.1")})["serialNumber"] != made["serialNumber"]


def test_the_bill_of_this_very_installation_is_whole(tmp_path):
    target = tmp_path / "sbom.json"
    inventory.main([str(target), str(ROOT / "constraints.txt")])
    made = json.loads(target.read_text(encoding="utf-8"))
    refs = [item["bom-ref"] for item in made["components"]]
    assert len(refs) == len(set(refs)) > 100
    assert all(re.fullmatch(r"pkg:pypi/[a-z0-9-]+@\S+", ref) for ref in refs)
    known = {*refs, made.get("metadata", {}).get("component", {}).get("bom-ref")}
    assert all({entry["ref"], *entry["dependsOn"]} <= known for entry in made["dependencies"])
    assert f"pkg:pypi/torch@{metadata.version('torch')}" in known


def test_everything_the_project_asks_for_is_installed_as_it_is_pinned():
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    within = inventory.installed()
    within["ratoon"] = Made("0", *wanted)  # as this checkout says, whatever was installed when
    pinned = inventory.pins((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    strays = inventory.strays(within, pinned)
    assert strays == []


@pytest.mark.parametrize("line", ["Flask-WTF==1.3.0", "flask_wtf==1.3.0"])
def test_a_pin_is_found_however_it_is_spelt(line):
    assert inventory.pins([line, "# a==1", "b>=2"]) == {"flask-wtf": "1.3.0"}
