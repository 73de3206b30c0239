"""DVC's storage, object by object: what an edition is made of, in the cache or at the remote, each by its own hash."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from ratoon.config import ConfigError
from tasks import environment
from tasks.reach import shown

FOLDER = ".dir"  # ends the hash of a folder: its object is the list of its files
BLOCK_BYTES = 1 << 20


@contextmanager
def opened(root: Path) -> Iterator["Objects"]:
    environment.apply(root)  # no telemetry, as where DVC is a process of its own
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        yield Objects(repo)


class Objects:
    """The cache of a project, and its default remote, which is looked for only when it is needed."""

    def __init__(self, repo: Any) -> None:
        self._repo = repo
        self.folder = Path(repo.cache.local.path)

    @cached_property
    def remote(self) -> Any:
        """DVC's store of objects at the default remote, whatever kind it is; None: there is none."""
        from dvc.config import NoRemoteError

        try:
            return self._repo.cloud.get_remote_odb()
        except NoRemoteError:
            return None

    def place(self, hash_: str) -> Path:
        return self.folder / hash_[:2] / hash_[2:]

    def every(self) -> dict[str, Path]:
        """Hash -> file of what the cache holds."""
        found = (file for shelf in self.folder.glob("[0-9a-f][0-9a-f]") for file in shelf.iterdir())
        return {file.parent.name + file.name: file for file in found if file.is_file() and "." not in file.stem}

    def find(self, hash_: str) -> Path:
        """The file of an object, as its hash says; fetched if the cache has it not or has it damaged.

        Raises ConfigError if neither cache nor remote has it whole.
        """
        place = self.place(hash_)
        if place.exists() and md5(place) == hash_.removesuffix(FOLDER):
            return place
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        beside.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._fetch(hash_, beside)
            if md5(beside) != hash_.removesuffix(FOLDER):
                raise ConfigError(f"the DVC remote holds {hash_} damaged: its content has another hash")
            beside.chmod(0o444)  # as DVC leaves its cache: nothing is written through a link
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
        return place

    def _fetch(self, hash_: str, into: Path) -> None:
        missing = f"the edition {hash_} is not in DVC's cache"
        if self.remote is None:
            raise ConfigError(f"{missing}, and there is no remote; bring back {self.place(hash_)}")
        try:
            self.remote.fs.get_file(self.remote.oid_to_path(hash_), str(into))
        except FileNotFoundError:
            raise ConfigError(f"{missing} and not at the remote {shown(str(self.remote.path))}") from None
        except Exception as error:  # whatever the storage's own client raises: botocore's are no OSErrors
            where = shown(str(self.remote.path))
            raise ConfigError(f"{missing}, and the remote {where} did not give it: {shown(str(error))}") from error

    def files(self, hash_: str) -> dict[str, str]:
        """Relative path -> hash of an edition that is a folder; of a file, "" -> its hash."""
        if not hash_.endswith(FOLDER):
            return {"": hash_}
        listed = json.loads(self.find(hash_).read_text(encoding="utf-8"))
        for item in listed:
            parts = Path(item["relpath"]).parts
            if ".." in parts or Path(item["relpath"]).is_absolute():
                raise ConfigError(f"the edition {hash_} names {item['relpath']!r}, which lies outside of it; refused")
        return {item["relpath"]: item["md5"] for item in listed}

    def send(self, hashes: set[str]) -> None:
        """Editions that the files here do not name any more, to the remote, as far as the cache still has them."""
        from dvc_data.hashfile.hash_info import HashInfo

        there = {hash_ for hash_ in hashes if self.place(hash_).exists()}
        whole = there | {md5 for hash_ in there for md5 in self.files(hash_).values()}
        if known := [HashInfo("md5", hash_) for hash_ in sorted(whole) if self.place(hash_).exists()]:
            result = self._repo.cloud.push(known)
            if result.failed:
                raise OSError(f"{len(result.failed)} objects of earlier editions were not taken")

    def held_away(self, hash_: str) -> int | None:
        """Its bytes at the remote; None: it is not there. Raises ConnectionError where the remote does not answer."""
        with self._asked():
            if self.remote is None or not self.remote.exists(hash_):
                return None
            return int(self.remote.fs.info(self.remote.oid_to_path(hash_))["size"])

    def forget(self, hash_: str) -> None:
        """Remove an object from the remote; that it is not there is no fault."""
        if self.held_away(hash_) is not None:
            with self._asked():
                self.remote.fs.remove([self.remote.oid_to_path(hash_)])

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            where = shown(str(self.remote.path))
            raise ConnectionError(f"the DVC remote at {where} did not answer: {shown(str(error))}") from error


def md5(path: Path) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(source: Path, into: Path) -> None:
    """A copy of its own, beside and then in place: what is there is whole, and linked to nothing."""
    into.parent.mkdir(parents=True, exist_ok=True)
    beside = into.with_name(f".{into.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, beside)
        beside.replace(into)
    finally:
        beside.unlink(missing_ok=True)
