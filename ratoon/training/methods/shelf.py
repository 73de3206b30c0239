"""Records under keys, in a file that is only ever appended to, and read back in any order.

Each record carries its checksum. A kill in the middle of a write leaves a torn end, which is cut off when the file is
next opened; a record damaged otherwise is not found, and is written again. So there is nothing to rename.
"""

import errno
import fcntl
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16


class Shelf:
    """fields  of a record, as numpy names them"""

    def __init__(self, path: Path, fields: list[Any]) -> None:
        self.kind = np.dtype([("key", f"V{KEY_BYTES}"), ("sum", "<u4"), *fields])
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a+b", buffering=0)
        with self.alone():
            whole = os.fstat(self.file.fileno()).st_size // self.kind.itemsize
            self.file.truncate(whole * self.kind.itemsize)
        self.places: dict[bytes, int] = {}
        if whole:
            keys = np.memmap(path, self.kind, "r", shape=(whole,))["key"]
            self.places = {key.tobytes(): place for place, key in enumerate(keys)}

    def check_room(self, records: int, key: str) -> None:
        """Refuse what will not fit before the disk is filled for everybody else. records  in all, those kept too"""
        wanted = (records - len(self.places)) * self.kind.itemsize
        free = shutil.disk_usage(Path(self.file.name).parent).free
        if wanted > free:
            raise OSError(
                errno.ENOSPC,
                f"{key}: what it keeps of {records:,} rows takes {wanted / 2**20:,.0f} MiB in "
                f"{Path(self.file.name).parent}, where {free / 2**20:,.0f} are free; free space, or lower it",
            )

    def get(self, key: bytes) -> np.void | None:
        place = self.places.get(key)
        if place is None:
            return None
        raw = os.pread(self.file.fileno(), self.kind.itemsize, place * self.kind.itemsize)
        if len(raw) < self.kind.itemsize:
            return None
        found = np.frombuffer(raw, self.kind)[0]
        return found if found["key"].tobytes() == key and int(found["sum"]) == checksum(found) else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Runs of a sweep may fill one file: none writes, or cuts an end off, while another does."""
        fcntl.flock(self.file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def put(self, key: bytes, **values: NDArray[Any]) -> np.void:
        """The record as it will be read."""
        record = np.zeros(1, self.kind)[0]
        record["key"] = np.void(key)
        for name, value in values.items():
            record[name] = value
        record["sum"] = checksum(record)
        with self.alone():
            place = os.fstat(self.file.fileno()).st_size // self.kind.itemsize
            try:
                written = self.file.write(record.tobytes())
            except OSError as error:
                raise self.full(error.errno or errno.EIO) from error
            if written < self.kind.itemsize:
                self.file.truncate(place * self.kind.itemsize)
                raise self.full(errno.ENOSPC)
        self.places[key] = place
        return record

    def full(self, number: int) -> OSError:
        why = "no space left" if number == errno.ENOSPC else os.strerror(number)
        return OSError(number, f"could not write {self.file.name}: {why}; free some and start again")


def checksum(record: np.void) -> int:
    plain = record.copy()
    plain["sum"] = 0
    return zlib.crc32(plain.tobytes())
