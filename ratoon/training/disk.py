"""A disk that may fill up, and a process that may be killed while it writes to it."""

import errno
import os
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError

KEEP = 2  # checkpoints of a run that stay


def letter(error: OSError | SafetensorError, final: Path) -> OSError:
    """safetensors tells a full disk with an exception of its own, the system's number inside its text."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (said := re.search(r"os error (\d+)", str(error))):
        number = int(said.group(1))
    why = (error.strerror if isinstance(error, OSError) else None) or (os.strerror(number) if number else str(error))
    return OSError(
        number or errno.EIO, f"could not save {final}: {why}; free space and start again: earlier ones are whole"
    )


def check_room(num_bytes: int, final: Path) -> None:
    """Refuse a checkpoint that will not fit before the disk is filled for everybody else."""
    final.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(final.parent).free
    if free < num_bytes:
        why = f"{os.strerror(errno.ENOSPC)} for {num_bytes / 2**20:,.0f} MiB, {free / 2**20:,.0f} free"
        raise OSError(errno.ENOSPC, why)


def discard(path: Path) -> None:
    """Remove a checkpoint; cut short, it is a leftover and never half a checkpoint."""
    aside = path.with_name(f".{path.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    path.replace(aside)
    shutil.rmtree(aside)


def tidy(folder: Path) -> None:
    """Remove what a process that was killed left half-written or half-removed."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def flush_names(folder: Path) -> None:
    """The new name on disk before an older one goes, also where the power fails."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
