"""What a promoted version was made of comes back to the byte, and no collection takes it away."""

import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import yaml
from kept_project import edit, git, model, new_project, refreshed, state_of
from postgres_server import postgres

from ratoon.config import ConfigError
from ratoon.layout import Layout
from tasks import backup, backup_restore, databases, disk, environment, objects, retention, texts, tracking, versions
from tasks.databases import Database
from tasks.job import held
from tasks.restore import restore
from tasks.tracking import connection


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three refreshes, everything changed between them: promoted, refused, promoted. (root, version -> its files)"""
    before = dict(os.environ)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    root = new_project(tmp_path_factory.mktemp("home") / "project")
    environment.apply(root)
    made = {}
    for seed, verdict in enumerate(["promoted", "refused", "promoted"]):
        edit(root, f"text{seed} more{seed}", seed)
        number, state = refreshed(root, verdict)
        made[number] = state
    assert versions.owed(root)
    versions.push(root)  # `dvc push` alone sends what dvc.lock names now: the newest of three
    yield root, made
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def copy(project, tmp_path, monkeypatch):
    """The project with its remote, elsewhere, for what would spoil it: a backup brought back there."""
    root, made = project
    other = tmp_path / "moved"
    shutil.copytree(root, other, symlinks=True)
    shutil.copytree(root.parent / "remote", tmp_path / "remote")
    databases.move(Database("mlflow", f"sqlite:///{other}/.ratoon/mlflow.db"), str(root), str(other))
    for pointer in other.glob(".ratoon/mlartifacts/**/pointer.json"):
        pointer.write_text(pointer.read_text().replace(f"{root}/", f"{other}/"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}/.ratoon/mlflow.db")
    connection.client_of.cache_clear()
    yield other, made
    connection.client_of.cache_clear()


def test_every_version_comes_back_to_the_byte_from_the_cache_and_from_the_remote(copy, tmp_path):
    root, made = copy
    now = state_of(root)
    assert len({tuple(state.items()) for state in made.values()}) == 3
    for number, state in made.items():
        done = restore(root, "line", number)
        assert done.into == root / ".ratoon" / "restored" / f"line-v{number}"
        assert state_of(done.into) == state
        assert restore(root, "line", number).written == 0
    assert state_of(root) == now
    rows = root / ".ratoon" / "restored" / "line-v1" / "data" / "rows" / "tiny" / "words" / "whole.txt"
    damaged = root / ".dvc" / "cache" / "files" / "md5" / objects.md5(rows)[:2] / objects.md5(rows)[2:]
    damaged.chmod(0o644)
    damaged.write_text("other")
    assert state_of(restore(root, "line", 1, tmp_path / "a").into) == made[1]
    shutil.rmtree(root / ".dvc" / "cache")
    assert state_of(restore(root, "line", 3, tmp_path / "b").into) == made[3]
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(ConfigError, match="is not in DVC's cache and not at the remote"):
        restore(root, "line", 3, tmp_path / "c")


def test_restoring_in_place_refuses_what_is_kept_nowhere_else_and_with_force_moves_it_aside(copy):
    root, made = copy
    mine = root / "data" / "rows" / "tiny" / "words" / "whole.txt"
    mine.unlink()
    mine.write_text("work of a day")
    (root / "data" / "clean" / "code" / "new.txt").write_text("more of it")
    before = state_of(root)
    with pytest.raises(ConfigError, match=r"words/whole\.txt.*kept nowhere else; nothing was touched\n.*--force"):
        restore(root, "line", 1, root)
    assert state_of(root) == before
    done = restore(root, "line", 1, root, force=True)
    assert state_of(root) == made[1]
    assert (done.aside / "data" / "rows" / "tiny" / "words" / "whole.txt").read_text() == "work of a day"
    assert (done.aside / "data" / "clean" / "code" / "new.txt").read_text() == "more of it"


def test_text_that_a_run_reads_is_not_restored_over(copy):
    root, made = copy
    before = state_of(root)
    with texts.read(Layout(root), ["code"]):
        with pytest.raises(texts.BeingRead, match=r"^code: its edition would be replaced"):
            restore(root, "line", 1, root)
        assert state_of(root) == before
    restore(root, "line", 1, root)
    assert state_of(root) == made[1]


def test_after_gc_every_promoted_version_is_whole_and_what_went_is_what_was_said(copy, tmp_path):
    root, made = copy
    paths = {one.version: one.path for one in tracking.versions("line")}
    beside = [model(paths[3].parents[2] / place / "train", place) for place in ("arms/scratch", "judges/seed-1")]
    said = retention.plan(root, remote=True)
    assert {*said.table()} == {"candidates", "checkpoints", "editions", "origins", "proxies", "remote"}
    assert {*beside} <= {item.path for item in said.items if item.kind == "proxies"}
    there = {path for path in root.rglob("*") if path.is_file()}
    done = retention.collect(root, remote=True)
    assert done.items == said.items
    gone = there - {path for path in root.rglob("*") if path.is_file()}
    listed = {path for item in said.items if item.path for path in (item.path, *item.path.parents)}
    assert gone
    assert all({path, *path.parents} & {item.path for item in said.items} for path in gone)
    assert listed
    for number in (1, 3):
        assert state_of(restore(root, "line", number, tmp_path / f"cache{number}").into) == made[number]
        assert tracking.intact("line", number).path == paths[number]
        assert (paths[number] / "state").is_dir()
        assert (paths[number].parents[1] / "trunk" / "step-1").is_dir()
    assert not paths[2].exists()
    refused = next(one for one in tracking.versions("line") if one.version == 2)
    assert refused.tags["weights"].startswith("removed by ratoon gc")
    with pytest.raises(ConfigError, match=r"line version 2: .*is gone"):
        restore(root, "line", 2)
    shutil.rmtree(root / ".dvc" / "cache")
    for number in (1, 3):
        assert state_of(restore(root, "line", number, tmp_path / f"remote{number}").into) == made[number]
    assert retention.plan(root, remote=True).items == []


def test_gc_leaves_what_is_young_and_what_it_knows_too_little_of(copy):
    root, _ = copy
    params = yaml.safe_load((root / "params.yaml").read_text())
    kept = {**params, "retention": {"refused": 0, "editions": 0, "days": 1}}
    (root / "params.yaml").write_text(yaml.safe_dump(kept))
    assert retention.plan(root).items == []
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    tracking.client().delete_model_version_tag("line", "1", "origin")
    found = retention.plan(root)
    assert not {"editions", "origins"} & {*found.table()}
    assert found.notes == ["editions stay: there is no record here of what line version 1 was made of"]
    with held(Layout(root), "line"), pytest.raises(ConfigError, match="another refresh of this model is under way"):
        retention.collect(root)


def test_gc_keeps_a_challenger_that_waits_for_a_person(copy):
    root, _ = copy
    assert {item.version for item in retention.plan(root).items if item.version} == {("line", 2)}
    tracking.challenge("line", 2, ["a person has to say"])
    assert {*retention.plan(root).table()} == {"checkpoints"}


def test_gc_keeps_what_a_branch_or_tag_still_names(copy):
    root, made = copy
    restore(root, "line", 2, root)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "the refused one, looked at closer")
    git(root, "tag", "closer")
    restore(root, "line", 3, root)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "back")
    assert "editions" not in retention.plan(root).table()
    git(root, "tag", "-d", "closer")
    assert "editions" in retention.plan(root).table()
    assert made


def test_a_destroyed_state_comes_back_from_a_backup_here_and_in_another_folder(copy, tmp_path):
    root, made = copy
    archive = tmp_path / "backup.tar"
    # In a process of its own: in this one MLflow would hold on to the database that is destroyed.
    command = [sys.executable, "-m", "ratoon", "--root", str(root), "backup", "make", str(archive), "--json"]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(command, env=where, capture_output=True, text=True, check=True).stdout
    manifest = backup.Manifest.model_validate_json(said)
    assert manifest == backup_restore.check(archive)
    assert manifest.databases == {"mlflow": "databases/mlflow.sqlite"}
    assert manifest.versions["line"] == {"3": ["champion"], "1": ["previous"]}
    state = {
        path.relative_to(root): path.read_bytes() for path in root.glob(".ratoon/refreshes/**/*") if path.is_file()
    }
    shutil.rmtree(root / ".ratoon")
    shutil.rmtree(root / ".dvc" / "cache")
    for place in ("params.yaml", "dvc.lock"):
        (root / place).unlink()
    connection.client_of.cache_clear()
    backup_restore.load(root, archive, {})
    assert tracking.champion("line").version == 3
    assert tracking.intact("line", 3).path.is_dir()
    again = {
        path.relative_to(root): path.read_bytes() for path in root.glob(".ratoon/refreshes/**/*") if path.is_file()
    }
    assert again == {path: content for path, content in state.items() if path in again}
    assert {path.name for path in state.keys() - again.keys()} <= {
        "lock",
        *(p.name for p in state if "step-1" in str(p)),
    }
    assert state_of(restore(root, "line", 1).into) == made[1]
    assert tracking.rollback("line") == (3, 1)

    elsewhere = tmp_path / "elsewhere"
    done = backup_restore.load(elsewhere, archive, {})
    assert done.moved
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{elsewhere}/.ratoon/mlflow.db"
    connection.client_of.cache_clear()
    assert tracking.champion("line").version == 3
    assert tracking.intact("line", 3).path.is_relative_to(elsewhere)
    pointer = tracking.client().download_artifacts(
        tracking.champion("line").run_id, "model/pointer.json", str(tmp_path)
    )
    assert str(elsewhere) in Path(pointer).read_text()


def test_a_backup_with_a_database_in_postgresql_comes_back_in_another_folder(project, tmp_path, monkeypatch):
    pytest.importorskip("psycopg2", reason="MLflow asks for it: docker/extras.txt")
    root, _ = project
    elsewhere, archive = tmp_path / "els ewhere", tmp_path / "backup.tar"
    with ExitStack() as ends:
        first, second = postgres(ends, "mlflow", "again")
        taken_over(root, first)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", first)
        made = backup.make(root, archive, backup.Request())
        assert made.databases == {"mlflow": "databases/mlflow.dump"}
        assert made.versions["line"] == {"3": ["champion"], "1": ["previous"]}
        done = backup_restore.load(elsewhere, archive, {"mlflow": second})
        assert done.moved
        monkeypatch.setenv("MLFLOW_TRACKING_URI", second)
        found = tracking.intact("line", 3)
        assert found.path.is_relative_to(elsewhere)
        kept = tracking.client().download_artifacts(found.run_id, "model/pointer.json", str(tmp_path))
        assert str(elsewhere) in Path(kept).read_text()
        connection.client_of.cache_clear()


def taken_over(root, address):
    """What MLflow's SQLite file of this project holds, in a PostgreSQL database with MLflow's own tables."""
    with closing(sqlite3.connect(f"{root}/.ratoon/mlflow.db")) as old:
        from mlflow.store.db.utils import _initialize_tables
        from sqlalchemy import MetaData, create_engine, text

        engine = create_engine(address)
        _initialize_tables(engine)
        known = MetaData()
        known.reflect(engine)
        with engine.begin() as new:
            new.execute(text("SET session_replication_role = replica"))  # tables come in any order
            for table in known.sorted_tables:
                old.row_factory = sqlite3.Row
                rows = [dict(row) for row in old.execute(f'SELECT * FROM "{table.name}"')]
                new.execute(table.delete())
                booleans = [c.name for c in table.columns if str(c.type) == "BOOLEAN"]
                for row in rows:
                    row |= {name: None if row[name] is None else bool(row[name]) for name in booleans}
                if rows:
                    new.execute(table.insert(), rows)
        engine.dispose()


def test_a_backup_that_is_damaged_cut_short_or_reaches_outside_is_refused_and_nothing_is_touched(copy, tmp_path):
    root, _ = copy
    archive = tmp_path / "backup.tar"
    backup.make(root, archive, backup.Request())
    whole = archive.read_bytes()
    place = whole.index(b"# text2 more2")
    archive.write_bytes(whole[:place] + b"x" + whole[place + 1 :])
    with pytest.raises(ConfigError, match="is not what was put into it"):
        backup_restore.load(tmp_path / "a", archive, {})
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"cut short|not a whole backup"):
        backup_restore.load(tmp_path / "a", archive, {})
    with tarfile.open(archive, "w") as tar:
        evil = tarfile.TarInfo("files/../../evil")
        evil.size = 1
        tar.addfile(evil, io.BytesIO(b"x"))
    with pytest.raises(ConfigError, match="would lie outside of the project"):
        backup_restore.load(tmp_path / "a", archive, {})
    assert not (tmp_path / "a").exists()
    archive.write_bytes(whole)
    (root / "params.yaml").write_text("changed: since\n")
    with pytest.raises(ConfigError, match=r"params\.yaml.*kept nowhere else"):
        backup_restore.load(root, archive, {})
    assert (root / "params.yaml").read_text() == "changed: since\n"


def test_where_nothing_can_be_written_is_told_before_anything_is(copy, tmp_path, monkeypatch):
    root, _ = copy
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"ratoon restore --into: .*/file is a file; name a folder"):
        restore(root, "line", 1, tmp_path / "file" / "below")
    monkeypatch.setattr(databases, "copy", None)
    (tmp_path / "folder").mkdir()
    for place, why in (("folder", "a folder; name the archive"), ("file/b.tar", "nothing can be written there")):
        with pytest.raises(ConfigError, match=why):
            backup.make(root, tmp_path / place, backup.Request())
    with pytest.raises(ConfigError, match=r"/proc/x/y\.tar: nothing can be written there"):
        backup.make(root, Path("/proc/x/y.tar"), backup.Request())
    monkeypatch.setattr(disk, "free", lambda place: disk.SPARE_BYTES + 1000)
    with pytest.raises(ConfigError, match=r"the backup of the databases needs about .* nothing was begun"):
        backup.make(root, tmp_path / "folder" / "b.tar", backup.Request())
    assert not list((tmp_path / "folder").iterdir())


def test_what_does_not_fit_is_refused_with_what_is_needed_free_and_would_be_freed(copy, monkeypatch):
    root, _ = copy
    monkeypatch.setattr(disk, "free", lambda path: 70_000_000)
    with pytest.raises(ConfigError) as refused:
        disk.room(root, root, 10_000_000, "the target run")
    letter = str(refused.value)
    assert letter.startswith("the target run needs about 77.1 MB where")
    assert "70 MB are free; nothing was begun" in letter
    assert "`ratoon gc` would free" in letter
    disk.room(root, root, 1_000_000, "the target run")
