"""One DVC process: what it said, line by line, and what of that is for a person.

What is read when a stage fails is that stage's own letter, without DVC's frame.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ratoon.config import ConfigError
from tasks import dvc_locks, environment
from tasks.reach import shown

LETTER = "ratoon: "  # how the command line begins what it says to a person
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
GRACE_SECONDS = 10.0
RUNNING = re.compile(r"^Running stage '(?:.*/)?(?:dvc\.yaml:)?([^']+)'")
FAILED = re.compile(r"failed to reproduce '([^']+)'")
EXITED = re.compile(r"exited with (-?\d+)")
Report = Callable[[str], None]


@dataclass
class Said:
    """What one DVC process printed."""

    code: int = 0
    ran: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stage_begins: int = 0  # in `errors`: where the stage now running began


def patiently(
    root: Path, arguments: Sequence[str], report: Report | None, wait_seconds: float, *, as_writer: bool = False
) -> Said:
    """DVC, again while another DVC process holds what it needs: --wait-for-lock does not wait for a stage's lock.

    as_writer   we are the writer, so what turns out to be held by the dead is cleared on the way
    """
    until = time.monotonic() + wait_seconds
    while True:
        said = call(root, arguments, report)
        if not (said.code and any(sign in line for sign in BUSY for line in said.errors)):
            return said
        if time.monotonic() >= until:
            holder = next((line for line in said.errors if "(PID" in line), "")
            raise dvc_locks.busy(root, holder.strip(), wait_seconds)
        if report:
            report(dvc_locks.WAITING)
        time.sleep(dvc_locks.BUSY_SECONDS)
        if as_writer:
            dvc_locks.clear_stale(root, report)


def call(root: Path, arguments: Sequence[str], report: Report | None) -> Said:
    """`python -m dvc` in a session of its own: ended with us, with all its stages."""
    command = [sys.executable, "-m", "dvc", *arguments]
    if arguments[0] == "repro":  # which has stages: these import once for all (ratoon/warm.py)
        command = [sys.executable, "-m", "ratoon.warm", *command]
    process = subprocess.Popen(
        command,
        cwd=root,
        env=_environment(root),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    said = Said()
    try:
        for line, is_error in _lines(process):
            _hear(said, line, is_error, report)
        said.code = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    return said


def _environment(root: Path) -> Mapping[str, str]:
    # Unbuffered: a stage's progress is news while it runs, not when it ends.
    return {**os.environ, **environment.prepare(root), "PYTHONUNBUFFERED": "1"}


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[tuple[str, bool]]:
    """(line, whether on stderr) as they come. Of a line redrawn with carriage returns, what was drawn last."""
    assert process.stdout is not None
    assert process.stderr is not None
    errors = process.stderr.fileno()
    rest = {process.stdout.fileno(): b"", errors: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in rest:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            # Output before errors: the line that says which stage begins comes on stdout.
            for pipe in sorted((key.fd for key, _ in selector.select()), key=lambda fd: fd == errors):
                chunk = os.read(pipe, 65536)
                *whole, rest[pipe] = (rest[pipe] + chunk).split(b"\n")
                if not chunk:
                    selector.unregister(pipe)
                    whole = [rest[pipe]] if rest[pipe] else []
                for line in whole:
                    yield line.decode("utf-8", errors="replace").rstrip("\r").rsplit("\r", 1)[-1], pipe == errors


def _hear(said: Said, line: str, is_error: bool, report: Report | None) -> None:
    (said.errors if is_error else said.output).append(line)
    if not is_error and (match := RUNNING.match(line)):
        said.ran.append(match.group(1))
        said.stage_begins = len(said.errors)
    if report and line.strip():
        report(line)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(GRACE_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def raise_failed(said: Said) -> None:
    errors = "\n".join(said.errors)
    failed, exited = FAILED.search(errors), EXITED.search(errors)
    if failed is None or exited is None:  # DVC itself refused: a wrong dvc.yaml, a missing input
        raise ConfigError(f"dvc.yaml: {shown(reason(said))}")
    words = _last_words(said)
    if exited.group(1) == "2" and words:
        raise ConfigError(words)
    raise RuntimeError(f"stage {failed.group(1)} failed (exit code {exited.group(1)}): {words or 'it said nothing'}")


def _last_words(said: Said) -> str:
    """What the failed stage said on stderr: its letter if it wrote one, else its last lines."""
    lines = []
    for line in said.errors[said.stage_begins :]:
        if line.startswith("ERROR: failed to reproduce"):
            break
        lines.append(line.rstrip())
    begins = [number for number, line in enumerate(lines) if line.startswith(LETTER)]
    kept = lines[begins[-1] :] if begins else lines[-20:]
    return "\n".join(kept).strip().removeprefix(LETTER)


def reason(said: Said) -> str:
    """DVC's own error lines, without its advice on where to discuss them."""
    found = [line.removeprefix("ERROR: ") for line in said.errors if line.startswith("ERROR: ")]
    return "; ".join(found) or "\n".join(said.errors[-5:]) or f"exit code {said.code}"
