"""Prefect's and MLflow's databases: where they are, a copy while they are in use, and the way back."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ratoon.config import ConfigError
from tasks import environment, processes
from tasks.reach import database, shown

NAMES = ("mlflow", "prefect")
PREFECT_URLS = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
PG_SECONDS = 3600


@dataclass(frozen=True)
class Database:
    name: str
    uri: str

    @property
    def file(self) -> Path | None:
        return database(self.uri)

    @property
    def member(self) -> str:
        """What it is called in an archive."""
        return f"databases/{self.name}.{'sqlite' if self.file else 'dump'}"


def of(root: Path, name: str, given: str | None = None) -> Database:
    """The database behind a service. Raises ConfigError where only its server knows: then it has to be named."""
    uri = given or _known(root, name)
    if not uri.startswith(("sqlite", "postgresql")):
        raise ConfigError(
            f"{name}: its database is behind {shown(uri)}, and only SQLite and PostgreSQL can be copied; name it with "
            f"--{name}-database postgresql://..., or leave it to those who keep that server with --without {name}"
        )
    return Database(name, uri)


def _known(root: Path, name: str) -> str:
    running = processes.recorded(root).get(name)
    own = home(root, name)
    if name == "mlflow":
        uri = os.environ.get("MLFLOW_TRACKING_URI", own)
        return own if running and uri == running.address else uri
    if given := next((os.environ[key] for key in PREFECT_URLS if os.environ.get(key)), None):
        return given
    api = os.environ.get("PREFECT_API_URL", "")
    return own if not api or (running and api.startswith(f"{running.address}/")) else api


def home(root: Path, name: str) -> str:
    """The embedded default's, as a URI."""
    return (
        environment.store(root)
        if name == "mlflow"
        else f"sqlite:///{root.resolve() / '.ratoon' / 'prefect' / 'prefect.db'}"
    )


# ---------------------------------------------------------------- out


def copy(found: Database, into: Path) -> bool:
    """A consistent copy, whatever a server writes meanwhile; False: there is none yet. OSError says why it failed."""
    if (file := found.file) is None:
        command = ["pg_dump", "--format=custom", "--no-owner", "--file", str(into), *_address(found.uri)]
        _postgres(command, found)
        return True
    if not file.exists():
        return False
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(into)) as target,
        ):
            source.backup(target, pages=4096)
            wrong = target.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise OSError(f"{file}: SQLite could not copy it: {error}") from error
    if wrong != "ok":
        raise OSError(f"{file}: SQLite finds it damaged ({wrong}); mend it, or take an earlier backup")
    return True


# ---------------------------------------------------------------- back


def load(found: Database, dump: Path) -> None:
    """A dump into a PostgreSQL database, all or nothing. What was in its tables is replaced."""
    options = ["--clean", "--if-exists", "--no-owner", "--single-transaction"]
    _postgres(["pg_restore", *options, *_address(found.uri, "--dbname"), str(dump)], found)


def move(found: Database, old: str, new: str) -> int:
    """Paths below `old` in every text of a database become paths below `new`; how many values."""
    return _move_sqlite(file, old, new) if (file := found.file) else _move_postgres(found, old, new)


def movable(found: Database) -> None:
    """Raises ConfigError where `move` could not be carried out from here: asked before anything is touched."""
    if found.file is None and shutil.which("psql") is None:
        raise ConfigError(
            f"{found.name}: paths in its PostgreSQL database name the folder the backup was made in, and psql, which "
            f"rewrites them, is not here; install PostgreSQL's client, or restore in that folder"
        )


def _move_sqlite(file: Path, old: str, new: str) -> int:
    changed = 0
    with closing(sqlite3.connect(file)) as base, base:
        tables = [row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in (name for name in tables if not name.startswith("sqlite_")):
            for column, kind in [(row[1], row[2].upper()) for row in base.execute(f'PRAGMA table_info("{table}")')]:
                if not any(word in kind for word in ("CHAR", "TEXT", "JSON", "CLOB")):
                    continue
                for before, after in spellings(old, new):
                    command = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
                    changed += base.execute(command, (before, after, before)).rowcount
    return changed


# Every text and JSON column of every table; the folders come as settings, so that no path becomes a command.
MOVE = """
SELECT set_config('ratoon.before', :'before', false), set_config('ratoon.after', :'after', false) \\g /dev/null
DO $$
DECLARE one record; changed bigint; total bigint := 0;
BEGIN
  FOR one IN
    SELECT c.table_schema, c.table_name, c.column_name, c.udt_name
    FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
    WHERE t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER'
      AND c.table_schema NOT IN ('pg_catalog', 'information_schema')
      AND c.udt_name IN ('text', 'varchar', 'bpchar', 'json', 'jsonb')
    ORDER BY 1, 2, 3
  LOOP
    EXECUTE format(
      'UPDATE %1$I.%2$I SET %3$I = replace(%3$I::text, $1, $2)::%4$I WHERE strpos(%3$I::text, $1) > 0',
      one.table_schema, one.table_name, one.column_name, one.udt_name
    ) USING current_setting('ratoon.before'), current_setting('ratoon.after');
    GET DIAGNOSTICS changed = ROW_COUNT;
    total := total + changed;
  END LOOP;
  PERFORM set_config('ratoon.changed', total::text, false);
END $$;
SELECT current_setting('ratoon.changed');
"""


def _move_postgres(found: Database, old: str, new: str) -> int:
    quiet = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--single-transaction"]
    changed = 0
    for before, after in spellings(old, new):
        command = ["psql", *quiet, f"--set=before={before}", f"--set=after={after}", *_address(found.uri), "--file=-"]
        changed += int(_postgres(command, found, MOVE))
    return changed


def spellings(old: str, new: str) -> list[tuple[str, str]]:
    """A folder as it stands in texts, in addresses and in JSON. With its slash: /a/b is not the beginning of /a/bc."""
    plain, coded = (f"{old}/", f"{new}/"), (f"{quote(old)}/", f"{quote(new)}/")
    texts = json.dumps(plain[0])[1:-1], json.dumps(plain[1])[1:-1]
    return list({pair[0]: pair for pair in (plain, coded, texts)}.values())


def _address(uri: str, option: str = "--dbname") -> list[str]:
    parts = urlsplit(uri)
    given = {"--host": parts.hostname, "--port": parts.port, "--username": parts.username}
    flags = [word for flag, value in given.items() if value for word in (flag, unquote(str(value)))]
    return [*flags, option, parts.path.lstrip("/")]


def _postgres(command: list[str], found: Database, script: str | None = None) -> str:
    """What it printed."""
    # Not on the command line: every user of the machine may read that.
    password = urlsplit(found.uri).password
    environ: Mapping[str, str] = {**os.environ, **({"PGPASSWORD": unquote(password)} if password else {})}
    try:
        done = subprocess.run(command, env=environ, input=script, capture_output=True, text=True, timeout=PG_SECONDS)
    except FileNotFoundError:
        raise ConfigError(
            f"{found.name}: its database is PostgreSQL, and {command[0]} is not here; install PostgreSQL's client"
        ) from None
    if done.returncode:
        raise OSError(f"{command[0]} of {shown(found.uri)}: {shown(done.stderr.strip())}")
    return done.stdout.strip()
