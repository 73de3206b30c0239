"""How long training stands still for a checkpoint, against one step, while it waits and beside it.

    python benchmarks/training_checkpoint.py [--layers 8] [--rows 2] [--row-tokens 128] [--steps 4] [--rounds 5]

Three windows of the same steps, round by round so that a noisy machine disturbs all alike: without a save, with one
that is waited for, with one written beside. `call` is how long the loop stood still in it; `window` is what the save
cost in all, the slower steps beside it included: seconds of its window beyond those of the window without.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ratoon.config import Scratch, TrainConfig
from ratoon.lm.llama import new_llama
from ratoon.training import checkpoint
from ratoon.training.loop import State, advance, new_state
from ratoon.training.staging import Writer

VOCABULARY = 8192
KEPT = {"tokenizer": None, "identity": "benchmark", "tokens": 0}


def new(layers: int, rows: int, device: str) -> tuple[State, TrainConfig]:
    shape = Scratch(
        kind="scratch",
        vocabulary=VOCABULARY,
        hidden=512,
        layers=layers,
        heads=8,
        feed_forward=1408,
        context=2048,
        tokens=1,
        learning_rate=1,
        rows_per_step=1,
    )
    recipe = TrainConfig(tokens=1, learning_rate=1e-4, rows_per_step=rows)
    return new_state(new_llama(shape, VOCABULARY, 0).to(device), recipe), recipe


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--row-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="in each window; the write should end within them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    state, recipe = new(asked.layers, asked.rows, asked.device)
    random = np.random.default_rng(0)

    def batch_at(step: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = random.integers(1, VOCABULARY, (asked.rows, asked.row_tokens))
        return tokens, np.full(asked.rows, asked.row_tokens)

    def steps(number: int = asked.steps) -> None:
        advance(state, state.step + number, batch_at=batch_at, lr_at=lambda step: 1e-4, recipe=recipe)

    folder, writer = Path(tempfile.mkdtemp()), Writer()
    try:
        steps(2)
        checkpoint.save(state, folder, writer=writer, **KEPT)  # the first one fills memory that was never touched
        writer.wait()
        size = sum(file.stat().st_size for file in next(folder.iterdir()).rglob("*") if file.is_file())
        calls: dict[str, list[float]] = {"waiting": [], "beside": []}
        windows: dict[str, list[float]] = {"none": [], "waiting": [], "beside": []}
        for _ in range(asked.rounds):
            for way in windows:
                begun = time.perf_counter()
                if way != "none":
                    kept = writer if way == "beside" else None
                    calls[way].append(timed(lambda: checkpoint.save(state, folder, writer=kept, **KEPT)))  # noqa: B023
                steps()
                windows[way].append(time.perf_counter() - begun)
                writer.wait()
    finally:
        shutil.rmtree(folder)
    step = statistics.median(windows["none"]) / asked.steps
    params = sum(p.numel() for p in state.model.parameters())
    print(f"{params / 1e6:.0f}M parameters, {asked.device}, checkpoint {size / 2**20:.0f} MiB, step {step:.2f} s")
    for way, found in calls.items():
        over = [w - n for w, n in zip(windows[way], windows["none"], strict=True)]
        call, whole = statistics.median(found), statistics.median(over)
        print(
            f"{way:8} call {call:.3f} s = {call / step:.2f} steps   window {whole:+.3f} s = {whole / step:+.2f} steps"
        )


if __name__ == "__main__":
    main()
