"""Logs stay bounded: a file past its size is copied aside and cut, while its writers go on writing.

Run as a program by `ratoon up`, with the folder to look after. It imports the standard library alone.
"""

import os
import shutil
import sys
import time
from pathlib import Path

MAX_BYTES = 10_000_000  # of one log; with its older copies a service's logs stay under 40 MB
COPIES = 3
EVERY_SECONDS = 20.0


def rotate(log: Path, max_bytes: int = MAX_BYTES, copies: int = COPIES) -> bool:
    """Whether it was over. Its writers append (O_APPEND), so after the cut they go on at its beginning.

    What is written between the last copied byte and the cut is lost: a line, in the worst case, every 10 MB.
    """
    if not log.exists() or log.stat().st_size <= max_bytes:
        return False
    for number in range(copies, 1, -1):
        older = log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))
    with log.open("r+b") as file, log.with_name(f"{log.name}.1").open("wb") as copy:
        # Of a log that grew past all bounds while nobody looked, only the end is kept.
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2 * max_bytes))
        shutil.copyfileobj(file, copy)
        file.truncate(0)
    return True


def look_after(folder: Path) -> None:
    while True:
        for log in sorted(folder.glob("*.log")):
            try:
                rotate(log)
            except OSError as error:  # a full disk: said, and tried again
                print(f"{log}: not rotated: {error}", flush=True)
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    look_after(Path(sys.argv[1]))
