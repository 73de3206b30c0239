"""One piece of training as a process: `python -m ratoon.training run|batch|sweep request.json`.

Progress goes to metrics.jsonl, the answer to result.json, a failure to standard error with exit code 2 where
a person can mend it. With --supervised the process ends when its standard input closes: no orphan goes on
training after its supervisor died.
"""

import argparse
import os
import sys
import threading
from pathlib import Path

from ratoon import records
from ratoon.config import ConfigError
from ratoon.training.supervise import LETTER


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ratoon.training", description="Carry out one training request.")
    parser.add_argument("kind", choices=["run", "batch", "sweep"])
    parser.add_argument("request", type=Path, help="request.json, as ratoon writes it")
    parser.add_argument("--supervised", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    if arguments.supervised:
        threading.Thread(target=end_with_supervisor, daemon=True).start()
    try:
        carry_out(arguments.kind, arguments.request)
    except ConfigError as error:
        print(f"{LETTER}{error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{LETTER}{error}", file=sys.stderr)
        return 3
    return 0


def carry_out(kind: str, path: Path) -> None:
    from ratoon.training.batch import BatchRequest, run_batch
    from ratoon.training.request import Request
    from ratoon.training.run import Journal, train
    from ratoon.training.sweep import SweepRequest, run_sweep

    if kind == "run":
        train(records.read(path, Request))
        return
    journal = Journal(path.parent / "metrics.jsonl", -1)

    def report(tokens: int, total: int) -> None:
        journal.write(tokens, tokens, {"total_tokens": total})

    if kind == "batch":
        run_batch(records.read(path, BatchRequest), report)
    else:
        run_sweep(records.read(path, SweepRequest), report)


def end_with_supervisor() -> None:
    # Not sys.stdin: its lock, held by this thread, would abort the interpreter when it shuts down.
    while os.read(0, 1024):
        pass
    os.killpg(os.getpgid(0), 15) if os.getpgid(0) == os.getpid() else os._exit(143)


if __name__ == "__main__":
    sys.exit(main())
