"""Small proxies as one stack of weights, against the same ones one after the other: seconds per step of all of them.

    OMP_NUM_THREADS=1 python benchmarks/training_stacked.py [--device cuda] [--only N]

Both sides read the same random rows and take the same updates: forward, backward, clipping, AdamW. The loop is that of
a run, in turn over the proxies; on several cores proxies run side by side either way, so one core is measured. The
median of the repeats counts, of CPU seconds on a CPU: other work on the machine is not counted.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ratoon.config import Scratch, TrainConfig
from ratoon.lm.llama import new_llama
from ratoon.stream.mixture import Batch
from ratoon.training.loop import advance, new_state
from ratoon.training.stacked import Stack

REPEATS = 5
# proxies, width, layers, words, rows, tokens of a row
CASES = (
    (16, 16, 2, 512, 2, 64),
    (16, 16, 2, 512, 8, 64),
    (12, 32, 2, 512, 2, 64),
    (12, 40, 2, 2048, 2, 128),
    (6, 40, 2, 2048, 16, 128),
    (12, 64, 3, 512, 2, 64),
    (6, 64, 3, 2048, 2, 128),
    (6, 64, 3, 2048, 16, 128),
    (6, 128, 3, 2048, 4, 128),
)
GPU_CASES = (
    (64, 64, 3, 2048, 16, 128),
    (32, 128, 4, 2048, 16, 128),
    (16, 256, 6, 8192, 16, 256),
    (8, 512, 8, 8192, 16, 512),
)


def proxies(case: tuple[int, ...], device: str) -> list[Any]:
    """What a Stack asks of its runs."""
    number, width, layers, words, rows, length = case
    recipe = TrainConfig(tokens=10**9, learning_rate=1e-4, rows_per_step=rows, device=device)  # type: ignore[arg-type]
    found = []
    for n in range(number):
        shape = Scratch(
            kind="scratch",
            vocabulary=words,
            hidden=width,
            layers=layers,
            heads=4,
            feed_forward=width * 11 // 4,
            context=length,
            tokens=1,
            learning_rate=1,
            rows_per_step=1,
            seed=n,
        )
        model = new_llama(shape, words, 0).to(device)  # type: ignore[arg-type]
        tokens = np.random.default_rng(n).integers(1, words, (rows, length))
        batch = Batch(tokens, np.full(rows, length))
        request = SimpleNamespace(name=str(n), model="", recipe=recipe, step_tokens=rows * length)
        state = new_state(model, recipe)
        found.append(
            SimpleNamespace(model=model, state=state, request=request, batch_at=lambda step, batch=batch: batch)
        )
    return found


def seconds(work: Callable[[], None], device: str) -> float:
    """Median over repeats, after two that warm up."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    found = []
    for repeat in range(REPEATS + 2):
        begun = clock()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        if repeat > 1:
            found.append(clock() - begun)
    return float(np.median(found))


def measure(case: tuple[int, ...], device: str) -> None:
    alone, stack = proxies(case, device), Stack(proxies(case, device))

    def loop() -> None:
        for run in alone:
            until, recipe = run.state.step + 1, run.request.recipe
            advance(run.state, until, batch_at=run.batch_at, lr_at=lambda step: 1e-4, recipe=recipe)

    def stacked() -> None:
        step = stack.runs[0].state.step
        stack.advance(step + 1, 10**6, [lambda step, values: None] * len(stack.runs))

    one, all_ = seconds(loop, device), seconds(stacked, device)
    number, width, layers, words, rows, length = case
    weights = sum(p.numel() for p in alone[0].model.parameters())
    print(
        f"{number:>3} proxies, {width:>3} wide, {layers} layers, {words:>5} words, {rows:>2} rows of {length:>3}: "
        f"loop {1e3 * one:8.1f} ms, stack {1e3 * all_:8.1f} ms, {one / all_:5.2f}x, "
        f"tokens x weights {rows * length * weights:.1e}",
        flush=True,
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    asked.add_argument("--only", type=int, help="the n-th case alone")
    given = asked.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases = CASES if given.device == "cpu" else GPU_CASES
    for n, case in enumerate(cases):
        if given.only in (None, n):
            measure(case, given.device)


if __name__ == "__main__":
    main()
