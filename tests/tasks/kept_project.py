"""A project refreshed in seconds: real Git, DVC and MLflow; stages that copy, weights of a few bytes."""

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml

from ratoon import records
from ratoon.config import Ask
from ratoon.layout import Layout
from tasks import tracking, versions
from tasks.job import Job, folder_of, resolve
from tasks.origin import TAG, keep_origin

SOURCES = {"words": "general", "code": "domain"}
PARAMS = {
    "refresh": {"base": "tiny", "sources": [*SOURCES], "model": "line"},
    "prepare": {"bases": ["tiny"], "rules": {}, "held_out": {"share": 0.1, "max_tokens": 100, "min_documents": 1}},
    "train": {"tokens": 1000, "learning_rate": 0.1, "rows_per_step": 1, "schedule": {"name": "constant"}},
    "sweep": {"ratios": [0.1, 0.2, 0.3, 0.5, 0.8], "tokens": 100, "horizons": 2},
    "retention": {"refused": 0, "editions": 0, "days": 0},
}
MAKE = """
import pathlib, shutil, sys
name = sys.argv[1]
text = pathlib.Path(f"data/raw/{name}/text.txt").read_text()
for stage in (f"documents/{name}", f"clean/{name}", f"rows/tiny/{name}"):
    folder = pathlib.Path("data") / stage
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(text.split()):
        (folder / "parts" / f"{number}.txt").write_text(f"{stage} {line}")
    (folder / "whole.txt").write_text(text)
"""
IGNORED = "/.ratoon/\n/data/documents/\n/data/clean/\n/data/rows/\n/data/raw/\n"


def git(root, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")


def new_project(root):
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    write(root / ".dvc" / "config", "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../remote\n")
    write(root / ".gitignore", IGNORED)
    write(root / "params.yaml", PARAMS)
    write(root / "make.py", MAKE)
    outs = [f"data/{stage}/${{item}}" for stage in ("documents", "clean", "rows/tiny")]
    make = {"cmd": "python make.py ${item}", "deps": ["make.py", "data/raw/${item}"], "outs": outs}
    write(root / "dvc.yaml", {"stages": {"make": {"foreach": [*SOURCES], "do": make}}})
    for name, role in SOURCES.items():
        declared = {"name": name, "role": role, "kind": "prose", "origins": [{"path": f"data/raw/{name}"}]}
        write(root / "data" / "sources" / f"{name}.yaml", declared)
        write(root / "data" / "raw" / name / "text.txt", f"one two {name}")
    weights = {"kind": "scratch", "hidden": 8, "layers": 1, "heads": 1, "feed_forward": 8, "tokens": 100}
    weights |= {"learning_rate": 0.1, "rows_per_step": 1}
    write(root / "models" / "bases" / "tiny.yaml", {"name": "tiny", "row_tokens": 8, "weights": weights})
    write(root / "data" / "benchmarks" / "questions.yaml", {"name": "questions", "form": {"kind": "held_out"}})
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def job_of(root, parent_version=None):
    layout, ask = Layout(root), Ask()
    params, base, sources = resolve(root, ask)
    hashes = versions.hashes(root)
    editions = {path: md5 for path, md5 in hashes.items() if "documents" not in path}
    job = Job(layout, ask, params, base, sources, root / "parent", parent_version, editions, Path())
    return Job(**{**job.__dict__, "folder": folder_of(layout, job.line, job.question, parent_version)})


def model(folder, content):
    """A model's directory, its optimizer and an earlier checkpoint, a trunk beside them."""
    for name in ("checkpoints/step-1", "checkpoints/step-2", "trunk/step-1"):
        write(folder / name / "config.json", "{}")
        write(folder / name / "model.safetensors", f"{content} {name}")
        write(folder / name / "state" / "optimizer.safetensors", "moments")
    write(folder / "request.json", "{}")
    write(folder / "result.json", "{}")
    return folder / "checkpoints" / "step-2"


def refreshed(root, verdict):
    """One refresh from editions to a registered version: (version, every file it is made of -> sha256)."""
    versions.repro(root)
    found = tracking.champion("line")
    job = job_of(root, found.version if found else None)
    name = keep_origin.fn(job)
    with tracking.run("line", "train", kind="train") as run:
        pass
    made = model(job.folder / "train", job.folder.name)
    number = tracking.register("line", made, run.id, {"verdict": verdict, TAG: name})
    if verdict == "promoted":
        tracking.promote("line", number)
    write(job.folder / "refresh.json", f'{{"at": "{datetime.now(UTC)}"}}')
    records.write_text(job.layout.latest("line"), f'{{"folder": "{job.folder.name}", "question": "{job.question}"}}')
    return number, state_of(root)


def state_of(folder):
    """Corpora and config, file by file."""
    places = ["params.yaml", "dvc.yaml", "dvc.lock", "data/sources", "data/benchmarks", "models/bases"]
    places += ["data/documents", "data/clean", "data/rows"]
    files = [path for place in places for path in [folder / place, *sorted((folder / place).rglob("*"))]]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


def edit(root, text, seed):
    """Change everything a refresh reads: text, parameters, declarations, benchmarks."""
    for name in SOURCES:
        write(root / "data" / "raw" / name / "text.txt", f"{text} {name}")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"]["seed"] = seed
    write(root / "params.yaml", params)
    path = root / "data" / "benchmarks" / "questions.yaml"
    path.write_text(path.read_text() + f"# {text}\n")
    write(root / "data" / "sources" / f"more{seed}.yaml", f"# {text}\n")
