"""Reading the services' logs: the end of one, or everything it still says."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ratoon import config
from ratoon.config import ConfigError
from tasks import launch, processes

READABLE = (*launch.NAMES, "deploy")
LOOK_SECONDS = 0.5


def find(root: Path, name: str) -> Path:
    """Raises ConfigError if there is no such service or nothing was logged."""
    if name not in READABLE:
        raise ConfigError(config.unknown("service", name, list(READABLE)))
    path = launch.log(root.resolve(), name)
    if not path.exists():
        raise ConfigError(f"{path}: not found; `ratoon up` starts {name} and its log")
    return path


def end(root: Path, name: str, lines: int = 100) -> str:
    return processes.tail(find(root, name), lines)


def follow(root: Path, name: str, lines: int = 100, go_on: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """The end of a log, then what is added, until `go_on` says no. A log that was cut is read from its beginning."""
    path = find(root, name)
    with path.open("rb") as file:
        file.seek(0, 2)
        yield processes.tail(path, lines) + "\n"
        while go_on():
            if path.stat().st_size < file.tell():
                file.seek(0)
            if added := file.read():
                yield added.decode("utf-8", errors="replace")
            else:
                time.sleep(LOOK_SECONDS)
