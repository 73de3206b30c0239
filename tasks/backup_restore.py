"""The way back from an archive: every byte compared with its list first, then files, then databases."""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from ratoon.config import ConfigError
from ratoon.layout import Layout
from tasks import commits, databases, disk, objects, processes, restore
from tasks.backup import FORMAT, MANIFEST, Manifest
from tasks.databases import Database

FILES = "files/"


@dataclass(frozen=True)
class Restored:
    manifest: Manifest
    files: int
    moved: int  # values in databases and records that named the old folder
    aside: Path | None
    notes: tuple[str, ...]


def check(file: Path) -> Manifest:
    """Read the whole archive. Raises ConfigError where it is cut short, damaged, or names a place outside."""
    if not file.is_file():
        raise ConfigError(f"{file}: not found; `ratoon backup make FILE` writes one")
    found: dict[str, tuple[int, str]] = {}
    last = b""
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                allowed(file, member)
                if (content := tar.extractfile(member)) is None:
                    raise ConfigError(f"{file}: {member.name} is no plain file; nothing was touched")
                if member.name == MANIFEST:
                    last = content.read()
                    continue
                hash_ = hashlib.sha256()
                while block := content.read(objects.BLOCK_BYTES):
                    hash_.update(block)
                found[member.name] = (member.size, hash_.hexdigest())
    except (tarfile.TarError, EOFError) as error:
        raise ConfigError(f"{file}: not a whole backup ({error}); take another") from error
    if not last:
        raise ConfigError(f"{file}: its list of hashes, which is written last, is not there: it was cut short")
    manifest = Manifest.model_validate_json(last)
    if manifest.format != FORMAT:
        raise ConfigError(f"{file}: of format {manifest.format}; this ratoon reads {FORMAT}")
    listed = {name: (one.bytes, one.sha256) for name, one in manifest.files.items()}
    if wrong := sorted(name for name in {*found, *listed} if found.get(name) != listed.get(name)):
        raise ConfigError(f"{file}: {wrong[0]} is not what was put into it ({len(wrong)} such); take another backup")
    return manifest


def allowed(file: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not member.isreg():
        raise ConfigError(f"{file}: {member.name!r} would lie outside of the project or is a link; nothing was touched")


def load(root: Path, file: Path, given: dict[str, str], *, force: bool = False) -> Restored:
    """Bring the archive's content into `root`. What differs there is in the way; with `force` it is moved aside."""
    manifest, root = check(file), root.resolve()
    if running := [name for name, one in processes.recorded(root).items() if processes.alive(one)]:
        raise ConfigError(f"{', '.join(running)} still run here and would write over it; `ratoon down` first")
    targets, moving = dict(placed(root, manifest, given)), manifest.root != str(root)
    for place in targets.values():
        if moving and isinstance(place, Database):
            databases.movable(place)
    paths = {name: path for name, path in targets.items() if isinstance(path, Path)}
    lost = [path for name, path in paths.items() if differs(root, path, manifest.files[name].sha256)]
    logs = [path for path in beside(paths) if path.exists()]
    if (lost or logs) and not force:
        inside = [path.relative_to(root).as_posix() for path in (*lost, *logs)]
        raise ConfigError(restore.refusal(root, inside))
    disk.room(root, root, sum(one.bytes for one in manifest.files.values()), "restoring the backup")
    aside = None
    if lost or logs:
        aside = restore.set_aside(Layout(root), root, [path.relative_to(root).as_posix() for path in (*lost, *logs)])
    notes = list(unpack(file, targets))
    moved = 0
    if moving:
        moved = move_files(root, manifest, paths) + move_databases(root, manifest, targets)
    return Restored(manifest, len(manifest.files), moved, aside, tuple(notes))


def differs(root: Path, path: Path, hash_: str) -> bool:
    """Something else is there, and Git could not bring it back."""
    if not path.exists() or objects.sha256(path) == hash_:
        return False
    return not commits.clean(root, str(path))


def placed(root: Path, manifest: Manifest, given: dict[str, str]) -> Iterator[tuple[str, Path | Database]]:
    """Member -> where it goes."""
    for name in manifest.files:
        if name.startswith(FILES):
            yield name, root / name.removeprefix(FILES)
    for service, member in manifest.databases.items():
        if member.endswith(".sqlite"):
            file = databases.Database(service, given.get(service) or databases.home(root, service)).file
            if file is None:
                raise ConfigError(
                    f"{service}: the backup holds a SQLite file, which {objects.shown(given[service])} is not"
                )
            yield member, file
        else:
            found = databases.of(root, service, given.get(service))
            if found.file is not None:
                raise ConfigError(
                    f"{service}: the backup holds a PostgreSQL dump; name the database: --{service}-database"
                )
            yield member, found


def beside(paths: dict[str, Path]) -> Iterator[Path]:
    """SQLite's logs of a database that is replaced: read with the new one they would spoil it."""
    for name, path in paths.items():
        if name.startswith("databases/"):
            yield from (path.with_name(path.name + end) for end in ("-wal", "-shm"))


def unpack(file: Path, targets: dict[str, Path | Database]) -> Iterator[str]:
    """Files first, databases after them: what a database names is there before it."""
    with tarfile.open(file, "r:") as tar, tempfile.TemporaryDirectory() as scratch:
        for name in sorted(targets, key=lambda name: (not name.startswith(FILES), name)):
            content, place = tar.extractfile(name), targets[name]
            assert content is not None
            goal = place if isinstance(place, Path) else Path(scratch) / "dump"
            goal.parent.mkdir(parents=True, exist_ok=True)
            half = goal.with_name(f".{goal.name}.new")
            with half.open("wb") as out:
                shutil.copyfileobj(content, out, objects.BLOCK_BYTES)
            half.replace(goal)
            if isinstance(place, Database):
                databases.load(place, goal)
                yield f"{place.name}: its PostgreSQL database is as it was"


def move_files(root: Path, manifest: Manifest, paths: dict[str, Path]) -> int:
    """Absolute paths in records. Not in origins and models, which are what their hashes say."""
    changed = 0
    models = {path.parent for path in paths.values() if path.suffix == ".safetensors"}
    for name, path in paths.items():
        state = name.startswith(f"{FILES}.ratoon/") and not name.startswith(f"{FILES}.ratoon/origins/")
        if path.suffix != ".json" or not state or path.parent in models:
            continue
        text = after = path.read_text(encoding="utf-8")
        for old, new in databases.spellings(manifest.root, str(root)):
            after = after.replace(old, new)
        if after != text:
            path.write_text(after, encoding="utf-8")
            changed += 1
    return changed


def move_databases(root: Path, manifest: Manifest, targets: Mapping[str, Path | Database]) -> int:
    moved = 0
    for service, member in manifest.databases.items():
        place = targets[member]
        found = Database(service, f"sqlite:///{quote(str(place))}") if isinstance(place, Path) else place
        moved += databases.move(found, manifest.root, str(root))
    return moved
