"""Training on two threads beside other work and alone: what it costs to wait by spinning.

    python benchmarks/training_crowded.py --project PROJECT [--busy 2] [--rounds 5]

Needs what `make demo` leaves in PROJECT. In every round a process with the spins ratoon sets (`tasks/environment.py`),
one with libgomp's own and one that does not spin (OMP_WAIT_POLICY=passive) take the same steps of nano, turn by turn;
first beside `--busy` processes that do nothing but count, then alone, four times as many. Tokens per second, medians
over rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tasks import environment

WAYS = {
    "ratoon": {environment.SPINS: environment.defaults(Path())[environment.SPINS]},
    "libgomp": {},
    "passive": {environment.WAITING: "passive"},
}


def steps(project: Path, count: int) -> None:
    """This process's part: tokens per second, on stdout."""
    import torch
    from training_speed import Ours, mixture

    from ratoon import config
    from ratoon.lm.base import weights_folder

    torch.set_num_threads(2)
    stream = mixture(project, "nano")
    ours = Ours(weights_folder(project, config.base(project, "nano")), stream, 16)
    ours.steps(3)
    print(count * 16 * stream.row_tokens / ours.steps(count))


def turn(asked: argparse.Namespace, way: dict[str, str], count: int) -> float:
    command = [sys.executable, __file__, "--project", str(asked.project), "--steps", str(count), "--alone"]
    kept = {k: v for k, v in os.environ.items() if k not in (environment.SPINS, environment.WAITING)}
    done = subprocess.run(command, env={**kept, **way}, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        return steps(asked.project, asked.steps)
    for count in (asked.busy, 0):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            length = asked.steps if count else 4 * asked.steps
            rounds = [{name: turn(asked, way, length) for name, way in WAYS.items()} for _ in range(asked.rounds)]
        finally:
            for one in busy:
                one.kill()
                one.wait()
        found = {name: round(statistics.median(one[name] for one in rounds)) for name in WAYS}
        ratio = statistics.median(one["ratoon"] / one["libgomp"] for one in rounds)
        print(json.dumps({"busy": count, **found, "ratoon to libgomp": round(ratio, 2)}), flush=True)


if __name__ == "__main__":
    main()
