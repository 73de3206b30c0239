"""Databases of an earlier Prefect or MLflow come to the installed version's form, with all they hold, or stay."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ratoon.config import ConfigError
from tasks import databases, processes, upgrade
from tasks.tracking import connection

# Each in a process of its own: MLflow keeps connections of every store it has seen.
MAKE = """
run = client.create_run(client.create_experiment("line"))
client.log_metric(run.info.run_id, "loss", 0.5)
"""
READ = """
(run,) = client.search_runs([client.get_experiment_by_name("line").experiment_id])
print(run.data.metrics["loss"])
"""
BACK = """
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
command.downgrade(_get_alembic_config(uri), "-1")
"""
CLIENT = "import sys; uri = sys.argv[1]; from tasks.tracking.connection import client_of; client = client_of(uri)"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", *databases.PREFECT_URLS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path):
    """A project with MLflow's database in it, and a run."""
    (tmp_path / ".ratoon").mkdir()
    ask(tmp_path, MAKE)
    return tmp_path


def ask(root: Path, code: str) -> str:
    command = [sys.executable, "-c", f"{CLIENT}\n{code}", f"sqlite:///{root / '.ratoon' / 'mlflow.db'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def upgraded(root, *without):
    return list(upgrade.upgrade(root, {}, without, yes=False))


def test_an_earlier_form_of_mlflows_is_brought_up_with_its_runs_and_kept_as_it_was(root):
    file = root / ".ratoon" / "mlflow.db"
    newest = upgrade.revision(file)
    ask(root, BACK)
    earlier = upgrade.revision(file)
    assert earlier != newest
    (done,) = upgraded(root)
    assert (done.before, done.after) == (earlier, newest)
    assert upgrade.revision(file) == newest
    assert upgrade.revision(done.kept) == earlier
    assert ask(root, READ) == "0.5"
    (again,) = upgraded(root)
    assert again.kept is None
    assert "already" in upgrade.told(again)
    assert not list((root / ".ratoon").glob("*.upgrading*"))


def test_a_migration_that_fails_leaves_the_database_to_the_byte(root):
    file = root / ".ratoon" / "mlflow.db"
    claim(file, "451aebb31d03")  # its steps find columns and tables that are there already
    before = file.read_bytes()
    with pytest.raises(OSError, match="could not be brought"):
        upgraded(root)
    assert file.read_bytes() == before
    assert not list((root / ".ratoon").glob("*.upgrading*"))


def claim(file: Path, form: str):
    with closing(sqlite3.connect(file)) as base, base:
        base.execute("UPDATE alembic_version SET version_num = ?", (form,))


def test_a_store_of_another_version_says_what_to_do(root):
    claim(root / ".ratoon" / "mlflow.db", "451aebb31d03")
    with pytest.raises(ConfigError, match="`ratoon upgrade`"):
        connection.client_of(f"sqlite:///{root / '.ratoon' / 'mlflow.db'}")


def test_prefects_database_is_brought_up_too(tmp_path):
    folder = tmp_path / ".ratoon" / "prefect"
    folder.mkdir(parents=True)
    file = folder / "prefect.db"
    address = f"sqlite+aiosqlite:///{file}"
    upgrade.migrate("prefect", f"sqlite:///{file}")
    newest = upgrade.revision(file)
    back = [sys.executable, "-m", "prefect", "server", "database", "downgrade", "--yes", "--revision", "-1"]
    environ = {**os.environ, **dict.fromkeys(databases.PREFECT_URLS, address)}
    subprocess.run(back, env=environ, check=True, capture_output=True)
    assert upgrade.revision(file) != newest
    (done,) = upgraded(tmp_path)
    assert (done.name, done.after) == ("prefect", newest)


def test_nothing_is_done_while_services_run_or_to_postgresql_unasked(root, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(processes, "recorded", lambda root: {"mlflow": object()})
        patched.setattr(processes, "alive", lambda one: True)
        with pytest.raises(ConfigError, match="`ratoon down` first"):
            upgraded(root)
    with pytest.raises(ConfigError, match="--yes"):
        list(upgrade.upgrade(root, {"prefect": "postgresql://me:secret@host/prefect"}, (), yes=False))
