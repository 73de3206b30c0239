"""A project of its own in a temporary folder: this checkout with small sources and small budgets."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SMALL = {
    "prepare": {"bases": ["nano"], "held_out": {"share": 0.1, "max_tokens": 20_000, "min_documents": 5}},
    "train": {"tokens": 98_304, "learning_rate": 0.002, "rows_per_step": 8, "evaluations": 3},
    "sweep": {"ratios": [0.1, 0.3, 0.5, 0.7, 0.9], "tokens": 49_152, "horizons": 2},
    "choose": {"tolerance": 0.5, "bootstrap": 50},
    "promote": {"max_general_loss": 0.5, "max_benchmark_loss": 1.0},
    "assess": {"max_documents": 30, "max_bytes": 1000, "items": 40, "bootstrap": 300},
}
WORDS = ["field", "cane", "root", "stem", "leaf", "rain", "soil", "press", "juice", "syrup", "mill", "harvest", "tall"]
SOURCES = {
    "python-docs": ("general", "prose", "prose"),
    "python-code": ("domain", "code", "code"),
}


def lay_over(under, over):
    for key, value in over.items():
        under[key] = {**under.get(key, {}), **value}
    return under


class Project:
    def __init__(self, root):
        self.root = root

    def ratoon(self, *arguments, code=0, timeout=600, **environment):
        """Run the command line as a person does; returns the finished process."""
        done = subprocess.run(
            [sys.executable, "-m", "ratoon", *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=timeout,
            # Weather that a test makes does not clear up: no use in waiting for it.
            env={**os.environ, "PYTHONPATH": str(self.root), "RATOON_PAUSES": "0.1", **environment},
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def edit(self, path, change):
        file = self.root / path
        raw = yaml.safe_load(file.read_text())
        change(raw)
        file.write_text(yaml.safe_dump(raw))

    def latest(self, line="ratoon-nano"):
        folder = self.root / ".ratoon" / "refreshes" / line
        name = json.loads((folder / "latest.json").read_text())["folder"]
        return folder / name, json.loads((folder / name / "refresh.json").read_text())


def watch(project):
    """A small source that is scored and never trained on."""
    draw = random.Random(0)
    texts = [" ".join(draw.choice(WORDS) for _ in range(90)) for _ in range(120)]
    raw = project.root / "data" / "raw" / "notes"
    raw.mkdir(parents=True)
    (raw / "notes.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    source = {"name": "notes", "role": "general", "kind": "prose", "origins": [{"path": "data/raw/notes"}]}
    (project.root / "data" / "sources" / "notes.yaml").write_text(yaml.safe_dump(source))
    project.edit("params.yaml", lambda raw: raw["refresh"].update(watch=["notes"]))


@pytest.fixture(scope="session")
def new_project(tmp_path_factory):
    """Makes a project, its parameters changed further, its bases trained on so many tokens."""

    def make(name, base_tokens, **changes):
        root = tmp_path_factory.mktemp(name)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for path in listed.stdout.splitlines():
            if (ROOT / path).is_file() and not path.startswith(("tests/", "docs/")):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, root / path)
        made = Project(root)
        made.edit("params.yaml", lambda raw: lay_over(lay_over(raw, SMALL), changes))
        for source, (role, kind, content) in SOURCES.items():
            origins = [
                {"packages": ["networkx"], "content": content},
                {"path": f"data/raw/{source}", "optional": True},
            ]
            declared = {"name": source, "role": role, "kind": kind, "origins": origins}
            (root / "data" / "sources" / f"{source}.yaml").write_text(yaml.safe_dump(declared))
        watch(made)
        for base in ("nano", "pico"):
            made.edit(
                f"models/bases/{base}.yaml", lambda raw: raw["weights"].update(tokens=base_tokens, vocabulary=1024)
            )
        as_t = ["-c", "user.name=t", "-c", "user.email=t@t"]
        for command in (["init", "-q"], ["add", "-A"], [*as_t, "commit", "-qm", "t"]):
            subprocess.run(["git", *command], cwd=root, check=True)
        return made

    return make


@pytest.fixture(scope="session")
def project(new_project):
    return new_project("project", 400_000)
