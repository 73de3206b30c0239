"""The whole routine as a person runs it, on small text. Tests build on one another, in order."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def killed(project):
    """The first refresh, killed with -9 once its sweep has a finished group: its files' times then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ratoon", "refresh"],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(project.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    sweeps = project.root / ".ratoon" / "refreshes" / "ratoon-nano"
    deadline = time.monotonic() + 600
    while not (found := list(sweeps.glob("*/sweep/*/observations-*.csv"))):
        assert process.poll() is None, "the refresh ended before its sweep"
        assert time.monotonic() < deadline
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="session")
def first(project, killed):
    done = project.ratoon("refresh", "--json")
    return json.loads(done.stdout), done.stderr


def test_a_killed_refresh_goes_on_where_it_was(first, killed):
    assert killed
    assert {path: path.stat().st_mtime_ns for path in killed} == killed
    assert "12 ran" not in first[1]  # editions were not made again


def test_a_refresh_runs_through_every_room_and_registers_a_version(first, project):
    refresh, progress = first
    assert refresh["version"] == 1
    assert refresh["verdict"]["promoted"], refresh["verdict"]["reasons"]
    assert {c["metric"] for c in refresh["verdict"]["comparisons"]} == {"bits_per_byte", "accuracy"}
    assert {o["model"] for o in refresh["observations"]} == {"nano", "pico"}
    assert set(refresh["seconds"]) == {"prepare", "sweep", "train", "assess"}
    for stage in ("prepare", "sweep", "train", "assess"):
        assert stage in progress
    folder, _ = project.latest()
    assert "<svg" in (folder / "report.html").read_text()


def test_the_stored_scores_give_the_same_verdict_again(first, project):
    folder, refresh = project.latest()
    assert refresh["verdict"]["decision"] == "promote"
    said = json.loads(project.ratoon("gate", "--json").stdout)
    assert said == refresh["verdict"] == json.loads((folder / "verdict.json").read_text())
    lines = (folder / "assess" / "flips.jsonl").read_text().splitlines()
    counted = sum(item["negative"] + item["positive"] for item in said["flips"])
    assert len(lines) == counted


def test_the_ledgers_of_every_stage_add_up_and_follow_one_another(first):
    refresh, _ = first
    for source in ("python-docs", "python-code"):
        ingest, clean, pack = (x for x in refresh["ledgers"] if x["source"] == source)
        assert ingest["funnel"]["documents_kept"] == clean["funnel"]["documents_in"]
        assert clean["funnel"]["documents_kept"] == pack["funnel"]["documents_in"]


def test_the_lineage_names_every_edition_and_run(first):
    lineage = first[0]["lineage"]
    assert len(lineage["editions"]) == 4
    assert all(lineage["editions"].values())
    assert {"refresh", "train"} <= set(lineage["mlflow_runs"])


def test_dvc_repro_a_second_time_does_nothing(first, project):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=project.root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stdout
    assert "up to date" in done.stdout


def stages_of(done):
    """Of a command, by the lines it printed."""
    return {line.split()[0] for line in done.stderr.splitlines() if line.strip()}


def test_where_nothing_is_new_no_stage_begins_but_the_look(first, project):
    done = project.ratoon("refresh")
    assert done.stdout.startswith("nothing new for ratoon-nano since")
    assert not stages_of(done) & {"base", "sweep", "train", "assess"}
    assert project.latest()[1] == first[0]


def test_too_little_held_out_text_is_told_before_anything_is_trained(first, project):
    before = project.latest()[1]
    project.edit("data/benchmarks/next-passage.yaml", lambda raw: raw.update(min_documents=10_000))
    said = project.ratoon("refresh", "--seed", "77", code=2).stderr
    project.edit("data/benchmarks/next-passage.yaml", lambda raw: raw.pop("min_documents"))
    assert "it needs 10000" in said
    assert "sweep" not in said
    assert project.latest()[1] == before


def test_a_lost_remote_fails_with_a_letter_and_leaves_everything(first, project):
    import shutil

    config = project.root / ".dvc" / "config"
    kept = config.read_text()
    before = project.latest()[1]
    (project.root / "data" / "raw" / "python-code" / "note.txt").write_text("x = 1\n" * 100)
    shutil.rmtree(project.root / ".ratoon" / "dvc-remote", ignore_errors=True)
    config.write_text(kept.replace("../.ratoon/dvc-remote", "/proc/nowhere"))
    done = project.ratoon("refresh", code=1)
    assert "remote" in done.stderr
    assert "/proc/nowhere" in done.stderr
    config.write_text(kept)
    (project.root / "data" / "raw" / "python-code" / "note.txt").unlink()
    assert project.latest()[1] == before


def test_a_new_file_is_processed_alone_and_the_champion_is_continued(first, project):
    ingested = {p.name: p.stat().st_mtime_ns for p in (project.root / "data/documents/python-docs").glob("*.parquet")}
    new = "\n".join(f"def add_{n}(a, b):\n    return a + b + {n}" for n in range(400))
    (project.root / "data" / "raw" / "python-code" / "new.txt").write_text(new)
    refresh = json.loads(project.ratoon("refresh", "--json").stdout)
    assert refresh["version"] == 2
    assert refresh["lineage"]["parent"] == "ratoon-nano v1"
    assert {o["model"] for o in refresh["observations"]} == {"nano", "pico"}
    again = {p.name: p.stat().st_mtime_ns for p in (project.root / "data/documents/python-docs").glob("*.parquet")}
    assert again == ingested


def test_the_text_of_the_first_version_comes_back_after_the_second(first, project):
    done = json.loads(project.ratoon("restore", "1", "--json").stdout)
    packed = next(one for one in first[0]["ledgers"] if (one["source"], one["stage"]) == ("python-code", "pack"))
    ledger = "data/rows/nano/python-code/ledger.json"
    assert json.loads((Path(done["into"]) / ledger).read_text()) == packed
    assert json.loads((project.root / ledger).read_text()) != packed


def test_every_refresh_is_remembered_with_what_is_watched_and_what_was_forgotten(first, project):
    found = json.loads(project.ratoon("history", "--json").stdout)
    matrix = found["matrix"]
    assert [row["label"] for row in matrix["models"]] == ["base", "v1", "v2"]
    assert [each["name"] for each in matrix["slices"]] == ["notes.r1", "python-code.r1", "python-docs.r1"]
    assert all(value is not None for row in matrix["scores"] for value in row)
    # The second refresh brought one file: too little for a slice of its own, so there is no forward transfer yet.
    assert matrix["figures"]["domain"]["bwt"] is not None
    assert matrix["figures"]["domain"]["fwt"] is None
    assert set(matrix["figures"]["watched"]) == {"acc", "step", "total"}
    assert set(found) == {"matrix", "shift", "probes", "noise"}
    assert found["shift"]["total"]["distance"] > 0
    shown = project.ratoon("history").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "notes (watched)" in shown


def test_drift_without_new_text_says_so_and_trains_nothing(first, project):
    before = project.latest()[1]
    found = json.loads(project.ratoon("drift", "--json").stdout)
    assert found["champion"] == "v2"
    assert not found["drifted"]
    assert {each["source"]: each["drift"] for each in found["sources"]} == dict.fromkeys(
        ("notes", "python-code", "python-docs")
    )
    assert project.latest()[1] == before


def test_rollback_brings_the_former_champion_back(first, project):
    _, refresh = project.latest()
    if not refresh["verdict"]["promoted"]:
        pytest.fail(f"the second refresh was refused: {refresh['verdict']['reasons']}")
    said = json.loads(project.ratoon("rollback", "--json").stdout)
    assert said == {"model": "ratoon-nano", "from": 2, "to": 1}


def test_arms_hold_the_last_refresh_against_cheaper_ways_and_leave_the_registry_alone(first, project):
    before = json.loads(project.ratoon("status", "--json").stdout)["champion"]
    found = json.loads(project.ratoon("arms", "few_shot", "retrieved", "--json").stdout)
    assert json.loads(project.ratoon("status", "--json").stdout)["champion"] == before
    folder, refresh = project.latest()
    assert found["candidate"] == refresh["verdict"]["candidate"]
    assert [arm["name"] for arm in found["arms"]] == ["few_shot", "retrieved"]
    for arm in found["arms"]:
        assert [c["items"] for c in arm["comparisons"]] == [c["items"] for c in refresh["verdict"]["comparisons"]]
    assert json.loads((folder / "arms.json").read_text()) == found


def test_a_person_promotes_a_version_by_name_and_reason(first, project):
    said = json.loads(project.ratoon("promote", "2", "--by", "Ann", "--because", "no complaints", "--json").stdout)
    assert (said["model"], said["version"], said["replaces"], said["notes"]) == ("ratoon-nano", 2, 1, [])
    assert said["report"].endswith("report.html")
    assert json.loads(project.ratoon("status", "--json").stdout)["champion"]["version"] == 2
    assert (
        "no version 9; there are 2, 1" in project.ratoon("promote", "9", "--by", "A", "--because", "b", code=2).stderr
    )


def test_a_wrong_key_is_refused_before_anything_starts(project):
    kept = (project.root / "params.yaml").read_text()
    project.edit("params.yaml", lambda raw: raw["train"].update(tokns=1))
    done = project.ratoon("refresh", code=2)
    (project.root / "params.yaml").write_text(kept)
    assert "params.yaml: train.tokns: no key 'tokns'; did you mean 'tokens'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tracking_store_that_never_answered_is_not_waited_for_and_nothing_is_begun(project):
    away = {"MLFLOW_TRACKING_URI": "sqlite:////proc/nowhere/mlflow.db", "RATOON_MLFLOW_PATIENCE": "1000000"}
    done = project.ratoon("refresh", "--force", code=1, **away)
    assert "MLflow at sqlite:////proc/nowhere/mlflow.db does not answer" in done.stderr
    assert "waiting for it" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not stages_of(done) & {"sweep", "train", "assess"}


def test_a_failed_flow_run_carries_the_letter_in_its_state(project):
    script = """
from pathlib import Path
from tasks import environment
environment.apply(Path.cwd())
from flows.prepare import prepare
from ratoon.config import Ask
state = prepare(Ask(base="gemma"), return_state=True)
print(state.name, "|", state.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True, timeout=300, check=True
    )
    name, message = done.stdout.strip().splitlines()[0].split(" | ", 1)
    assert name == "Failed"
    assert "no base 'gemma'; there are nano, pico, smollm2-135m" in message


def test_damaged_rows_fail_the_refresh_and_leave_the_champion(first, project):
    rows = next((project.root / "data/rows/nano/python-docs/train").glob("*.tokens"))
    kept = rows.read_bytes()
    rows.unlink()  # a link into DVC's cache may be shared: replaced, never written through
    rows.write_bytes(kept[:-2])
    before = json.loads(project.ratoon("status", "--json").stdout)["champion"]
    done = project.ratoon("train", "--ratio", "0.3", code=2)
    assert "bytes" in done.stderr
    assert "expected" in done.stderr
    assert json.loads(project.ratoon("status", "--json").stdout)["champion"] == before
    rows.unlink()
    rows.write_bytes(kept)
