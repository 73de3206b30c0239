"""Stages of dvc.yaml as forks of one process: the same bytes, the same words, the same end as alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCES = {"notes": ("general", "prose"), "sums": ("domain", "code")}
WORDS = ["".join(random.Random(n).choices("abcdefghijklmnoprstuvwy", k=3 + n % 7)) for n in range(600)]
STEPS = [
    "ingest notes",
    "ingest sums",
    "scorers",
    "score notes",
    "clean notes",
    "tokenizer nano",
    "pack nano notes",
]
MADE = ("data/documents", "data/scorers", "data/scores", "data/clean", "data/rows", "models/tokenizers")
HEAVY = {"torch", "transformers", "sklearn", "datasets", "lm_eval", "matplotlib", "prefect", "mlflow", "dvc"}
# What a stage has imported when it ends, as the last line of its output.
ALONE = """
import json, sys
from ratoon.cli import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""


def text(draw, kind):
    words = [" ".join(draw.choice(WORDS) for _ in range(12)) for _ in range(9)]
    if kind == "prose":
        return "\n".join(words)
    return "\n".join(f"def {line.split()[0]}_{n}(a):\n    # {line}\n    return a + {n}" for n, line in enumerate(words))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["refresh"]["sources"] = list(SOURCES)
    params["prepare"] |= {"bases": ["nano"], "held_out": {"share": 0.1, "max_tokens": 20_000, "min_documents": 5}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    draw = random.Random(0)
    for name, (role, kind) in SOURCES.items():
        raw = root / "data" / "raw" / name
        raw.mkdir(parents=True)
        lines = [json.dumps({"text": text(draw, kind)}) for _ in range(150)]
        (raw / "a.jsonl").write_text("\n".join(lines))
        declared = {"name": name, "role": role, "kind": kind, "origins": [{"path": f"data/raw/{name}"}]}
        (root / "data" / "sources").mkdir(exist_ok=True)
        (root / "data" / "sources" / f"{name}.yaml").write_text(yaml.safe_dump(declared))
    base = yaml.safe_load((ROOT / "models" / "bases" / "nano.yaml").read_text())
    base["weights"]["vocabulary"] = 512
    (root / "models" / "bases").mkdir(parents=True)
    (root / "models" / "bases" / "nano.yaml").write_text(yaml.safe_dump({**base, "family": []}))
    return root


def run(root, *words, **environ):
    given = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environ}
    return subprocess.run([sys.executable, *words], cwd=root, env=given, capture_output=True, text=True, timeout=300)


def warm(root, script, **environ):
    """A shell script below the warm process, `stage` for the command of dvc.yaml."""
    named = f'stage() {{ "{sys.executable}" -m ratoon prepare "$@"; }}\n{script}'
    return run(root, "-m", "ratoon.warm", "sh", "-c", named, **environ)


def files(root):
    found = (path for place in MADE for path in (root / place).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def alone(project, tmp_path_factory):
    """(the project with each stage made by a process of its own, step -> modules which that had imported)"""
    root = tmp_path_factory.mktemp("alone") / "project"
    shutil.copytree(project, root)
    imported = {}
    for step in STEPS:
        done = run(root, "-c", ALONE, "prepare", *step.split())
        assert done.returncode == 0, done.stderr
        imported[step] = set(json.loads(done.stdout.splitlines()[-1]))
    return root, imported


def test_what_forks_make_is_what_processes_of_their_own_make_to_the_byte(project, alone, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(project, root)
    done = warm(root, " && ".join(f"stage {step}" for step in STEPS))
    assert done.returncode == 0, done.stderr
    expected = files(alone[0])
    assert {path.split("/")[1] for path in expected} >= {"documents", "scores", "clean", "rows", "tokenizers"}
    assert files(root) == expected


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_imports_no_library_that_is_not_for_text(step, alone):
    # A tokenizer is written as transformers writes one, once for each base.
    writes = {"torch", "transformers"} if step.startswith("tokenizer") else set()
    assert not (HEAVY - writes) & alone[1][step]


@pytest.fixture(scope="module")
def known():
    """What the warm process imports before its first fork."""
    script = "import json, sys, ratoon.warm as it; it.warm_up(); print(json.dumps(sorted(sys.modules)))"
    return set(json.loads(run(ROOT, "-c", script).stdout))


def test_the_forking_process_imports_no_library_that_is_not_for_text(known):
    assert not HEAVY & known


@pytest.mark.parametrize("step", STEPS)
def test_a_fork_finds_imported_what_its_stage_needs(step, alone, known):
    assert not {name for name in alone[1][step] if name.startswith("ratoon.")} - known


def test_a_refusal_is_heard_word_for_word_with_its_exit_code(project):
    plain = run(project, "-m", "ratoon", "prepare", "ingest", "nix")
    done = warm(project, "stage ingest nix")
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    assert done.returncode == 2
    assert "no source 'nix'" in done.stderr


def test_the_commands_own_exit_code_is_the_warm_processs(project):
    assert warm(project, "exit 7").returncode == 7


def test_a_stage_sees_the_folder_and_the_environment_of_who_asked(project, alone, tmp_path):
    shutil.copytree(alone[0], tmp_path / "other")
    (tmp_path / "other" / "data" / "sources" / "notes.yaml").write_text("name: [")
    script = f"stage ingest notes; cd {tmp_path / 'other'} && stage ingest notes"
    done = warm(alone[0], script)
    assert done.returncode == 2
    assert "notes.yaml" in done.stderr


def test_where_nobody_answers_a_stage_does_its_work_itself(project, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(project, root)
    done = run(root, "-m", "ratoon", "prepare", "ingest", "notes", RATOON_WARM=str(tmp_path / "gone"))
    assert done.returncode == 0, done.stderr
    assert (root / "data" / "documents" / "notes" / "ledger.json").exists()


def test_a_socket_that_has_no_room_for_its_path_only_makes_it_slower(project, tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    root = tmp_path / "project"
    shutil.copytree(project, root)
    done = warm(root, "stage ingest notes", TMPDIR=str(long))
    assert done.returncode == 0, done.stderr
    assert (root / "data" / "documents" / "notes" / "ledger.json").exists()


def started(root, script):
    """The warm process in a session of its own, and all below it once a stage is under way."""
    command = [sys.executable, "-m", "ratoon.warm", "sh", "-c", script]
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A source that is a pipe nobody writes to: the stage waits in its work for as long as the test wants.
    return subprocess.Popen(command, cwd=root, env=given, start_new_session=True, stderr=subprocess.PIPE, text=True)


def below(process, count):
    """Its processes, once there are so many."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = psutil.Process(process.pid).children(recursive=True)
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(found)} processes, {count} expected")


@pytest.fixture
def waiting(project, tmp_path):
    """A warm process whose stage is at work and does not end."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    pipe = root / "data" / "raw" / "notes" / "b.jsonl"
    os.mkfifo(pipe)
    process = started(root, f'"{sys.executable}" -m ratoon prepare ingest notes; echo "ended $?" >&2')
    found = below(process, 3)  # the shell, who asked, the fork
    yield process, found
    for each in found:
        if each.is_running():
            each.kill()
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_session_leaves_nothing_running(waiting, number):
    process, found = waiting
    os.killpg(process.pid, number)
    assert not psutil.wait_procs(found, timeout=20)[1]
    assert process.wait(20) != 0


def test_who_asked_being_killed_ends_the_fork(waiting):
    process, found = waiting
    next(each for each in found if each.cmdline()[1:3] == ["-m", "ratoon"]).kill()
    assert "ended 137" in process.communicate(timeout=20)[1]
    assert not psutil.wait_procs(found, timeout=20)[1]


def test_a_fork_that_is_killed_ends_who_asked_in_the_same_way(waiting):
    process, found = waiting
    fork = next(each for each in found if each.ppid() == process.pid and "ratoon.warm" in each.cmdline())
    fork.kill()
    assert "ended 137" in process.communicate(timeout=20)[1]
