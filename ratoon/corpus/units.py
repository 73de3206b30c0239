"""Origins to units: the parts of a source that are ingested, stored and reused on their own.

A unit is a package, a large file, a group of small files or a hub dataset. Its digest covers the bytes it is
made of, so which units there are, and what they hold, is a function of the input alone.
"""

import glob
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ratoon.config import ConfigError, Dataset, Files, Origin, Packages, Source
from ratoon.corpus import formats, hub, packages
from ratoon.corpus.edition import digest, slug
from ratoon.corpus.formats import Bad, Record

# Raise it whenever the same input would give other documents: shards of the old version are then made anew.
VERSION = 1
LARGE_BYTES = 4 << 20
# Groups that a folder of small files is cut into at least, about; up to so many files each is a group of its own.
GROUPS = 64
# What a store says of content, not of time or place: the same bytes give the same tag.
CONTENT_TAGS = ("ETag", "etag", "md5Hash", "md5", "checksum", "content_hash", "sha256")
UNKNOWN_SUFFIX = "unknown suffix"


class Input(NamedTuple):
    """One file: what fsspec opens, what people are shown, and its size in bytes."""

    url: str
    name: str
    size: int


class Unit(NamedTuple):
    name: str
    digest: str
    size: int  # bytes of input, for progress and order of work
    origin: Origin
    inputs: tuple[Input, ...] = ()

    @property
    def shard(self) -> str:
        return f"{self.name}-{self.digest}.parquet"


class Plan(NamedTuple):
    units: tuple[Unit, ...]
    skipped: tuple[Input, ...]  # files of a folder whose suffix says nothing to us


def plan(source: Source, root: Path, amend: tuple[object, ...] = ()) -> Plan:
    """The units of a source by name, each once. `amend`: what is done to their text, for their digests.

    Raises ConfigError when an origin is missing, unreadable or of an unknown format.
    """
    units: dict[str, Unit] = {}
    skipped: list[Input] = []
    declared = (VERSION, source.name, source.license, source.language, *amend)
    for origin in source.origins:
        found: Iterator[Unit]
        if isinstance(origin, Packages):
            found = _packages(origin, declared)
        elif isinstance(origin, Dataset):
            found = iter([_dataset(origin, declared)])
        else:
            inputs, others = _list(origin, root)
            skipped.extend(others)
            found = _files(origin, inputs, declared, root)
        units.update({unit.shard: unit for unit in found})
    return Plan(tuple(units[key] for key in sorted(units)), tuple(skipped))


def records(unit: Unit) -> Iterator[Record | Bad]:
    """The records of a unit, in order."""
    if isinstance(unit.origin, Packages):
        (name,) = unit.origin.packages
        yield from packages.read(packages.installed(name, unit.origin.content), unit.origin.content)
    elif isinstance(unit.origin, Dataset):
        yield from hub.read(unit.origin)
    else:
        for item in unit.inputs:
            with _opened(item) as file:
                yield from formats.read(file, item.name, unit.origin.columns, unit.origin.web)


def _packages(origin: Packages, declared: tuple[Any, ...]) -> Iterator[Unit]:
    for name in origin.packages:
        distribution = packages.installed(name, origin.content)
        if not distribution.parts:
            raise ConfigError(f"package {name!r} has no {origin.content}; take it off the list")
        one = Packages(packages=(name,), content=origin.content)
        key = digest(*declared, origin.content, distribution.digest())
        yield Unit(f"{slug(distribution.name)}-{origin.content}", key, distribution.size, one)


def _dataset(origin: Dataset, declared: tuple[Any, ...]) -> Unit:
    pinned = origin.model_copy(update={"revision": hub.revision(origin)})
    return Unit(f"hub-{slug(origin.dataset)}", digest(*declared, pinned.digest()), 0, pinned)


def _web(origin: Files, root: Path, declared: tuple[Any, ...]) -> tuple[Files, tuple[Any, ...]]:
    """The origin with its lists found, and what its pages depend on beside themselves."""
    from ratoon.corpus.web import archive, blocklist

    web = origin.web.model_copy(
        update={
            "block": tuple(name if name == blocklist.WHEEL else str(root / name) for name in origin.web.block),
            "robots": tuple(str(root / name) for name in origin.web.robots),
        }
    )
    key = (archive.VERSION, origin.web.digest(), blocklist.content(web.block), blocklist.content(web.robots))
    return origin.model_copy(update={"web": web}), (*declared, *key)


def _files(origin: Files, inputs: list[Input], declared: tuple[Any, ...], root: Path) -> Iterator[Unit]:
    small: list[Input] = []
    declared = (*declared, tuple(sorted(origin.columns.model_dump().items())))
    if any(formats.suffix(item.name) in formats.ARCHIVES for item in inputs):
        origin, declared = _web(origin, root, declared)
    for item in inputs:
        if item.size >= LARGE_BYTES:
            name = f"{slug(item.name.rpartition('/')[2])}-{zlib.crc32(item.name.encode()):08x}"
            yield Unit(name, digest(*declared, item.name, _content(item)), item.size, origin, (item,))
        else:
            small.append(item)
    for group in groups(small):
        key = digest(*declared, tuple((item.name, _content(item)) for item in group))
        name = f"files-{zlib.crc32(group[0].name.encode()):08x}"
        yield Unit(name, key, sum(item.size for item in group), origin, tuple(group))


def groups(items: list[Input]) -> Iterator[list[Input]]:
    """Small files, sorted by name, in groups of LARGE_BYTES on average, or smaller ones where that made few.

    Whether a group ends with a file is up to that file's name and size. So files that come, go or change touch the
    group they fall into and at most one beside it, and a new folder is a few groups of its own, however many files it
    holds. Only where there is little text (GROUPS * LARGE_BYTES) is all of it grouped anew when the number of files
    passes a power of two.
    """
    least = (GROUPS << 32) >> (len(items) - 1).bit_length() if items else 0
    group: list[Input] = []
    for item in items:
        group.append(item)
        if zlib.crc32(item.name.encode()) < max((item.size << 32) // LARGE_BYTES, least):
            yield group
            group = []
    if group:
        yield group


def _list(origin: Files, root: Path) -> tuple[list[Input], list[Input]]:
    """(files we read, files we do not), each sorted by name."""
    found = _remote(origin.path) if "://" in origin.path or "::" in origin.path else _local(origin.path, root)
    if found is None:
        if origin.optional:
            return [], []
        raise ConfigError(f"{origin.path}: not found; put the text there, correct the path, or say optional: true")
    if len(found) == 1 and found[0].name == origin.path and not formats.readable(origin.path):
        raise ConfigError(f"{origin.path}: format not known by its suffix; readable are {formats.allowed()}")
    found.sort(key=lambda item: item.name)
    inputs = [item for item in found if formats.readable(item.name)]
    if not inputs and not origin.optional:
        raise ConfigError(f"{origin.path}: {len(found)} files, none readable; readable are {formats.allowed()}")
    return inputs, [item for item in found if not formats.readable(item.name)]


def _local(path: str, root: Path) -> list[Input] | None:
    base = root / path
    if base.is_file():
        return [Input(str(base), path, base.stat().st_size)]
    if base.is_dir():
        files = list(_walk(base))
    elif glob.has_magic(path):
        # glob leaves out hidden files by itself.
        files = [Path(file) for file in glob.glob(str(base), recursive=True)]
        if not files:
            return None
    else:
        return None
    return [_local_input(file, root) for file in files if not file.is_dir()]


def _local_input(file: Path, root: Path) -> Input:
    name = _spelled(file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix())
    try:
        return Input(str(file), name, file.stat().st_size)
    except OSError as error:  # a link to nowhere, for one
        raise ConfigError(f"{name}: could not be read: {error.strerror}; mend or remove it") from error


def _spelled(name: str) -> str:
    """With the bytes of a file name that are not UTF-8 as \\xe9: it goes into digests, tables and letters."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk(folder: Path) -> Iterator[Path]:
    """Every visible file below `folder`, through links to other folders too, each folder once."""
    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        real = Path(place).resolve()
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        for name in [] if real in seen else files:
            if not name.startswith("."):
                yield Path(place) / name
        seen.add(real)


def _raise(error: OSError) -> None:
    raise ConfigError(f"{error.filename}: could not be read: {error.strerror}; open it or take it out") from error


def _hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") for part in parts)


def _remote(url: str) -> list[Input] | None:
    with _reaching(url):
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
        if glob.has_magic(url) and not system.exists(path):
            found = {key: info for key, info in system.glob(path, detail=True).items() if info["type"] == "file"}
        elif system.isdir(path):
            every = system.find(path, detail=True)
            found = {key: info for key, info in every.items() if not _hidden(tuple(key[len(path) :].split("/")))}
        elif system.exists(path):
            return [Input(url, url, system.info(path).get("size") or 0)]
        else:
            return None
        named = {key: _url(url, system.unstrip_protocol(key)) for key in found}
        return [Input(named[key], _spelled(named[key]), info.get("size") or 0) for key, info in found.items()] or None


def _url(asked: str, member: str) -> str:
    """The URL of one file, with the links of a chain such as zip://*.txt::s3://bucket/a.zip."""
    first, *rest = asked.split("::")
    return "::".join([member, *rest] if "://" in first else [first, member])


class _reaching:
    """Whatever a file system of fsspec raises, said as a letter about `where`."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ImportError | ValueError) and not isinstance(error, ConfigError):
            raise ConfigError(f"{self.where}: {error}; install what its protocol needs or correct the URL") from error
        # A lost connection may heal, so it stays what it is; the rest is for a person.
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            raise ConfigError(f"{self.where}: could not be read: {error}; check that it is there and open") from error


@contextmanager
def _opened(item: Input) -> Iterator[Any]:
    with ExitStack() as stack:
        with _reaching(item.name):
            if "://" in item.url:
                import fsspec

                file = stack.enter_context(fsspec.open(item.url, "rb"))
            else:
                file = stack.enter_context(open(item.url, "rb"))
        yield file


def _content(item: Input) -> str:
    """A name for the bytes of the file: the store's own where it keeps one, else their hash."""
    if "://" in item.url:
        import fsspec

        with _reaching(item.name):
            system, path = fsspec.core.url_to_fs(item.url)
            info = system.info(path)
        if tag := next((str(info[key]) for key in CONTENT_TAGS if info.get(key)), None):
            return tag
    total = hashlib.blake2b(digest_size=16)
    with _opened(item) as file, _reaching(item.name):
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()
