"""A suite scored by ratoon and by lm-eval's own runner: CPU seconds, one process, the same threads, the same numbers.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py --model MODEL --suite SUITE --row-tokens 128

SUITE is `assess/suite` of a refresh. The peer is lm-eval's HFLM as it comes (no class of ours), given the batch size
that suits it best of BATCHES on a part of the suite; the model is loaded and all packages are imported before the
clock starts, tokenization counts on both sides. Rounds alternate; the median of CPU seconds counts, so that other work
on the machine does not. What the two give is compared first: nothing is timed that is not equal to 1e-6.

--parts times the tricks one by one: contexts shared or not, and token budgets.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ratoon.evaluation import asked, lm_eval_runner
from ratoon.evaluation.scorer import Scorer
from ratoon.evaluation.suite import Suite, Task, load
from ratoon.lm.load import load_model, load_tokenizer

BATCHES = (8, 32, 64)
TRIAL = 30  # items of each task on which the peer's batch size is chosen


def clock() -> float:
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = clock()
    answer = work()
    return clock() - begun, answer


def peer(model: Any, tokenizer: Any, row_tokens: int, batch: int, precision: str) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        max_length=row_tokens,
        batch_size=batch,
        add_bos_token=False,
        mixed_precision_dtype="bfloat16" if precision == "bf16" else None,
        softmax_dtype="float32",
    )


def ours(model: Any, tokenizer: Any, tests: Suite, suite: Path, row_tokens: int, bf16: bool) -> dict[str, list[Any]]:
    scorer = Scorer(model, tokenizer, row_tokens, bf16=bf16)
    return {task.name: found for task, found, _ in scorer.score(tests.tasks, suite)}


def theirs(meter: Any, tests: Suite, suite: Path, limit: int | None = None) -> dict[str, list[Any]]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    from ratoon.config import read_yaml

    with tempfile.TemporaryDirectory() as cache, lm_eval_runner.quiet():
        found = []
        for task in tests.tasks:
            files = {"data_files": {"test": str((suite / f"{task.name}.jsonl").resolve())}, "cache_dir": cache}
            found.append(read_yaml(suite / f"{task.name}.yaml") | {"dataset_kwargs": files})
        loaded = TaskManager(include_defaults=False).load(found)
        samples = lm_eval.evaluate(meter, loaded, bootstrap_iters=0, log_samples=True, limit=limit)["samples"]
    return {task.name: [lm_eval_runner.row(task, sample) for sample in samples[task.name]] for task in tests.tasks}


def apart(mine: list[dict[str, Any]], other: list[dict[str, Any]], task: Task) -> float:
    """Largest relative difference of a log-likelihood; hashes and answers must be equal."""
    worst = 0.0
    for one, two in zip(mine, other, strict=True):
        same = ("doc_hash", "prompt_hash", "target_hash", "correct" if task.kind != "rolling" else "bytes")
        assert all(one[name] == two[name] for name in same), (task.name, one["id"])
        if task.kind != "generation":
            pairs = zip(one["loglik_nats"], two["loglik_nats"], strict=True)
            worst = max(worst, *(abs(a - b) / abs(b) for a, b in pairs))
    return worst


def parts(model: Any, tokenizer: Any, tests: Suite, suite: Path, row_tokens: int, bf16: bool) -> None:
    """Each trick by itself, on the tasks it is for."""
    for task in tests.tasks:
        if task.kind == "generation":
            continue
        scorer = Scorer(model, tokenizer, row_tokens, bf16=bf16)
        seconds, ready = timed(lambda t=task, s=scorer: s.prepare(t, asked.items_of(suite / f"{t.name}.jsonl")))
        print(f"{task.name:<32} tokenised in {seconds:.2f} s")
        for shared in (True, False) if task.kind == "choice" else (True,):
            scorer.reader.branching = shared
            rows = list(scorer.reader.laid_out(ready.asked.rows))
            for budget in (1024, 2048, 4096, 8192, 16384):
                scorer.reader.batch_tokens = budget
                seconds = median(
                    timed(lambda s=scorer, r=ready: s.reader.nats(r.asked.rows, r.asked.requests))[0] for _ in range(3)
                )
                tokens = sum(row.length for row in rows)
                said = "context shared" if shared and task.kind == "choice" else "each by itself"
                print(f"    {said}, {budget:>6} tokens a batch: {seconds:6.2f} s, {tokens:,} tokens", flush=True)


def main() -> None:
    asks = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asks.add_argument("--model", type=Path, required=True)
    asks.add_argument("--suite", type=Path, required=True)
    asks.add_argument("--row-tokens", type=int, required=True)
    asks.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    asks.add_argument("--rounds", type=int, default=3)
    asks.add_argument("--parts", action="store_true")
    given = asks.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported; bars would cost the peer time
    tests = load(given.suite)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = load_model(given.model, device).eval(), load_tokenizer(given.model)
    bf16 = given.precision == "bf16"
    if given.parts:
        return parts(model, tokenizer, tests, given.suite, given.row_tokens, bf16)
    plain = load_model(given.model, device).eval()  # the peer's: of ours the layers are read by functions of our own
    first = tests.model_copy(update={"tasks": tests.tasks[-1:]})
    ours(model, tokenizer, first, given.suite, given.row_tokens, bf16)  # both are warm before the clock starts
    trials = {}
    for batch in BATCHES:
        meter = peer(plain, tokenizer, given.row_tokens, batch, given.precision)
        trials[batch] = timed(lambda m=meter: theirs(m, tests, given.suite, TRIAL))[0]
        print(f"lm-eval, batch {batch:>3}: {trials[batch]:6.2f} s for {TRIAL} items of each task", flush=True)
    best = min(trials, key=trials.__getitem__)
    meter = peer(plain, tokenizer, given.row_tokens, best, given.precision)
    seconds: dict[str, list[float]] = {"ratoon": [], "lm-eval": []}
    for _ in range(given.rounds):
        one, mine = timed(lambda: ours(model, tokenizer, tests, given.suite, given.row_tokens, bf16))
        two, other = timed(lambda: theirs(meter, tests, given.suite))
        seconds["ratoon"].append(one)
        seconds["lm-eval"].append(two)
        worst = max(apart(mine[task.name], other[task.name], task) for task in tests.tasks)
        print(
            f"ratoon {one:.2f} s, lm-eval (batch {best}) {two:.2f} s, {two / one:.2f}x; apart {worst:.1e}", flush=True
        )
        assert bf16 or worst < 1e-6
    fast, slow = median(seconds["ratoon"]), median(seconds["lm-eval"])
    print(f"median of {given.rounds}: ratoon {fast:.2f} s, lm-eval {slow:.2f} s: {slow / fast:.2f}x")


if __name__ == "__main__":
    main()
