"""Stages of dvc.yaml without an import each: a process that has imported once, and forks itself for every stage.

    python -m ratoon.warm COMMAND...      run the command; each `python -m ratoon prepare STEP ...` below it is a fork

DVC starts a process per stage, and of a small stage importing is nearly all. Under this one that process hands its
words, folder, environment and standard streams over, waits, and ends as the fork did. Without it (a person's
`dvc repro`), or where nobody answers, the same command does its work itself: what it makes is the same bytes.

Nothing is imported before the first stage asks, so that a repro with nothing to do costs nothing. The forking process
has one thread and has used no library it imported: a fork inherits no lock that is held.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

ADDRESS = "RATOON_WARM"  # of the socket, in the environment of what runs below
STREAMS = (0, 1, 2)
# What a stage of dvc.yaml imports; what only some need is imported by them.
NEEDED = ("clean", "decontaminate.judge", "pack", "scores.kept", "scores.stage", "sources", "tokenizer")
LARGEST = 1 << 24  # bytes of words and environment


# ---------------------------------------------------------------- the stage's own process


def hand_over(words: Sequence[str]) -> int | None:
    """Have `words` of the command line carried out by the warm process above; None: there is none, do it yourself."""
    address = os.environ.get(ADDRESS)
    if address is None:
        return None
    asked = json.dumps({"words": words, "folder": os.getcwd(), "environ": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(address)
            socket.send_fds(line, [len(asked).to_bytes(4, "big")], STREAMS)
            line.sendall(asked)
        except OSError:
            return None
        answer = b""
        with suppress(OSError):  # it may be killed while we wait: not done again here, a fork may still be at it
            answer = line.recv(16)
    if not answer:
        print(f"ratoon: {' '.join(words)}: its process was killed from outside; run it again", file=sys.stderr)
        return 1
    code = int(answer)
    if code < 0:  # of a signal, as the stage itself would have ended
        os.kill(os.getpid(), -code)
    return abs(code)


# ---------------------------------------------------------------- the process that forks


def serve(command: Sequence[str]) -> int:
    """Run the command, and the stages that it starts as forks. Its exit code."""
    folder = Path(tempfile.mkdtemp(prefix="ratoon-"))  # ours alone: whoever may write to the socket may run stages
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(str(folder / "stages"))
            except OSError:  # the path of a socket has 108 bytes at most
                return subprocess.call(command)
            listener.listen()
            return Forks(listener).until_ended(command, {**os.environ, ADDRESS: str(folder / "stages")})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Forks:
    """Stages at work: the line to who asked -> the fork that does it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.working: dict[socket.socket, ForkProcess] = {}

    def until_ended(self, command: Sequence[str], environ: dict[str, str]) -> int:
        """Run the command and what it asks for; its exit code."""
        from multiprocessing.connection import wait

        ended, held = os.pipe()  # held open by the command alone: it is read to its end when that ends
        process = subprocess.Popen(command, env=environ, pass_fds=(held,))
        os.close(held)
        ready: list[Any] = []
        try:
            while ended not in ready:
                ready = wait([ended, self.listener, *self.working, *(fork.sentinel for fork in self.working.values())])
                if self.listener in ready:
                    self.begin()
                for line, fork in list(self.working.items()):
                    if fork.sentinel in ready:
                        self.answer(line, fork)
                    elif line in ready:  # who asked was killed
                        fork.kill()
            return process.wait()
        finally:
            for fork in self.working.values():  # of a command that was killed, or of ours
                fork.terminate()
            if process.poll() is None:
                process.terminate()
            os.close(ended)

    def begin(self) -> None:
        import multiprocessing

        line, _ = self.listener.accept()
        asked, streams = read(line)
        if asked is None:
            line.close()
            return
        warm_up()
        fork = multiprocessing.get_context("fork").Process(target=carry_out, args=(asked, streams))
        fork.start()
        for stream in streams:
            os.close(stream)
        self.working[line] = fork

    def answer(self, line: socket.socket, fork: "ForkProcess") -> None:
        fork.join()
        del self.working[line]
        with line, suppress(OSError):  # who asked may have gone
            line.sendall(str(fork.exitcode).encode())


def read(line: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """What is asked, and the asker's streams; None: it was killed while it asked."""
    head, streams, _, _ = socket.recv_fds(line, 4, len(STREAMS))
    length = int.from_bytes(head, "big") if len(head) == 4 else LARGEST + 1
    asked = b""
    while len(asked) < length <= LARGEST and (part := line.recv(min(length - len(asked), 1 << 16))):
        asked += part
    return (json.loads(asked) if len(asked) == length else None), list(streams)


def warm_up() -> None:
    from importlib import import_module

    for name in ("ratoon.cli", "ratoon.stages", *(f"ratoon.corpus.{part}" for part in NEEDED)):
        import_module(name)


def carry_out(asked: dict[str, Any], streams: Sequence[int]) -> None:
    """In the fork: as if `python -m ratoon` had been started with these words, there and so."""
    from ratoon.cli import main

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stream, own in zip(streams, STREAMS, strict=True):
        os.dup2(stream, own)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update({key: value for key, value in asked["environ"].items() if key != ADDRESS})
    sys.argv[1:] = asked["words"]
    sys.exit(main(asked["words"]))


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
