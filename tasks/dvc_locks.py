"""One writer of a project's editions at a time, and what a DVC that was killed leaves locked.

`.dvc/tmp/lock` goes with its process, unless core.hardlink_lock is on: then it lies there for a year. `.dvc/tmp/rwlock`
is a file of pids that DVC rewrites in place: a kill leaves pids whose numbers others get, or half a file, which no DVC
command gets past.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

Report = Callable[[str], None]
BUSY_SECONDS = 2.0
WAITING = "waiting for another DVC process on this project"


class Busy(TimeoutError):
    """Another process held the editions for longer than we wait."""


@contextmanager
def writer(root: Path, report: Report | None = None, wait_seconds: float = 600.0) -> Iterator[None]:
    """Inside the block no other ratoon writes editions of this project, and DVC finds no lock of the dead.

    The lock goes with the process that holds it, however that ends. Raises Busy naming the one that does not let go.
    """
    path = root / ".dvc" / "tmp" / "ratoon.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        _take(root, lock, report, wait_seconds)
        lock.truncate(0)
        command = " ".join(" ".join(psutil.Process().cmdline()).split())[:200]
        lock.write(f"(PID {os.getpid()}): {command}")
        lock.flush()
        clear_stale(root, report)
        try:
            yield
        finally:
            lock.truncate(0)


def _take(root: Path, lock: IO[str], report: Report | None, wait_seconds: float) -> None:
    until = time.monotonic() + wait_seconds
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                lock.seek(0)
                raise busy(root, lock.read().strip(), wait_seconds) from None
        if report:
            report(WAITING)
        time.sleep(BUSY_SECONDS)


def busy(root: Path, holder: str, waited_seconds: float) -> Busy:
    return Busy(
        f"another DVC process works on {root}: {holder or 'one that does not say its name'}; "
        f"waited {waited_seconds:.0f} s for it\n"
        f"  let it finish, or end it: locks of processes that are gone are cleared by the next command"
    )


def clear_stale(root: Path, report: Report | None = None) -> list[str]:
    """Remove what dead processes hold; what it was. A living one's stays. Call it as the writer."""
    folder = root / ".dvc" / "tmp"
    found = [*_clear_pids(folder), *_clear_claim(root, folder / "lock")]
    for said in found:
        if report:
            report(said)
    return found


def _clear_pids(folder: Path) -> list[str]:
    path = folder / "rwlock"
    if not path.exists():
        return []
    with (folder / "rwlock.lock").open("a+b") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as DVC guards it while it edits
        except BlockingIOError:
            return []
        try:
            held: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            writes = {name: info for name, info in held.get("write", {}).items() if _works(info["pid"])}
            reads = {name: [one for one in infos if _works(one["pid"])] for name, infos in held.get("read", {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            path.unlink()
            return [f"{path}: cut short by a DVC process that was killed; removed"]
        reads = {name: infos for name, infos in reads.items() if infos}
        if (writes, reads) == (held.get("write", {}), held.get("read", {})):
            return []
        beside = path.with_name(f".rwlock.{os.getpid()}")
        beside.write_text(json.dumps({"write": writes, "read": reads}), encoding="utf-8")
        beside.replace(path)
    return [f"{path}: cleared of DVC processes that are gone"]


def _works(pid: int) -> bool:
    """A DVC process has this number now. One of another owner, whose command is hidden, is taken for one."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and _is_dvc(process)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _is_dvc(process: psutil.Process) -> bool:
    return any(Path(part).name == "dvc" or part.startswith("dvc.") for part in process.cmdline()[:4])


def _clear_claim(root: Path, path: Path) -> list[str]:
    """With core.hardlink_lock the file names a claim, by a hash that says nothing of its holder."""
    with suppress(OSError):
        claim = root / path.read_text(encoding="utf-8").strip()  # DVC writes it as it was given: often relative
        if claim.suffix != ".lock" or _at_work(root):
            return []
        path.unlink()
        if claim.parent.resolve() == path.parent.resolve():
            claim.unlink(missing_ok=True)
        return [f"{path}: left by a DVC process that was killed; removed"]
    return []


def _at_work(root: Path) -> bool:
    """Whether a DVC process runs in this folder or below."""
    for process in psutil.process_iter():
        try:
            if _is_dvc(process) and Path(process.cwd()).is_relative_to(root.resolve()):
                return True
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return True
    return False
