"""One archive of what cannot be made again: both databases, the models in use, records, history, origins, config.

It may be made while servers run. Databases go first: what is registered after that is not in it, and what is in it has
its files. The list of hashes comes last, so that half an archive is known for one.
"""

import errno
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ratoon import config, records
from ratoon.config import Base, ConfigError, Scratch
from ratoon.layout import Layout
from ratoon.lm.base import weights_folder
from ratoon.report.wording import size
from tasks import commits, databases, disk, objects, origin, retention, tracking, versions
from tasks.databases import Database
from tasks.retention import folders, models, named, of_origins

MANIFEST = "manifest.json"
FORMAT = 1
WHOLE = ("history", "origins", "mlartifacts")  # of .ratoon
MORE = ("prefect.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore")


class File(records.Record):
    bytes: int
    sha256: str


class Manifest(records.Record):
    format: int = FORMAT
    created: str
    root: str
    commit: str | None
    versions: dict[str, dict[str, list[str]]]  # line -> version whose weights are in it -> aliases
    databases: dict[str, str]  # service -> member
    files: dict[str, File]  # member -> what it is
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What to put into an archive, and where the databases are if not as this project has them."""

    every: bool = False  # all registered versions, and editions wherever else they are
    without: tuple[str, ...] = ()  # mlflow, prefect, editions
    given: tuple[tuple[str, str], ...] = ()  # service -> database


class Hashed(io.RawIOBase):
    """What is read through it, hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.hash.update(block)
        return block


def make(root: Path, out: Path, asked: Request) -> Manifest:
    """Write the archive beside and rename it. Raises ConfigError where a database cannot be copied from here."""
    root, notes = root.resolve(), list[str]()
    wanted = [
        databases.of(root, name, dict(asked.given).get(name)) for name in databases.NAMES if name not in asked.without
    ]
    check_place(out)
    held = {item.name: disk.bytes_of(item.file) if item.file else 0 for item in wanted}
    disk.room(root, out.parent, sum(held.values()) + max(held.values(), default=0), "the backup of the databases")
    beside = out.with_name(f".{out.name}.new")
    beside.touch(mode=0o600)  # Prefect's database may hold secrets
    try:
        with (
            tempfile.TemporaryDirectory(dir=out.parent, prefix=".backup-") as scratch,
            tarfile.open(beside, "w") as tar,
        ):
            files: dict[str, File] = {}
            copied = {item.name: item.member for item in wanted if copy(item, Path(scratch), tar, files)}
            carried = carried_versions(root, asked, notes)
            paths = sorted(
                {*plain(root), *records_of(root, notes), *weights(root, carried), *cached(root, asked, notes)}
            )
            disk.room(root, out.parent, sum(path.stat().st_size for path in paths), "the backup")
            for path in paths:
                add(tar, path, f"files/{path.relative_to(root).as_posix()}", files)
            manifest = Manifest(
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                root=str(root),
                commit=commits.commit(root)[0],
                versions={
                    line: {str(one.version): list(one.aliases) for one in carried if one.line == line}
                    for line in sorted({one.line for one in carried})
                },
                databases=copied,
                files=files,
                notes=tuple(notes),
            )
            text = manifest.model_dump_json(indent=1).encode()
            last = tarfile.TarInfo(MANIFEST)
            last.size = len(text)
            tar.addfile(last, io.BytesIO(text))
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return manifest


def check_place(out: Path) -> None:
    """Raises ConfigError where no archive can be written: asked before anything is."""
    if out.is_dir():
        raise ConfigError(f"{out}: a folder; name the archive to write in it, such as {out / 'backup.tar'}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ConfigError(f"{out}: nothing can be written there ({error}); name another file") from error


def copy(found: Database, scratch: Path, tar: tarfile.TarFile, files: dict[str, File]) -> bool:
    place = scratch / found.name
    if not databases.copy(found, place):
        return False
    add(tar, place, found.member, files)
    place.unlink()
    return True


def add(tar: tarfile.TarFile, path: Path, name: str, files: dict[str, File]) -> None:
    with path.open("rb") as file:
        about = tar.gettarinfo(arcname=name, fileobj=file)
        # A link to a file that is in it already would have no content of its own.
        about.type, about.linkname, about.size = tarfile.REGTYPE, "", path.stat().st_size
        hashed = Hashed(file)
        tar.addfile(about, hashed)  # type: ignore[arg-type]
        files[name] = File(bytes=about.size, sha256=hashed.hash.hexdigest())


# ---------------------------------------------------------------- what goes in


def plain(root: Path) -> Iterator[Path]:
    """Config, and what of the state is small."""
    yield from (root / path for path in origin.declared(root))
    yield from (root / name for name in MORE if (root / name).is_file())
    layout = Layout(root)
    for name in WHOLE:
        yield from disk.files(layout.state / name)
    yield from layout.state.glob("refreshes/*/latest.json")
    yield from (path for path in [layout.unpushed] if path.exists())


def records_of(root: Path, notes: list[str]) -> Iterator[Path]:
    """Of every refresh that ended, all but weights. One under way changes while it is read, and can be run again."""
    for folder in folders(Layout(root)):
        if not (folder / "refresh.json").exists():
            notes.append(f"{folder.name} came to no verdict yet and is not in it")
            continue
        heavy = models(folder)
        yield from (path for path in disk.files(folder) if not any(path.is_relative_to(one) for one in heavy))


def carried_versions(root: Path, asked: Request, notes: list[str]) -> list[tracking.Version]:
    if "mlflow" in asked.without:
        notes.append("no models: which are in use is in MLflow's database")
        return []
    found = [one for line in retention.lines(Layout(root)) for one in tracking.versions(line)]
    chosen = [one for one in found if asked.every or one.aliases]
    outside = [one for one in chosen if not one.path.is_relative_to(root)]
    notes += [
        f"{one.line} version {one.version} lies outside of the project, at {one.path}, and is not in it"
        for one in outside
    ]
    away = [one for one in chosen if one not in outside and not one.path.is_dir()]
    notes += [f"{one.line} version {one.version} has no weights at {one.path}" for one in away]
    return [one for one in chosen if one not in [*outside, *away]]


def weights(root: Path, carried: list[tracking.Version]) -> Iterator[Path]:
    """Models, the trunks the next refresh goes on from, and the bases that were made here."""
    for one in carried:
        yield from disk.files(one.path)
        run = next((up for up in one.path.parents if (up / "request.json").exists() and up != root), None)
        if run is not None:
            yield from disk.files(run / "trunk")
            yield from disk.files(run / "family")
    for folder in scratch_bases(root):
        yield from disk.files(folder)


def scratch_bases(root: Path) -> Iterator[Path]:
    params = config.load(root)
    bases: list[Base] = []
    for name in params.prepare.bases:
        declared = config.base(root, name)
        bases += [declared, *(config.base(root, member) for member in declared.family)]
    for base in bases:
        if isinstance(base.weights, Scratch):
            yield weights_folder(root, base)


def cached(root: Path, asked: Request, notes: list[str]) -> list[Path]:
    """Objects of the editions that versions in use and the present text need, where no remote outside has them."""
    if "editions" in asked.without or not versions.hashes(root):
        return []
    try:
        name, where = versions.remote(root)
    except ConfigError:
        name, where = "", str(root)
    if not asked.every and not Path(where).is_relative_to(root):
        owed = "; some are owed to it still: push them" if versions.owed(root) else ""
        notes.append(f"editions are not in it: they are at the DVC remote {name!r}, {objects.shown(where)}{owed}")
        return []
    stays = retention.kept(Layout(root), config.load(root).retention)
    wanted = {hash_ for hash_ in (*of_origins(stays.origins), *named(root))}
    with objects.opened(root) as store:
        if not store.folder.is_relative_to(root):
            notes.append(f"editions are not in it: DVC's cache is outside of the project, at {store.folder}")
            return []
        return [store.find(hash_) for hash_ in sorted(retention.expanded(store, wanted))]


def summary(manifest: Manifest, file: Path) -> str:
    held = size(sum(one.bytes for one in manifest.files.values()))
    lines = [f"{file}: {len(manifest.files):,} files, {held}, of {manifest.created}"]
    lines += [f"  {name} database" for name in sorted(manifest.databases)]
    for line, found in manifest.versions.items():
        for number, aliases in found.items():
            lines.append(f"  {line} version {number} {', '.join(aliases)}".rstrip())
    return "\n".join([*lines, *(f"note: {note}" for note in manifest.notes)])
