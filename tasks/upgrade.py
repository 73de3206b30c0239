"""After newer versions of Prefect or MLflow were installed: their databases brought to the form these want.

Of SQLite a copy is migrated beside it and takes its place when that has gone well; the one before is kept. PostgreSQL
is migrated where it is, with a dump made first, and only where a person said so. MLflow's server refuses an older form
with words of its own, Prefect's migrates at its start without a copy: hence this comes before `ratoon up`.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ratoon.config import ConfigError
from tasks import databases, processes
from tasks.databases import Database
from tasks.reach import shown

FOLDER = "before-upgrade"  # of .ratoon
SECONDS = 3600
# The address in the environment: a password on a command line can be read by every user of the machine.
MIGRATE = {
    "mlflow": ["-c", "import os; from mlflow.db import commands; commands(['upgrade', os.environ['RATOON_DATABASE']])"],
    "prefect": ["-m", "prefect", "server", "database", "upgrade", "--yes"],
}


@dataclass(frozen=True)
class Upgraded:
    name: str
    uri: str  # as it may be shown
    before: str | None  # revision of the form; None: PostgreSQL's, which only the service reads
    after: str | None
    kept: Path | None  # the database as it was


def upgrade(root: Path, given: Mapping[str, str], without: tuple[str, ...], *, yes: bool) -> Iterator[Upgraded]:
    """Each database of this project's, one after the other; one that is not there yet is passed over.

    Raises ConfigError while services run here or for PostgreSQL without `yes`, OSError where a migration fails: then
    SQLite's is as it was.
    """
    if running := [name for name, one in processes.recorded(root).items() if processes.alive(one)]:
        raise ConfigError(f"{', '.join(running)} still run here and hold the databases; `ratoon down` first")
    found = [databases.of(root, name, given.get(name)) for name in databases.NAMES if name not in without]
    for each in found:
        if each.file is None and not yes:
            raise ConfigError(
                f"{each.name}: {shown(each.uri)} may be others' too, and is migrated in place; stop its servers, then "
                f"`ratoon upgrade --yes`, or --without {each.name}"
            )
    folder = root / ".ratoon" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for each in found:
        if each.file is None:
            kept = free(folder / f"{each.name}.dump")
            databases.copy(each, kept)
            migrate(each.name, each.uri)
            yield Upgraded(each.name, shown(each.uri), None, None, kept)
        elif each.file.exists():
            yield beside(each, each.file, folder)


def beside(found: Database, file: Path, folder: Path) -> Upgraded:
    """A copy of a SQLite database is migrated, and takes its place."""
    work = file.with_name(f"{file.name}.upgrading")
    work.unlink(missing_ok=True)
    before = revision(file)
    databases.copy(found, work)
    try:
        migrate(found.name, f"sqlite:///{work}")
        after = revision(work)
        if after == before:
            return Upgraded(found.name, str(file), before, after, None)
        settle(file)
        kept = free(folder / f"{found.name}-{before}.sqlite")
        shutil.copy2(file, kept)
        os.replace(work, file)
    finally:
        for left in (work, *(work.with_name(work.name + end) for end in ("-wal", "-shm"))):
            left.unlink(missing_ok=True)
    return Upgraded(found.name, str(file), before, after, kept)


def migrate(name: str, uri: str) -> None:
    """As the installed version of the service does it itself."""
    address = uri.replace("sqlite:///", "sqlite+aiosqlite:///", 1) if name == "prefect" else uri
    named = dict.fromkeys(("RATOON_DATABASE", *databases.PREFECT_URLS), address)
    done = subprocess.run(
        [sys.executable, *MIGRATE[name]], env={**os.environ, **named}, capture_output=True, text=True, timeout=SECONDS
    )
    if done.returncode:
        said = shown((done.stderr or done.stdout).strip()[-2000:])
        raise OSError(f"{name}: its database could not be brought to the installed version's form:\n{said}")


def revision(file: Path) -> str:
    """What alembic has noted in a SQLite database."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as base:
        try:
            return ",".join(sorted(row[0] for row in base.execute("SELECT version_num FROM alembic_version")))
        except sqlite3.OperationalError as error:
            raise ConfigError(f"{file}: no database that a version of Prefect or MLflow has made: {error}") from error


def settle(file: Path) -> None:
    """What is still in the log beside it goes into the database: a log left there would be read with the next one."""
    with closing(sqlite3.connect(file, timeout=60)) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        base.execute("PRAGMA journal_mode = DELETE")


def free(path: Path) -> Path:
    """`path`, or the first name after it that is not taken: what was kept once is not written over."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def told(each: Upgraded) -> str:
    if each.kept is None:
        return f"{each.name}: already as the installed version wants it ({each.before})"
    steps = f" {each.before} -> {each.after}" if each.before else ""
    return f"{each.name}: upgraded{steps}; as it was: {each.kept}"
