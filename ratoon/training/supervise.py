"""Training as a child process, watched: a kill is survived, a mistake is not repeated."""

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

POLL_SECONDS = 0.5
GRACE_SECONDS = 20
LETTER = "ratoon: "
Line = dict[str, Any]


class Killed(RuntimeError):
    """The training process died of a signal more often than it was allowed to."""


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

    Raises ConfigError where the process says that the request is wrong, OSError for a full disk and the like,
    Killed where signals do not end.
    """
    out.mkdir(parents=True, exist_ok=True)
    records.write(out / "request.json", request)
    tail = Tail(out / "metrics.jsonl")
    for attempt in range(restarts + 1):
        code, said = once(kind, out, tail, on_line)
        if code == 0:
            return
        if code == 2:
            raise ConfigError(said)
        if code == 3:
            raise OSError(said)
        if code > 0:
            raise RuntimeError(f"training failed (exit code {code}); its last words:\n{said}")
        name = signal.Signals(-code).name
        hint = "; the machine may be out of memory: lower train.micro_rows" if name == "SIGKILL" else ""
        if attempt == restarts:
            raise Killed(f"training was ended by {name} {restarts + 1} times{hint}; run again to resume from {out}")


def once(kind: str, out: Path, tail: "Tail", on_line: Callable[[Line], None] | None) -> tuple[int, str]:
    """Start the process, pass its lines on, wait. Returns exit code and the end of what it said."""
    log = out / "training.log"
    with log.open("ab") as file:
        begins = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "ratoon.training", kind, str(out / "request.json"), "--supervised"],
            stdin=subprocess.PIPE,  # held open: its end is how the child learns that we are gone
            stdout=file,
            stderr=file,
            start_new_session=True,
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
            stop(process)
        if process.stdin:
            process.stdin.close()
        (out / "pid").unlink(missing_ok=True)
    with log.open("rb") as file:
        file.seek(max(begins, log.stat().st_size - 4000))
        said = file.read().decode("utf-8", "replace").strip()
    return process.returncode, letter(said) if process.returncode in (2, 3) else said


def letter(said: str) -> str:
    """What the process wrote to a person; libraries may have said what they like before."""
    return f"\n{said}".rsplit(f"\n{LETTER}", 1)[-1]


def stop(process: subprocess.Popen[bytes]) -> None:
    """The whole process group, gently and then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_SECONDS)
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
        self.last_step = -1

    def new(self) -> list[Line]:
        if not self.path.exists():
            return []
        if self.path.stat().st_size < self.offset:  # a resumed run cut it back to its checkpoint
            self.offset = 0
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
            # An evaluation and a training line may share a step; steps seen before a resume do not come again.
            if line["step"] >= self.last_step:
                found.append(line)
                self.last_step = line["step"]
        return found
