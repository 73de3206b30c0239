"""One piece of training as a process: `python -m ratoon.training run|batch|sweep request.json`.

Progress goes to metrics.jsonl, the answer to result.json, a failure to standard error with an exit code of its own
where a person can mend it (ratoon/training/supervise.py lists them). A run that a signal asks to end finishes its step,
saves, and exits with 75; so do the runs of a batch, and a sweep keeps its finished groups. A second signal ends it at
once. With --supervised the process ends when its standard input closes: no orphan goes on training after its
supervisor died.

With train.processes above 1 a run is shared by as many processes, started here (ratoon/training/launch.py); under
torchrun or srun, which set RANK, the process is one of theirs (ratoon/training/ranks.py).
"""

from ratoon.leave import leave  # first: see there

# isort: split
import argparse
import os
import sys
import threading
from pathlib import Path

from ratoon import records
from ratoon.config import ConfigError
from ratoon.training.faults import ENDED, GAVE_UP, Ended, GaveUp
from ratoon.training.launch import launch
from ratoon.training.supervise import LETTER

CODES: dict[type[Exception], int] = {ConfigError: 2, OSError: 3, GaveUp: GAVE_UP, Ended: ENDED}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ratoon.training", description="Carry out one training request.")
    parser.add_argument("kind", choices=["run", "batch", "sweep"])
    parser.add_argument("request", type=Path, help="request.json, as ratoon writes it")
    parser.add_argument("--supervised", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args(words)
    if arguments.supervised:
        threading.Thread(target=end_with_supervisor, daemon=True).start()
    try:
        if processes := processes_of(arguments.kind, arguments.request):
            return launch(arguments.request, processes)
        carry_out(arguments.kind, arguments.request)
    except tuple(CODES) as error:
        own = (
            error.strerror if isinstance(error, OSError) and not error.filename else None
        )  # the letter without a number
        print(f"{LETTER}{own or error}", file=sys.stderr)
        return next(code for kind, code in CODES.items() if isinstance(error, kind))
    return 0


def processes_of(kind: str, path: Path) -> int | None:
    """How many this one is to start and watch; None: it trains itself, alone or as one of several."""
    if kind != "run":
        return None
    if "RANK" in os.environ:
        if "WORLD_SIZE" not in os.environ:  # alone it would read all rows of a step, and so would each beside it
            raise ConfigError(
                f"RANK is {os.environ['RANK']} and WORLD_SIZE is not set: a rank must know how many there are; start "
                f"it with torchrun, or unset RANK: then train.processes says how many"
            )
        return None
    from ratoon.training.request import Request

    asked = records.read(path, Request).recipe.processes
    return asked if asked > 1 else None


def carry_out(kind: str, path: Path) -> None:
    from ratoon.training.asked import Asked
    from ratoon.training.batch import BatchRequest, run_batch
    from ratoon.training.journal import Journal
    from ratoon.training.ranks import joined, started_as_rank
    from ratoon.training.request import Request
    from ratoon.training.run import train
    from ratoon.training.sweep import SweepRequest, run_sweep

    if kind == "run":
        request = records.read(path, Request)
        with joined(request.recipe) as ranks, Asked(request.recipe.faults.grace_seconds) as asked:
            train(request, asked, ranks)
        return
    if started_as_rank():
        raise ConfigError(f"a {kind} on several ranks: its runs are processes of their own; start it without torchrun")
    journal = Journal(path.parent / "metrics.jsonl", -1)

    def report(tokens: int, total: int) -> None:
        journal.write(tokens, tokens, {"total_tokens": total})

    if kind == "batch":
        batch = records.read(path, BatchRequest)
        with Asked(batch.grace_seconds) as asked:
            run_batch(batch, report, asked)
    else:
        sweep = records.read(path, SweepRequest)
        with Asked(sweep.grace_seconds) as asked:
            run_sweep(sweep, report, asked)


def end_with_supervisor() -> None:
    # Not sys.stdin: its lock, held by this thread, would abort the interpreter when it shuts down.
    while os.read(0, 1024):
        pass
    os.killpg(os.getpgid(0), 15) if os.getpgid(0) == os.getpid() else os._exit(143)


if __name__ == "__main__":
    sys.exit(leave(main()))
