"""What `ratoon train --estimate` predicts against what a run then takes: three small Llamas, time and peak memory.

python benchmarks/training_estimate.py [--steps 30] [--threads 1]

Rows are random words, which cost what any words cost. Each real run has a process of its own; its peak is the system's
account of that process (VmHWM), and its time is from opening the request to the record it leaves.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from ratoon.config import Schedule, Scratch, TrainConfig
from ratoon.lm.llama import new_llama
from ratoon.stream.rows import Index, ShardCounts, ShardPacker, dtype_for
from ratoon.training.estimate import estimate
from ratoon.training.meter import resident
from ratoon.training.pool import map_processes
from ratoon.training.probe import measure
from ratoon.training.request import Portion, Request
from ratoon.training.run import train

VOCABULARY, ROW = 4096, 256
SHAPES = {"64 wide": (64, 3, 16, 16), "128 wide": (128, 4, 16, 8), "256 wide": (256, 6, 8, 2)}  # layers, rows, micro


def rows(out: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    shards = {}
    for part, documents in (("train", 600), ("held_out", 60)):
        packer = ShardPacker(out / part / "a", VOCABULARY, separator=0)
        for _ in range(documents):
            packer.add(iter([random.integers(1, VOCABULARY, 500)]))
        packer.close()
        shards[part] = {"a": ShardCounts(tokens=501 * documents, documents=documents, bytes=2000 * documents)}
    index = Index(
        format=1,
        base="random",
        tokenizer="none",
        vocabulary=VOCABULARY,
        dtype=dtype_for(VOCABULARY),
        separator=0,
        row_tokens=ROW,
        shards=shards,
        totals={part: found["a"] for part, found in shards.items()},
    )
    (out / "rows.json").write_text(index.model_dump_json())
    return out


def request_of(root: Path, name: str, steps: int, threads: int) -> Request:
    hidden, layers, per_step, micro = SHAPES[name]
    shape = Scratch(
        kind="scratch",
        vocabulary=VOCABULARY,
        hidden=hidden,
        layers=layers,
        heads=4,
        feed_forward=4 * hidden,
        context=ROW,
        tokens=1,
        learning_rate=1,
        rows_per_step=1,
    )
    model = root / name.replace(" ", "-")
    new_llama(shape, VOCABULARY, 0).save_pretrained(model)
    (model / "tokenizer_config.json").write_text("{}")
    recipe = TrainConfig(
        tokens=steps * per_step * ROW,
        learning_rate=1e-3,
        rows_per_step=per_step,
        micro_rows=micro,
        threads=threads,
        schedule=Schedule.model_validate({"name": "wsd", "warmup_steps": 2, "decay_share": 0.2}),
        evaluations=3,
        checkpoints=2,
    )
    return Request(
        name=name,
        label=name,
        model=str(model),
        portions={role: Portion(rows=str(root / role), role=role, share=0.5) for role in ("general", "domain")},
        row_tokens=ROW,
        recipe=recipe,
        held_out_tokens=16 * ROW,
        out=str(root / "runs" / name),
    )


def real(request: Request) -> tuple[float, int]:
    begun = time.perf_counter()
    train(request)
    return time.perf_counter() - begun, resident("VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    print("| run | probe | time predicted / real | off | peak predicted / real | off |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for seed, role in enumerate(("general", "domain")):
            rows(root / role, seed)
        for name in SHAPES:
            request = request_of(root, name, asked.steps, asked.threads)
            begun = time.perf_counter()
            found = estimate(request, measure(request))
            probed = time.perf_counter() - begun
            seconds, peak = map_processes(real, [request], 1, lambda: None)[0]
            off = [100 * (a / b - 1) for a, b in ((found.seconds.total, seconds), (found.memory.peak, peak))]
            print(
                f"| {name}, {found.steps} steps of {found.step_tokens:,} | {probed:.0f} s "
                f"| {found.seconds.total:.1f} / {seconds:.1f} s | {off[0]:+.0f}% "
                f"| {found.memory.peak / 2**20:.0f} / {peak / 2**20:.0f} MiB | {off[1]:+.0f}% |",
                flush=True,
            )


if __name__ == "__main__":
    main()
