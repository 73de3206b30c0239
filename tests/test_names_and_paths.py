"""Promises about names that come from a form or a command line: none of them leads out of the project."""

import random
import string
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from ratoon import config
from ratoon.cli import main
from ratoon.config import ConfigError
from ratoon.config.declaration import Name
from ratoon.layout import Layout

ROOT = Path(__file__).parents[1]
CANARY = "canary-4711-of-another-file"
ALPHABET = "ab1._-" + "/\\\x00\n\r \t:~$%é‮" + "A"
KNOWN = [
    "../x",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/../../x",
    "a\x00b",
    "..\\x",
    "a/b",
    "~root",
    "a\n",
    "x" * 65,
    "-rf",
    ".git",
]
NAMES = TypeAdapter(Name)


def drawn(seed: int, count: int = 100) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choice(ALPHABET) for _ in range(draw.randint(0, 12))) for _ in range(count)]


def good(name: str) -> bool:
    try:
        NAMES.validate_python(name)
    except ValidationError:
        return False
    return True


EVIL = [name for name in [*KNOWN, *drawn(1)] if not good(name)]


@pytest.fixture
def project(tmp_path):
    """A project beside files that are none of its business."""
    root = tmp_path / "project"
    for folder in ("data/sources", "data/benchmarks", "models/bases"):
        (root / folder).mkdir(parents=True)
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    for place in (tmp_path, root, root / "data", root / "models"):
        (place / "x.yaml").write_text(f"name: {CANARY}\n", encoding="utf-8")
    return root


def test_a_name_that_is_taken_stays_one_folder_below_its_room(tmp_path):
    layout = Layout(tmp_path / "project")
    kept = [name for seed in range(60) for name in drawn(seed) if good(name)]
    assert len(kept) > 50
    for name in kept:
        for path in (
            layout.documents(name),
            layout.clean(name),
            layout.rows(name, name),
            layout.tokenizer(name),
            layout.refreshes(name),
            layout.history(name),
        ):
            assert path.parent.resolve() == Path(path.parent)
            assert path.resolve() == path, name
            assert path.resolve().is_relative_to(layout.root)
            assert set(name) <= set(string.ascii_lowercase + string.digits + "._-")


def test_declarations_are_read_by_name_and_never_from_elsewhere(project):
    assert len(EVIL) > 80
    for name in EVIL:
        for read in (config.source, config.base, config.benchmark):
            with pytest.raises(ConfigError) as raised:
                read(project, name)
            assert CANARY not in str(raised.value), name


def test_a_form_takes_no_name_that_is_a_path(project):
    for name in EVIL[:30]:
        with pytest.raises(ValidationError):
            config.Approval(version=1, model=name, by="ann", because="it is better")
        with pytest.raises(ValidationError):
            config.Retreat(model=name)
        with pytest.raises(ConfigError):
            config.load(project, changes=config.Ask(base=name).changes())
        if name != "default":
            with pytest.raises(ConfigError):
                config.load(project, budget=name or "\x00")


@pytest.mark.parametrize(
    "line",
    [
        ("prepare", "ingest"),
        ("prepare", "clean"),
        ("prepare", "tokenizer"),
        ("corpus", "show"),
        ("corpus", "stats"),
        ("bench", "show"),
        ("refresh", "--base"),
        ("train", "--show-schedule", "--base"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\x00b", "..\\x"], ids=repr)
def test_a_command_refuses_a_path_for_a_name_and_leaves_everything(project, monkeypatch, capsys, line, name):
    monkeypatch.chdir(project)
    before = {path for path in project.parent.rglob("*") if ".ratoon" not in path.parts}
    assert main([*line, name]) == 2
    assert CANARY not in capsys.readouterr().err
    assert {path for path in project.parent.rglob("*") if ".ratoon" not in path.parts} == before
