"""How much of the disk each kind of thing takes, and the refusal of what will not fit."""

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ratoon.config import ConfigError
from ratoon.report.wording import size

SPARE_BYTES = 64 << 20  # databases, logs and records go on growing beside what is counted
KINDS = {
    "raw text": ("data/raw",),
    "editions": ("data/documents", "data/scorers", "data/scores", "data/clean", "data/rows", "models/tokenizers"),
    "DVC cache": (".dvc/cache",),
    "DVC remote here": (".ratoon/dvc-remote",),
    "bases": ("models/weights", ".ratoon/bases"),
    "refreshes": (".ratoon/refreshes",),
    "history and origins": (".ratoon/history", ".ratoon/origins"),
    "cached scores": (".ratoon/scores",),
    "MLflow": (".ratoon/mlflow.db", ".ratoon/mlflow.db-wal", ".ratoon/mlartifacts"),
    "Prefect and logs": (".ratoon/prefect", ".ratoon/logs"),
    "restored": (".ratoon/restored",),
}


# ---------------------------------------------------------------- what there is


def usage(root: Path) -> dict[str, int]:
    """Bytes by kind, largest first. A file with two names is counted where it is met first."""
    seen: set[tuple[int, int]] = set()
    found = {kind: sum(bytes_of(root / path, seen) for path in paths) for kind, paths in KINDS.items()}
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def bytes_of(path: Path, seen: set[tuple[int, int]] | None = None) -> int:
    total = 0
    for file in files(path):
        try:
            about = file.lstat()
        except FileNotFoundError:  # of a run under way
            continue
        inode = (about.st_dev, about.st_ino)
        if seen is not None and about.st_nlink > 1:
            if inode in seen:
                continue
            seen.add(inode)
        total += about.st_size
    return total


def files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (one for one in path.rglob("*") if one.is_symlink() or one.is_file())


def told(root: Path, used: dict[str, int]) -> str:
    kinds = [f"{kind} {size(held)}" for kind, held in used.items() if held]
    said = f"disk: {size(sum(used.values()))} here, {size(free(root))} free"
    return "\n".join([said, *textwrap.wrap("; ".join(kinds), 78, initial_indent="  ", subsequent_indent="  ")])


def free(path: Path) -> int:
    place = path.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


# ---------------------------------------------------------------- what will be


def room(root: Path, place: Path, needed: int, what: str) -> None:
    """Raises ConfigError where `needed` bytes and some to spare do not fit where `place` is to lie."""
    if (there := free(place)) >= needed + SPARE_BYTES:
        return
    raise ConfigError(
        f"{what} needs about {size(needed + SPARE_BYTES)} where {place} lies, and {size(there)} are free; "
        f"nothing was begun\n  {freed(root)}, or give it a larger disk"
    )


def freed(root: Path) -> str:
    from tasks import retention

    try:
        planned = retention.plan(root)
    except Exception as error:
        # What is to be said is that the disk is full; why this could not be reckoned comes second.
        return f"what `ratoon gc` would free is not known ({str(error).splitlines()[0]}): make room"
    return f"`ratoon gc` would free {size(sum(item.bytes for item in planned.items))}: look at it, then add --yes"
