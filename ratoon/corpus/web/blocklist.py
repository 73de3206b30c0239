"""Lists of hosts and addresses that are not read.

A list may have millions of entries and an archive some thousand addresses: the list is streamed past the addresses, and
never held.
"""

import gzip
import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from urllib.parse import urlsplit

from ratoon.config import ConfigError

WHEEL = "datatrove"  # its wheel carries the adult list of the University of Toulouse
ASSET = "url_filterblacklists"


def blocked(addresses: Iterable[str], lists: tuple[str, ...]) -> frozenset[str]:
    """The addresses whose host, a host above it, or own page is on one of the lists."""
    keys: dict[bytes, list[str]] = {}
    for address in addresses:
        for key in _keys(address):
            keys.setdefault(key.encode("utf-8", "replace"), []).append(address)
    found: set[str] = set()
    for name in lists:
        for line in _lines(name):
            if line in keys:
                found.update(keys[line])
    return frozenset(found)


def content(lists: tuple[str, ...]) -> str:
    """A name for what the files hold."""
    total = hashlib.blake2b(digest_size=16)
    for name in lists:
        path = _path(name)
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()


def _keys(address: str) -> Iterator[str]:
    """What a list may call this address: its hosts upwards, and its page without scheme."""
    try:
        parts = urlsplit(address.lower())
        host = parts.hostname or ""
    except ValueError:
        return
    names = host.removeprefix("www.").split(".")
    for i in range(len(names) - 1):
        yield ".".join(names[i:])
    if parts.path.strip("/"):
        page = f"{host.removeprefix('www.')}{parts.path}".rstrip("/")
        yield page
        if parts.query:
            yield f"{page}?{parts.query}"


def _lines(name: str) -> Iterator[bytes]:
    """Comments come along: no address begins with #."""
    for file in _open(name):
        for raw in file:
            line = raw.strip().lower().removesuffix(b"/")
            if line.startswith((b"http", b"www.")):
                line = line.removeprefix(b"http://").removeprefix(b"https://").removeprefix(b"www.")
            yield line


def _open(name: str) -> Iterator[Iterable[bytes]]:
    path = _path(name)
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            for member in archive:
                if listed := archive.extractfile(member):
                    yield listed
    elif path.suffix == ".gz":
        with gzip.open(path) as unpacked:
            yield unpacked
    else:
        with path.open("rb") as file:
            yield file


def _path(name: str) -> Path:
    if name != WHEEL:
        if not Path(name).is_file():
            raise ConfigError(f"web: {name}: not found; neither a list of hosts nor an archive of robots.txt")
        return Path(name)
    try:
        for file in files(WHEEL) or ():
            if file.name.startswith(ASSET):
                return Path(str(file.locate()))
    except PackageNotFoundError:
        pass
    raise ConfigError(
        f"web.block: {WHEEL}: its list is in the wheel, which is not installed: pip install 'ratoon[web]'"
    )
