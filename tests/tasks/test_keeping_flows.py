"""The deployments gc and backup as Prefect runs them: what they end with, what they show, what they leave alone."""

import os
import shutil

import pytest
import yaml
from kept_project import edit, new_project, refreshed

from flows.backup import backup
from flows.collect import gc
from ratoon.config import Archive, Collect, ConfigError
from ratoon.layout import Layout
from tasks import backup_restore, environment, keep, retention, tracking, versions
from tasks.job import held

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A promoted version and a refused one, on texts of their own; Prefect's API for tests."""
    before = dict(os.environ)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", keep.FOLDER):
        os.environ.pop(name, None)
    root = new_project(tmp_path_factory.mktemp("kept") / "project")
    environment.apply(root)
    from prefect.testing.utilities import prefect_test_harness

    for seed, verdict in enumerate(["promoted", "refused"]):
        edit(root, f"text{seed}", seed)
        refreshed(root, verdict)
    versions.push(root)
    with prefect_test_harness(server_startup_timeout=180):
        yield root
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def shown(key):
    from prefect.artifacts import Artifact

    return Artifact.get(key)


def names():
    """Of the runs so far."""
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return {run.name for run in client.read_flow_runs(limit=50)}


def asked(root, **operate):
    params = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "operate": {"backup": operate}}))


def test_a_backup_goes_where_it_is_told_is_compared_and_takes_the_oldest_ones_place(here, tmp_path, monkeypatch):
    folder = tmp_path / "archives"
    folder.mkdir()
    old = [folder / f"{keep.prefix(here)}2020-01-0{day}T000000Z.tar" for day in (1, 2, 3)]
    others = [folder / f"{here.name}-0000ff-2020-01-01T000000Z.tar", folder / "notes.tar"]
    for path in (*old, *others):
        path.touch()
    asked(here, folder=str(tmp_path / "not here"), keep=2)
    monkeypatch.setenv(keep.FOLDER, str(folder))
    state = backup(Archive(), return_state=True)
    assert state.is_completed(), state.message
    (made,) = {*folder.iterdir()} - {*old, *others}
    assert [path.exists() for path in old] == [False, False, True]
    assert all(path.exists() for path in others)
    assert state.message.startswith(f"{made}: ")
    assert state.message.endswith("every hash compared; 2 older removed")
    assert shown("backup").description == state.message
    assert "line version 1 champion" in shown("backup").data
    assert "backup: of what is in use" in names()
    done = backup_restore.load(tmp_path / "again", made, {})
    assert done.manifest.versions == {"line": {"1": ["champion"]}}


def test_a_backup_that_is_not_whole_costs_no_older_one(here, tmp_path, monkeypatch):
    asked(here, folder=str(tmp_path), keep=1)
    old = tmp_path / f"{keep.prefix(here)}2020-01-01T000000Z.tar"
    old.touch()

    def damaged(file):
        raise ConfigError(f"{file}: files/params.yaml is not what was put into it")

    monkeypatch.setattr(keep.backup_restore, "check", damaged)
    state = backup(Archive(without=("mlflow",)), return_state=True)
    assert state.is_failed()
    assert "is not what was put into it" in state.message
    assert old.exists()


def test_a_backup_without_a_folder_is_a_letter(here):
    asked(here)
    state = backup(Archive(), return_state=True)
    assert state.is_failed()
    assert "operate.backup.folder: none is named" in state.message
    assert keep.FOLDER in state.message


def test_gc_says_what_would_go_and_removes_it_only_where_it_is_asked_to_and_nothing_is_under_way(here):
    planned = retention.plan(here)
    assert planned.items
    state = gc(return_state=True)
    assert state.is_completed(), state.message
    assert state.message.endswith("would go; run it again with `remove` on")
    assert shown("gc").description == state.message
    assert "candidates" in shown("gc").data
    with held(Layout(here), "line"):
        state = gc(Collect(remove=True), return_state=True)
    assert state.is_cancelled()
    assert "nothing was removed: line: another refresh of this model is under way" in state.message
    assert retention.plan(here).items == planned.items
    state = gc(Collect(remove=True), return_state=True)
    assert state.message == f"{keep.told(planned, done=True)}"
    assert not any(item.path.exists() for item in planned.items)
    assert tracking.intact("line", 1)
    assert gc(return_state=True).message.startswith("nothing goes")
    assert {"gc: what would go", "gc: what nobody needs, removed"} <= names()


def test_a_project_elsewhere_of_the_same_name_keeps_its_archives(here, tmp_path):
    other = tmp_path / here.name
    shutil.copytree(here, other, ignore=shutil.ignore_patterns(".ratoon", ".dvc", ".git"))
    assert keep.prefix(other) != keep.prefix(here)
    assert keep.prefix(other).startswith(here.name)
