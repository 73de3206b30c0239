"""A directory of content-named files and its ledger, replaced as a whole.

Names carry a digest of everything that made the file, so a file that is there under the right name needs no
making again, and a directory never depends on its own history. The ledger is written last and is the
authority: what it does not list does not belong to the edition.
"""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TextIO

from ratoon import records
from ratoon.config import ConfigError
from ratoon.records import Ledger

LEDGER = "ledger.json"


def digest(*parts: object) -> str:
    """Twelve hex digits over the representation of `parts` (str, int, float, bytes, tuples of these)."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48] or "unnamed"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_ledger(directory: Path) -> Ledger:
    return records.read(directory / LEDGER, Ledger)


def damaged(directory: Path) -> list[Path]:
    """Files that are not the bytes the ledger speaks of, or not there. All of it is read, by a thread for each core."""
    known = read_ledger(directory).shards
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        same = pool.map(lambda name: (directory / name).is_file() and sha256(directory / name) == known[name], known)
        return [directory / name for name, is_same in zip(known, same, strict=True) if not is_same]


def shards(directory: Path, prefix: str = "") -> list[Path]:
    """The Parquet shards an edition's ledger lists whose names start with `prefix`, in the one order: by name."""
    names = [name for name in read_ledger(directory).shards if name.startswith(prefix) and name.endswith(".parquet")]
    paths = [directory / name for name in sorted(names)]
    if missing := [path for path in paths if not path.exists()]:
        raise ConfigError(f"{missing[0]}: listed in {LEDGER} but not there; fetch the edition again or prepare it anew")
    return paths


class Edition:
    """The next state of `out` while it is being made. Nothing in `out` changes before `publish`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.staging = out.with_name(f".{out.name}.{os.getpid()}")
        self.known = read_ledger(out).shards if (out / LEDGER).exists() else {}
        # Hashed once per edition: reuse and the new ledger ask for the same files.
        self._hash = cache(sha256)

    def reusable(self, name: str) -> bool:
        """There under that name, and still the bytes the ledger speaks of."""
        return name in self.known and (self.out / name).is_file() and self._hash(self.out / name) == self.known[name]

    def place(self, name: str) -> Path:
        """Where to write a new file of that name."""
        path = self.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def path(self, name: str) -> Path:
        """Where the file is now: newly made, or reused."""
        new = self.staging / name
        return new if new.exists() else self.out / name

    def hashes(self, names: Iterable[str]) -> dict[str, str]:
        return {name: self._hash(self.path(name)) for name in sorted(names)}

    def publish(self, ledger: Ledger) -> Ledger:
        """New files in, then the ledger, then obsolete files out: killed anywhere, the ledger stays true."""
        for name in ledger.shards:
            if (self.staging / name).exists():
                (self.out / name).parent.mkdir(parents=True, exist_ok=True)
                (self.staging / name).replace(self.out / name)
        records.write(self.out / LEDGER, ledger)
        keep = {LEDGER, *ledger.shards}
        for path in sorted(self.out.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and path.relative_to(self.out).as_posix() not in keep:
                path.unlink()
        return ledger


@contextmanager
def renew(out: Path) -> Iterator[Edition]:
    """An Edition whose unfinished files vanish with any error; the earlier edition stays as it is.

    Raises ConfigError while another run makes the same edition, and when a file that is read vanishes or is damaged;
    OSError that says so when the files cannot be written (a full disk).
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _sweep(out)
            edition = Edition(out)
            try:
                yield edition
            finally:
                shutil.rmtree(edition.staging, ignore_errors=True)
    except (ConnectionError, TimeoutError):
        raise  # about what is read, and may heal
    except OSError as error:
        # Nobody but us writes below `out`, so a missing file is one we were to read; Arrow tells of damage without
        # an errno.
        if isinstance(error, FileNotFoundError) or error.errno is None:
            raise ConfigError(
                f"{out}: not made anew, the earlier edition is untouched: {error}\n"
                f"  a file it is made of vanished or is damaged; bring it back (dvc checkout) or run the stage before"
            ) from error
        reason = f"could not write {out}: {error.strerror or error}; the earlier edition is untouched"
        raise OSError(error.errno, reason) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds the lock of `out`. The kernel lets go of it when its process ends, however it ends."""
    path = out.with_name(f".{out.name}.lock")
    file = _locked(path)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _locked(path: Path) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have removed the file between our opening and locking it.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.seek(0)
            owner = file.read() or "a process"
            file.close()
            raise ConfigError(
                f"{path.with_name(path.name[1:].removesuffix('.lock'))}: another run is making this edition ({owner})\n"
                f"  wait until it ends, or stop it; what it has begun is then removed"
            ) from None
        except BaseException:
            file.close()
            raise
        file.close()


def _sweep(out: Path) -> None:
    """Remove what a killed process left beside `out`. A living one would hold the lock."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*"):
        if path.name.rpartition(".")[2].isdigit():
            shutil.rmtree(path, ignore_errors=True)
