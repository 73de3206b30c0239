"""The ranks of a run on this machine, started and watched: `train.processes`. Needs no torch.

Each is `python -m ratoon.training run` with torchrun's variables, and ends when this process does. A signal that asks
to end goes to each once. When one fails the others are ended, for they would wait for it; this process then ends as
that one did, by exit code or by signal: who watches it sees one process, letters and restarts as ever.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from ratoon.training.supervise import MEANING

POLL_SECONDS = 0.1
LAST_SECONDS = 2.0  # for ranks that ended at the same step, or found the same mistake
ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
Rank = subprocess.Popen[bytes]


def launch(request: Path, count: int) -> int:
    """Exit code of the run. Where a signal ended one of its ranks this does not return: it ends by that signal."""
    port = free_port()
    ranks = [start(request, number, count, port) for number in range(count)]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in ASKING}
    ended = list[int]()
    try:
        ended = wait(ranks)
    finally:
        ended += end(ranks)
        for asking, handler in before.items():
            signal.signal(asking, handler)
    failed = cause(ranks, ended)
    if failed is None:
        return 0
    if failed > 0:
        sys.stderr.write(log_of(request, failed).read_text(encoding="utf-8", errors="replace")[-4000:])
        sys.stderr.flush()
    code = int(ranks[failed].returncode)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def start(request: Path, number: int, count: int, port: int) -> Rank:
    """The first says here what it has to say, the others in a file each."""
    said = log_of(request, number).open("wb") if number else None
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "ratoon.training", "run", str(request), "--supervised"],
            stdin=subprocess.PIPE,  # held open: its end is how a rank learns that we are gone
            stdout=said,
            stderr=said,
            start_new_session=True,  # a signal to our group reaches us alone, and so each rank once
            env={"OMP_NUM_THREADS": str(threads_each(count)), **os.environ, **told(number, count, port)},
        )
    finally:
        if said:
            said.close()


def threads_each(count: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // count)


def told(number: int, count: int, port: int) -> dict[str, str]:
    """torchrun's variables for one of so many ranks of this machine."""
    return {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def log_of(request: Path, number: int) -> Path:
    return request.parent / f"training.rank-{number}.log"


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def wait(ranks: list[Rank]) -> list[int]:
    """The rank that failed first, or several that did at one look; none where all ended well."""
    while True:
        codes = [rank.poll() for rank in ranks]
        if failed := [number for number, code in enumerate(codes) if code]:
            return failed
        if all(code == 0 for code in codes):
            return []
        time.sleep(POLL_SECONDS)


def cause(ranks: list[Rank], ended: list[int]) -> int | None:
    """The rank to tell of, of those that ended by themselves, in their order; None: none failed.

    One whose connection broke has no letter and often ends before the one it is broken with, whose letter is the cause.
    """
    codes = {number: int(ranks[number].returncode) for number in ended if ranks[number].returncode}
    told = [number for number, code in codes.items() if code < 0 or code in MEANING]
    return next(iter([*told, *codes]), None)


def end(ranks: list[Rank]) -> list[int]:
    """Those that are left; which of them ended by themselves. Not gently: they wait for what will not come, and
    checkpoints are whole at any moment."""
    until = time.monotonic() + LAST_SECONDS
    left = [number for number, rank in enumerate(ranks) if rank.poll() is None]
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    ended = [number for number in left if ranks[number].poll() is not None]
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
        rank.wait()
        if rank.stdin:
            rank.stdin.close()
    return ended
