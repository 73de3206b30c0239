"""Training as a child process, watched: a kill is survived, a mistake is not repeated.

exit code 2   the request is wrong                     ConfigError
          3   full disk and the like                   OSError
          4   broke more often than it may go back     GaveUp
          75  asked to end, its state saved            Ended
a signal      started again from its last checkpoint; a run killed because memory was short, with fewer micro_rows;
              a batch or sweep that was is not started again
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from ratoon import records
from ratoon.config import ConfigError
from ratoon.training.faults import ENDED, GAVE_UP, Book, Ended, Fault, GaveUp, halved
from ratoon.training.request import Request
from ratoon.training.sole import sole

POLL_SECONDS = 0.5
GRACE_SECONDS = 20
KILLS = Path("/proc/vmstat")  # holds how many processes the kernel killed for their memory
LETTER = "ratoon: "
Line = dict[str, Any]


class Killed(RuntimeError):
    """The training process died of a signal more often than it was allowed to, or for want of memory."""


def supervise(
    kind: Literal["run", "batch", "sweep"],
    request: BaseModel,
    out: Path,
    *,
    on_line: Callable[[Line], None] | None = None,
    restarts: int = 2,
) -> None:
    """Run `python -m ratoon.training` on `request` until it has left result.json in `out`.

    on_line   receives each line of metrics.jsonl once, in order
    restarts  how often a process that died of a signal is started again; it resumes from its last checkpoint

    Raises ConfigError where the process says that the request is wrong, OSError for a full disk and the like, GaveUp
    and Ended as `train` does, Killed where signals do not end, Occupied where another trains in `out` already.
    """
    out.mkdir(parents=True, exist_ok=True)
    records.write(out / "request.json", request)
    tail = Tail(out / "metrics.jsonl")
    grace = GRACE_SECONDS + getattr(request, "grace_seconds", 0.0)
    deaths = 0
    while True:
        kills = memory_kills()
        code, said = once(kind, out, tail, on_line, grace)
        if code == 0:
            return
        if code > 0:
            raise MEANING.get(code, RuntimeError)(
                said if code in MEANING else f"training failed (exit code {code}); its last words:\n{said}"
            )
        name = signal.Signals(-code).name
        if name in ("SIGTERM", "SIGINT"):  # before it could answer: what it has finished is kept
            raise Ended(f"training was asked to end ({name}) and did; run again to go on from {out}")
        if name == "SIGKILL" and kills is not None and memory_kills() != kills:
            if not isinstance(request, Request):  # the same again would need the same memory
                raise Killed(
                    f"training was killed by the system when memory was short; lower sweep.workers or "
                    f"train.micro_rows, then run again to go on from {out}"
                )
            lower(request, out)  # each time there are fewer rows, so that this ends
            continue
        deaths += 1
        if deaths > restarts:
            hint = "; the machine may be out of memory: lower train.micro_rows" if name == "SIGKILL" else ""
            raise Killed(f"training was ended by {name} {deaths} times{hint}; run again to resume from {out}")


MEANING: dict[int, type[Exception]] = {2: ConfigError, 3: OSError, GAVE_UP: GaveUp, ENDED: Ended}


def memory_kills() -> int | None:
    """Processes the kernel has killed for their memory so far; None where it does not say."""
    try:
        lines = KILLS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def lower(request: Request, out: Path) -> None:
    """Have the next try take fewer rows per forward pass. Raises ConfigError where it took one."""
    book = Book(out / "faults.json", request.identity())
    recipe = request.recipe
    now = book.micro_rows or recipe.micro_rows or recipe.rows_per_step
    step = max((int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*")), default=0)
    why = "killed by the system when memory was short, at some step from here on"
    book.add(Fault(kind="memory", step=step, why=why, micro_rows=halved(recipe.rows_per_step, now)))


def once(
    kind: str, out: Path, tail: "Tail", on_line: Callable[[Line], None] | None, grace: float = GRACE_SECONDS
) -> tuple[int, str]:
    """Start the process, pass its lines on, wait. Returns exit code and the end of what it said."""
    log = out / "training.log"
    with log.open("ab") as file, sole(out, grace) as lock:
        begins = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "ratoon.training", kind, str(out / "request.json"), "--supervised"],
            stdin=subprocess.PIPE,  # held open: its end is how the child learns that we are gone
            stdout=file,
            stderr=file,
            start_new_session=True,
            pass_fds=(lock.fileno(),),  # it is the child that holds the folder, also when we are gone
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    (out / "pid").write_text(str(process.pid), encoding="ascii")
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            pass_on(tail, on_line)
        pass_on(tail, on_line)
    finally:
        if process.poll() is None:
            stop(process, grace)
        if process.stdin:
            process.stdin.close()
        (out / "pid").unlink(missing_ok=True)
    with log.open("rb") as file:
        file.seek(max(begins, log.stat().st_size - 4000))
        said = file.read().decode("utf-8", "replace").strip()
    return process.returncode, letter(said) if process.returncode in MEANING else said


def letter(said: str) -> str:
    """What the process wrote to a person; libraries may have said what they like before."""
    return f"\n{said}".rsplit(f"\n{LETTER}", 1)[-1]


def stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """The whole process group, gently and then not. A run finishes its step and saves meanwhile."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(grace)
            return
        except subprocess.TimeoutExpired:
            continue


def pass_on(tail: "Tail", on_line: Callable[[Line], None] | None) -> None:
    for line in tail.new():
        if on_line:
            on_line(line)


class Tail:
    """Lines added to a JSONL file since the last look. A file rewritten shorter is read on from its steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.inode: int | None = None
        self.last_step = -1
        self.passed: set[frozenset[str]] = set()  # kinds of lines of that step that were passed on
        self.again = False  # the file was begun anew, and has not come past that step yet

    def new(self) -> list[Line]:
        if not self.path.exists():
            return []
        found_now = self.path.stat()
        # A run that went back cut it to its checkpoint, in a new file, which may have grown past the old one since.
        if found_now.st_size < self.offset or found_now.st_ino != self.inode:
            self.offset = 0
            self.again = self.inode is not None
        self.inode = found_now.st_ino
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        found = []
        for raw in whole.splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            # An evaluation and a training line may share a step; what was seen before a resume does not come again.
            if line["step"] > self.last_step:
                self.last_step, self.passed, self.again = line["step"], set(), False
            kind = frozenset(name.split("/")[0] for name in line.get("metrics", ()))
            if line["step"] == self.last_step and not (self.again and kind in self.passed):
                found.append(line)
                self.passed.add(kind)
        return found
