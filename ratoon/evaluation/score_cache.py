"""Per-item scores kept across refreshes, by what decides them: a parent is scored once, not once per refresh.

An entry is a file `<key>.<sha256 of its bytes>.parquet`: the key of model, items and settings, and the proof that it is
whole. It is written beside and renamed, so that writers who make the same entry at once leave one or two good ones.
What is not what its name says is thrown away and made again. Beyond `max_bytes` those used longest ago go.
"""

import contextlib
import hashlib
import os
import shutil
import threading
from pathlib import Path

MAX_BYTES = 2**30


class ScoreCache:
    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def take(self, key: str, to: Path) -> bool:
        """Copy the entry to `to`; False where there is none that is whole."""
        for entry in sorted(self.folder.glob(f"{key}.*.parquet")):
            try:
                shutil.copyfile(entry, to)
            except FileNotFoundError:  # another process has just made room
                continue
            if hashlib.sha256(to.read_bytes()).hexdigest() == entry.name.split(".")[1]:
                with contextlib.suppress(FileNotFoundError):
                    os.utime(entry)
                return True
            entry.unlink(missing_ok=True)
            to.unlink()
        return False

    def put(self, key: str, file: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        entry = self.folder / f"{key}.{hashlib.sha256(content).hexdigest()}.parquet"
        beside = self.folder / f".{entry.name}.{os.getpid()}.{threading.get_ident()}"
        try:
            beside.write_bytes(content)
            beside.replace(entry)
        finally:
            beside.unlink(missing_ok=True)
        self.make_room(entry)

    def make_room(self, newest: Path) -> None:
        """Forget those used longest ago; the newest stays even where it alone is too large."""
        entries = []
        for entry in self.folder.glob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                entries.append((entry == newest, entry.stat().st_mtime_ns, entry.stat().st_size, entry))
        total = sum(size for _, _, size, _ in entries)
        for newer, _, size, entry in sorted(entries):
            if total <= self.max_bytes or newer:
                break
            entry.unlink(missing_ok=True)
            total -= size
