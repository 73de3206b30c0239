"""Text that a run reads stays as it is until the run ends: a lock for each source, which goes with its process.

Editions are made in place. Those who read take their sources together with others who read; whoever makes a new edition
has its source alone, and where it is being read makes none.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ratoon.config import ConfigError
from ratoon.layout import Layout

WAIT_SECONDS = 600.0
LOOK_SECONDS = 0.5


class BeingRead(ConfigError):
    """Another edition of a source waits while a run reads the present one."""


@contextmanager
def read(layout: Layout, names: Iterable[str], wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Inside the block the editions of these sources do not change. Waits where one is being made.

    Raises ConfigError where that does not end in time.
    """
    with ExitStack() as held:
        for name in sorted(names):
            lock = held.enter_context(opened(layout, name))
            until = time.monotonic() + wait_seconds
            while not taken(lock, fcntl.LOCK_SH):
                if time.monotonic() > until:
                    raise ConfigError(
                        f"{name}: a new edition of it is being made, and was after {wait_seconds:.0f} s; "
                        f"run this again when `ratoon prepare` has ended"
                    )
                time.sleep(LOOK_SECONDS)
            note(lock)
        yield


@contextmanager
def change(layout: Layout, names: Iterable[str], is_stale: Callable[[str], bool]) -> Iterator[None]:
    """Inside the block nobody reads these sources. One that is being read and has nothing new is left to its readers.

    Raises BeingRead for one that is being read and `is_stale`.
    """
    with ExitStack() as held:
        for name in sorted(names):
            lock = held.enter_context(opened(layout, name))
            if not taken(lock, fcntl.LOCK_EX) and is_stale(name):
                lock.seek(0)
                raise BeingRead(
                    f"{name}: its edition would be replaced, and a run under way reads it (process "
                    f"{lock.read().strip() or '?'}); nothing was changed: run this again when it has ended"
                )
        yield


def opened(layout: Layout, name: str) -> IO[str]:
    path: Path = layout.state / "texts" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+", encoding="utf-8")


def taken(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note(lock: IO[str]) -> None:
    """Who reads: the last of several."""
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
