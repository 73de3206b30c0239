"""The corpora and the config of a registered version, brought back to the byte into a folder."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ratoon.config import ConfigError
from ratoon.layout import Layout
from tasks import commits, disk, dvc_locks, objects, texts, tracking
from tasks.objects import Objects
from tasks.origin import Origin, every, kept_file, of_version


@dataclass(frozen=True)
class Wanted:
    """One file as it was."""

    path: str  # relative to the project
    hash: str
    edition: bool  # its hash is DVC's md5; else sha256 of a file of the origin

    def same(self, file: Path) -> bool:
        return file.is_file() and self.hash == (objects.md5(file) if self.edition else objects.sha256(file))


@dataclass(frozen=True)
class Restored:
    line: str
    version: int
    into: Path
    files: int  # of the version, all of them compared by hash
    written: int
    bytes: int  # written
    aside: Path | None  # where what was in the way lies now
    commit: str | None
    dirty: bool | None


def restore(root: Path, line: str, version: int, into: Path | None = None, *, force: bool = False) -> Restored:
    """Bring `into` (none: a folder of its own under .ratoon/restored) to what `version` was made of.

    What is there and nowhere else is in the way: a letter names it, and with `force` it is moved aside. Cut short, the
    same command goes on.
    """
    layout = Layout(root)
    origin = of_version(layout, tracking.version_of(line, version))
    folder = (into or layout.state / "restored" / f"{line}-v{version}").resolve()
    if file := next((place for place in (folder, *folder.parents) if place.is_file()), None):
        raise ConfigError(f"ratoon restore --into: {file} is a file; name a folder, such as one that is not there yet")
    with dvc_locks.writer(root), objects.opened(root) as store, ExitStack() as unread:
        wanted = list(parts(origin, store))
        todo = [one for one in wanted if not one.same(folder / one.path)]
        surplus = list(strangers(folder, origin, wanted))
        lost = in_the_way(layout, store, folder, [one.path for one in todo] + surplus)
        if lost and not force:
            raise ConfigError(refusal(folder, lost))
        paths = {one: source(layout, store, one) for one in todo}
        size = sum(path.stat().st_size for path in paths.values())
        if size:
            disk.room(root, folder, size, f"restoring {line} version {version}")
        if folder == root.resolve():
            touched = [Path(path) for path in (*(one.path for one in todo), *surplus)]
            changed = {Path(at).name for at in origin.editions if any(path.is_relative_to(at) for path in touched)}
            unread.enter_context(texts.change(layout, changed, lambda name: True))
        aside = set_aside(layout, folder, lost) if lost else None
        for name in surplus:
            (folder / name).unlink(missing_ok=True)
        for one, path in paths.items():
            objects.put(path, folder / one.path)
        if wrong := [one.path for one in todo if not one.same(folder / one.path)]:
            raise OSError(f"{folder / wrong[0]} is not what was written ({len(wrong)} files): see to the disk")
    return Restored(line, version, folder, len(wanted), len(todo), size, aside, origin.commit, origin.dirty)


def parts(origin: Origin, store: Objects) -> Iterator[Wanted]:
    yield from (Wanted(path, hash_, False) for path, hash_ in sorted(origin.files.items()))
    for path, hash_ in sorted(origin.editions.items()):
        for name, md5 in sorted(store.files(hash_).items()):
            yield Wanted(f"{path}/{name}" if name else path, md5, True)


def source(layout: Layout, store: Objects, one: Wanted) -> Path:
    return store.find(one.hash) if one.edition else kept_file(layout, one.hash)


def strangers(folder: Path, origin: Origin, wanted: list[Wanted]) -> Iterator[str]:
    """Files in the editions and among the declarations that the version had not: with them it would be another."""
    known = {one.path for one in wanted}
    folders = [*origin.editions, *sorted({str(Path(path).parent) for path in origin.files} - {"."})]
    for place in folders:
        for path in sorted((folder / place).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in known:
                yield name


def in_the_way(layout: Layout, store: Objects, folder: Path, paths: list[str]) -> list[str]:
    """Of these, what lies there and nowhere else: neither in DVC's cache, nor an origin's, nor as Git has it."""
    kept = {hash_ for origin in every(layout).values() for hash_ in origin.files.values()}
    lost = []
    for path in paths:
        file = folder / path
        if not file.is_file():
            continue
        if objects.sha256(file) in kept or store.place(objects.md5(file)).exists() or commits.clean(folder, path):
            continue
        lost.append(path)
    return lost


def refusal(folder: Path, lost: list[str]) -> str:
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    return (
        f"{folder}: {', '.join(lost[:5])}{more}: changed here and kept nowhere else; nothing was touched\n"
        f"  commit or move it, name another folder with --into, or move it aside with --force"
    )


def set_aside(layout: Layout, folder: Path, lost: list[str]) -> Path:
    aside = layout.state / "restored" / f"aside-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for path in lost:
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / path, aside / path)
    return aside
