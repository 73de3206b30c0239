"""A database that was brought to another folder names that folder, on SQLite and on PostgreSQL alike."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import ExitStack, closing

import pytest
from postgres_server import postgres

from ratoon.config import ConfigError
from tasks import databases
from tasks.databases import Database

OLD, NEW = "/srv/mödels one", "/data/it's new"
TABLES = """
CREATE TABLE experiments (id integer PRIMARY KEY, artifact_location varchar(256), note text, about json);
CREATE TABLE "Order of words" (id integer PRIMARY KEY, "source" text, seen integer);
"""
ROWS = [
    (1, f"file://{OLD}/.ratoon/mlartifacts".replace("ö", "%C3%B6").replace(" ", "%20"), f"lies at {OLD}/a and {OLD}/b"),
    (2, "s3://mlflow/1", f"{OLD}bc/x is another's"),
    (3, None, None),
]


def about(folder):
    return json.dumps({"path": f"{folder}/model"})


class Sqlite:
    def __init__(self, tmp_path):
        self.file = tmp_path / "mlflow.db"
        self.database = Database("mlflow", f"sqlite:///{self.file}")

    def run(self, script):
        with closing(sqlite3.connect(self.file)) as base, base:
            base.executescript(script)

    def all(self, query):
        with closing(sqlite3.connect(self.file)) as base:
            return base.execute(query).fetchall()


class Postgres:
    def __init__(self, ends):
        (address,) = postgres(ends, "mlflow")
        self.database = Database("mlflow", address)
        self.command = ["psql", "-X", "-q", "-At", *databases._address(address), "-v", "ON_ERROR_STOP=1", "-f", "-"]

    def run(self, script):
        return subprocess.run(self.command, input=script, capture_output=True, text=True, check=True).stdout

    def all(self, query):
        answer = self.run(f"SELECT coalesce(json_agg(it), '[]') FROM ({query}) AS it;")
        return [tuple(row.values()) for row in json.loads(answer)]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    with ExitStack() as ends:
        if request.param == "postgresql" and not shutil.which("psql"):
            pytest.skip("PostgreSQL's client is not installed (Debian: apt-get install postgresql)")
        yield Sqlite(tmp_path) if request.param == "sqlite" else Postgres(ends)


def quoted(value):
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def test_every_path_below_the_old_folder_is_one_below_the_new_and_nothing_else_changes(store):
    store.run(TABLES)
    for number, place, note in ROWS:
        row = f"{number}, {quoted(place)}, {quoted(note)}, {quoted(about(OLD if number == 1 else '/else'))}"
        store.run(f"INSERT INTO experiments VALUES ({row});")
    store.run(f"""INSERT INTO "Order of words" VALUES (1, {quoted(OLD + "/m")}, 7);""")
    assert databases.move(store.database, OLD, NEW) == 4
    found = store.all("SELECT id, artifact_location, note FROM experiments ORDER BY id")
    assert found == [
        (1, "file:///data/it%27s%20new/.ratoon/mlartifacts", f"lies at {NEW}/a and {NEW}/b"),
        *ROWS[1:],
    ]
    texts = [
        json.loads(row[0]) for row in store.all("SELECT CAST(about AS text) AS about FROM experiments ORDER BY id")
    ]
    assert texts == [{"path": f"{NEW}/model"}, {"path": "/else/model"}, {"path": "/else/model"}]
    assert store.all('SELECT * FROM "Order of words"') == [(1, f"{NEW}/m", 7)]
    assert databases.move(store.database, OLD, NEW) == 0


def test_what_cannot_be_rewritten_here_is_refused_before_anything_is_touched(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"mlflow: paths in its PostgreSQL .*psql.* install PostgreSQL's client"):
        databases.movable(Database("mlflow", "postgresql://ann@db/mlflow"))
    databases.movable(Database("mlflow", f"sqlite:///{tmp_path}/mlflow.db"))
