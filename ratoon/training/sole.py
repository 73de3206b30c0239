"""One training process in a folder at a time.

A supervisor that was killed leaves a child that finishes its step and saves. Who comes next in that folder waits for
it: two would write the same checkpoints.
"""

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.2
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # some file systems of clusters; there it is as before


class Occupied(TimeoutError):
    """Another training process did not leave the folder in time."""


@contextmanager
def sole(folder: Path, wait_seconds: float) -> Iterator[IO[str]]:
    """The folder's lock, as a file to hand to the child: it is free when the last process that has it open is gone.

    Raises Occupied where another holds it for longer than `wait_seconds`.
    """
    with (folder / "lock").open("a") as file:
        until = time.monotonic() + wait_seconds
        while not taken(file):
            if time.monotonic() >= until:
                pid = folder / "pid"
                known = f" (process {pid.read_text(encoding='ascii')})" if pid.exists() else ""
                raise Occupied(
                    f"{folder}: another training process{known} has worked here for {wait_seconds:.0f} s since this "
                    f"one was to begin; let it finish, or end it: its checkpoints are gone on from"
                )
            time.sleep(POLL_SECONDS)
        yield file


def taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
