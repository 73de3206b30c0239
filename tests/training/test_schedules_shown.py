"""`ratoon train --show-schedule`: a drawing of what would be trained, from params.yaml and a base's declaration."""

import json
import re
from xml.etree import ElementTree

import pytest
import yaml

from ratoon import cli
from ratoon.config import Schedule
from ratoon.config.schedule import KINDS
from ratoon.report import schedule as drawn

BASE = """\
name: mine
row_tokens: 128
weights: {kind: pretrained, path: /nowhere}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with two declarations and nothing else; `make` writes train.schedule."""

    def make(**schedule):
        params = {
            "refresh": {"base": "mine", "sources": ["a", "b"]},
            "prepare": {"bases": ["mine"], "rules": {}},
            "sweep": {"tokens": 1000},
            "train": {"tokens": 1024 * 100, "learning_rate": 3e-4, "rows_per_step": 8, "schedule": schedule},
        }
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        (tmp_path / "models" / "bases").mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / "bases" / "mine.yaml").write_text(BASE)
        return tmp_path

    monkeypatch.chdir(tmp_path)
    return make


def shown(capsys, root, *more):
    code = cli.main(["--root", str(root), "train", "--show-schedule", *map(str, more)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_it_is_drawn_without_data_model_or_server_and_leaves_nothing_behind(project, capsys):
    root = project(name="wsd", warmup_steps=10)
    before = sorted(root.rglob("*"))
    code, out, _ = shown(capsys, root)
    assert code == 0
    assert out.startswith("wsd: 100 updates of 1,024 tokens, 102k in all")
    assert re.search(r"constant +11 to 80 +71.7k +0.0003\n", out)
    assert re.search(r"decay +81 to 100 +20.5k +0.000285 to 0\n", out)
    assert "sweep      yes" in out
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("steps", [30, 390, 1_000_000])
def test_a_drawing_is_80_columns_of_ascii_at_most(name, steps):
    text = drawn.text(drawn.Run(Schedule(name=name, warmup_steps=2), 2.6187e-4, steps, 2**21))
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80


def test_the_curve_is_high_where_the_rate_is_high():
    rows = drawn.plot(drawn.Run(Schedule(name="linear", warmup_steps=0), 1.0, 680, 1))[: drawn.ROWS]
    heights = {}
    for up, row in enumerate(reversed(rows)):
        heights |= {column: up for column, mark in enumerate(row.partition("|")[2]) if mark != " "}
    assert [heights[column] for column in range(68)] == pytest.approx(
        [drawn.ROWS * (1 - (column + 0.5) / 68) - 0.5 for column in range(68)], abs=1
    )


def test_a_warm_up_of_a_few_steps_in_a_million_is_still_seen():
    plot = drawn.plot(drawn.Run(Schedule(name="constant", warmup_steps=3), 1.0, 1_000_000, 1))
    assert all(row.partition("|")[2].startswith(("|", "'")) for row in plot[: drawn.ROWS - 5])


def test_why_a_schedule_cannot_be_swept_is_said(project, capsys):
    _, out, _ = shown(capsys, project(name="infinite", warmup_steps=5))
    assert "sweep      no: its cooldown is a share of the run's own length" in out


def test_what_is_asked_for_on_the_command_line_is_drawn(project, capsys):
    assert "50 updates" in shown(capsys, project(warmup_steps=10), "--tokens", 1024 * 50)[1]


def test_as_json_the_phases_have_their_updates_and_rates(project, capsys):
    code, out, _ = shown(capsys, project(name="infinite", warmup_steps=5, cooldown_steps=20), "--json")
    said = json.loads(out)
    assert (code, said["steps"], said["step_tokens"], said["trunk"]) == (0, 100, 1024, True)
    assert [(p["name"], p["first"], p["last"]) for p in said["phases"]] == [
        ("warm-up", 1, 5),
        ("cooldown", 6, 25),
        ("constant", 26, 86),
        ("anneal", 87, 100),
    ]
    assert said["phases"][-1]["to"] == pytest.approx(2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_svg_is_well_formed_says_its_phases_and_ends_where_the_rate_ends(name, tmp_path):
    run = drawn.Run(Schedule(name=name), 3e-4, 2000, 2**20)
    drawn.write(run, tmp_path / "rate.svg")
    root = ElementTree.parse(tmp_path / "rate.svg").getroot()
    texts = " ".join(filter(None, root.itertext()))
    for phase in run.phases():
        assert f"{phase.name} to update {phase.end:,}" in texts
    (curve,) = [e for e in root.iter() if e.get("class") == "law"]
    x, y = (float(number) for number in curve.get("d").rpartition("L")[2].split(","))
    last = run.phases()[-1].rate(2000)
    assert x == 640 - 16
    assert y == pytest.approx(320 - 44 - (320 - 44 - 40) * last / 3e-4 / 1.06, abs=0.06)


def test_out_writes_the_svg_where_the_command_was_given(project, capsys, monkeypatch):
    root = project(warmup_steps=10)
    below = root / "models"
    monkeypatch.chdir(below)
    assert cli.main(["train", "--show-schedule", "--out", "rate.svg"]) == 0
    assert (below / "rate.svg").read_text().startswith("<svg xmlns")
    assert "wsd: 100 updates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("schedule", "arguments", "why"),
    [
        ({}, ["--show-schedule", "--out", "rate.png"], "rate.png does not end in .svg"),
        ({}, ["--out", "rate.svg"], "only --show-schedule writes a file"),
        ({"warmup_steps": 100}, ["--show-schedule"], "100 steps of warm-up in a run of 100"),
        ({"name": "cosine", "tail": "sqrt"}, ["--show-schedule"], "params.yaml: train.schedule: tail is of wsd"),
        ({"warmup_steps": 0}, ["--show-schedule", "--tokens", "1000"], "1,000 is less than one step of 1,024 tokens"),
        ({}, ["--show-schedule", "--base", "other"], "to declare it, write models/bases/other.yaml"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(schedule, arguments, why, project, capsys):
    assert cli.main(["--root", str(project(**schedule)), "train", *arguments]) == 2
    assert why in capsys.readouterr().err
