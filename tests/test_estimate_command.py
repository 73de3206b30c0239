import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import tasks.estimate
import tasks.prepare
from ratoon import cli, commands
from ratoon.training.estimate import Estimate, Memory, Seconds, SweepEstimate

ROOT = Path(__file__).parents[1]
RUN = Estimate(
    name="r",
    request="0",
    device="CPU",
    threads=2,
    params_non_embedding=150_000,
    tokens=1280,
    steps=10,
    step_tokens=128,
    micro_rows=8,
    flops=1.5e12,
    evaluation_flops=1e11,
    memory=Memory(
        process=400_000_000,
        weights=1_000_000,
        gradients=1_000_000,
        optimizer=2_000_000,
        methods=0,
        activations=96_000_000,
        training=500_000_000,
        evaluation=450_000_000,
        checkpoint=410_000_000,
    ),
    seconds=Seconds(start=2, train=100, evaluate=7, save=1),
    money=1.25,
    checkpoint_bytes=3_000_000,
    device_bytes=24_000_000_000,
    disk_free_bytes=50_000_000_000,
    disk_bytes=9_000_000,
    extrapolated=False,
)
SWEEP = SweepEstimate(
    groups=6, runs=24, branched=6, tokens=10**6, flops=1e12, seconds=300, workers=2, memory_bytes=10**9, money=None
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setattr(commands, "embedded", lambda root: None)
    monkeypatch.setattr(tasks.prepare, "open_job", SimpleNamespace(fn=lambda root, ask: ask))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_estimate_shows_time_memory_money_and_the_letter_and_trains_nothing(project, monkeypatch, capsys):
    monkeypatch.setattr(tasks.estimate, "estimate_target", lambda job: (RUN, "too dear"))
    assert cli.main(["--root", str(project), "train", "--estimate"]) == cli.DONE
    said = capsys.readouterr().out
    for word in ("1 min 50 s", "13 tokens/s", "500 MB", "1.25", "1.5e+12", "too dear"):
        assert word in said
    assert cli.main(["--root", str(project), "train", "--estimate", "--json"]) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["refused"] == "too dear"
    assert found["seconds"]["train"] == 100


def test_sweep_estimate_of_one_that_grows_says_both_ends(project, monkeypatch, capsys):
    monkeypatch.setattr(tasks.estimate, "estimate_proxies", lambda job: (SWEEP, SWEEP))
    assert cli.main(["--root", str(project), "sweep", "--estimate"]) == cli.DONE
    said = capsys.readouterr().out
    assert "to begin with" in said
    assert "at most" in said
    assert "not known" in said  # money without a price
    assert cli.main(["--root", str(project), "sweep", "--estimate", "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["at_most"]["runs"] == 24


def test_two_questions_at_once_are_refused(project, capsys):
    assert cli.main(["--root", str(project), "train", "--estimate", "--show-schedule"]) == cli.WRONG
    assert "two questions" in capsys.readouterr().err
