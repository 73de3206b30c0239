import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ratoon import cli, records
from ratoon.laws.equations.dcpt import DCPT
from ratoon.records import Observation

ROOT = Path(__file__).parents[1]
VERBS = [
    "refresh",
    "prepare",
    "bench",
    "sweep",
    "fit",
    "choose",
    "train",
    "assess",
    "arms",
    "report",
    "gate",
    "promote",
    "rollback",
    "deploy",
    "notify",
    "up",
    "down",
    "status",
    "logs",
    "restore",
    "gc",
    "backup",
    "upgrade",
    "history",
    "drift",
    "judges",
    "sync",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A planted study: five ratios, four lengths, one size; general loss rises with the domain share."""
    general = DCPT(E=2.0, A=0.0, a=0.34, B=0.02, n=0.5, b=0.2, C=0.4, e=0.2, c=0.5)
    domain = DCPT(E=1.5, A=0.0, a=0.34, B=0.05, n=0.4, b=0.25, C=0.6, e=0.15, c=0.4)
    rows = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        for tokens in (0, 10**8, 2 * 10**8, 4 * 10**8, 8 * 10**8):
            for role, law, own in (("general", general, 1 - share), ("domain", domain, share)):
                start = {"general": 2.9, "domain": 3.2}[role]
                loss = float(law.loss(1e8, tokens, own)) if tokens else start
                rows.append(
                    Observation(
                        run=f"{share}-{tokens}",
                        group=str(share),
                        commit=None,
                        config="",
                        model="planted",
                        params_non_embedding=10**8,
                        tokens=tokens,
                        share=share,
                        learning_rate=1e-4,
                        step=tokens // 10**6,
                        finished=tokens > 0,
                        evaluated=role,
                        role=role,
                        loss_nats=loss,
                        bits_per_byte=None,
                    )
                )
    path = tmp_path_factory.mktemp("study") / "runs.csv"
    records.write_observations(path, rows)
    return path


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(f"    {verb} " in said for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_within_a_terminals_width(verb, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 112


def test_outside_a_project_is_told_with_what_to_do(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "status"]) == cli.WRONG
    assert "no params.yaml here; go to a ratoon project, or pass --root" in capsys.readouterr().err


def test_fit_prints_every_law_with_its_evidence(runs, capsys):
    assert cli.main(["--root", str(ROOT), "fit", str(runs), "--target", "N=1e8,D=1.6e9"]) == cli.DONE
    said = capsys.readouterr().out
    assert "dcpt" in said
    assert "cmr" in said
    assert "unseen" in said


def test_fit_as_json_is_one_document(runs, capsys):
    assert cli.main(["--root", str(ROOT), "fit", str(runs), "--json"]) == cli.DONE
    assert {law["role"] for law in json.loads(capsys.readouterr().out)["laws"]} == {"general", "domain"}


def test_choose_gives_a_share_an_interval_and_a_reason(runs, capsys):
    arguments = ["choose", str(runs), "--target", "N=1e8,D=1.6e9", "--tolerance", "3%", "--json"]
    assert cli.main(["--root", str(ROOT), *arguments]) == cli.DONE
    choice = json.loads(capsys.readouterr().out)
    assert choice["tolerance"] == pytest.approx(0.03)
    assert 0 < choice["share"] <= 1
    assert choice["interval"]["low"] <= choice["interval"]["high"]
    assert choice["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.csv"], "nowhere.csv: not found"),
        (["fit", "RUNS", "--target", "M=3"], "'M=3' is not N=... or D=..."),
        (["choose", "RUNS", "--tolerance", "some"], "'some' is no share; give 0.02 or 2%"),
        (["refresh", "--ratio", "30"], "ratio: Input should be less than or equal to 1"),
        (["prepare", "pack", "nano"], "takes 2 names"),
        (["prepare", "ingest", "python-dox"], "did you mean 'python-docs'?"),
    ],
)
def test_what_cannot_be_done_is_refused_with_exit_code_2(arguments, message, runs, capsys):
    given = [str(runs) if word == "RUNS" else word for word in arguments]
    assert cli.main(["--root", str(ROOT), *given]) == cli.WRONG
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("words", ["[Errno 28] No space left on device", "database or disk is full"])
def test_a_full_disk_is_told_with_its_room_and_what_to_do(words, tmp_path, monkeypatch, capsys):
    def call(asked, root):
        try:
            raise OSError(words)
        except OSError as error:
            raise RuntimeError("the sweep failed") from error

    (tmp_path / "params.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ratoon.commands.show_report", call)
    assert cli.main(["report"]) == 1
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "MiB free" in said
    assert "ratoon gc" in said


SLEEPS = """
import sys, time
from ratoon import cli, commands
def call(asked, root):
    try:
        print("begun", flush=True)
        time.sleep(600)
    finally:
        print("saved", flush=True)
commands.show_report = call
sys.exit(cli.main(["report"]))
"""


def test_sigterm_ends_a_command_as_ctrl_c_does_and_says_so(tmp_path):
    (tmp_path / "params.yaml").write_text("{}")
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    out, said = process.communicate()
    assert out == "saved\n"
    assert "the same command goes on from there" in said
    assert process.returncode == 143


@pytest.mark.parametrize(("decision", "code"), [("promote", 0), ("refuse", 3), ("ask", 4)])
def test_assess_ends_with_the_code_of_its_verdict(decision, code, monkeypatch, capsys):
    answer = {"decision": decision, "promoted": decision == "promote", "reasons": "so it is"}
    monkeypatch.setattr("ratoon.commands.run_flow", lambda *asked: SimpleNamespace(result=lambda: answer))
    assert cli.main(["--root", str(ROOT), "assess"]) == code
    assert decision in capsys.readouterr().out
