"""A suite scored by lm-eval itself, without a network: the reference our own scorer is held to.

Slower, since it reads a context again for every choice and takes the logarithms of all logits, but it runs whatever
task lm-eval knows, and whoever doubts our numbers can have its own (`assess.runner: lm_eval`).
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratoon.config import read_yaml
from ratoon.evaluation.answers import is_valid
from ratoon.evaluation.suite import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ratoon.evaluation.meter import Meter

# What a batch of logits, their logarithms and one copy may take, in float32.
LOGIT_BYTES = {"cpu": 2**28, "cuda": 2**33}
LOGIT_COPIES = 3
MAX_BATCH = {"cpu": 32, "cuda": 512}  # more gave no more tokens per second on CPU

Sample = dict[str, Any]


def open_meter(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    row_tokens: int,
    *,
    bf16: bool,
    choices: int,
    batch_size: int | None,
    report: Callable[[int, int], None] | None,
) -> "Meter":
    from ratoon.evaluation.meter import Meter

    kind = model.device.type
    words = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[arg-type, index]
    rows = max(1, min(MAX_BATCH[kind], LOGIT_BYTES[kind] // (4 * LOGIT_COPIES * row_tokens * words)))
    return Meter(
        model,
        tokenizer,
        choices=choices,
        report=report,
        backend="causal",
        max_length=row_tokens,
        batch_size=batch_size or rows,
        # Held-out texts begin with one prefix token; a tokenizer that adds its own would double it.
        add_bos_token=False,
        mixed_precision_dtype="bfloat16" if bf16 else None,
        softmax_dtype="float32",
    )


def run(meter: "Meter", suite: Path, tasks: Sequence[Task], cache: Path) -> dict[str, list[Sample]]:
    """Task -> what lm-eval has logged for each item. `cache` is removed again."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    asked = []
    for task in tasks:
        # The YAML names its items by a path relative to itself; here the folder may be anywhere.
        files = {"data_files": {"test": str((suite / f"{task.name}.jsonl").resolve())}, "cache_dir": str(cache)}
        asked.append(read_yaml(suite / f"{task.name}.yaml") | {"dataset_kwargs": files})
    try:
        loaded = TaskManager(include_defaults=False).load(asked)
        # Not simple_evaluate: it reseeds the caller's generators, of which likelihoods need none, and takes
        # seconds to describe the machine.
        results = lm_eval.evaluate(meter, loaded, bootstrap_iters=0, log_samples=True)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return results["samples"]


def row(task: Task, sample: Sample) -> dict[str, Any]:
    """What our own scorer would have kept of this item."""
    hashes = {name: sample[name] for name in ("doc_hash", "prompt_hash", "target_hash")}
    who = {"id": sample["doc"]["id"], "document": sample["doc"]["document"], **hashes}
    if task.kind == "rolling":
        loglik_nats, num_bytes = sample["bits_per_byte"]
        return {**who, "loglik_nats": [float(loglik_nats)], "bytes": int(num_bytes)}
    if task.kind == "choice":
        logliks = [float(loglik) for loglik, _ in sample["filtered_resps"]]
        return {**who, "loglik_nats": logliks, "gold": int(sample["target"]), "correct": int(sample["acc"])}
    (output,) = sample["filtered_resps"]
    # lm-eval does not say how likely an output was, nor how it ended.
    found = {"loglik_nats": [0.0], "output": output, "finished": None, "valid": int(is_valid(output, sample["doc"]))}
    return {**who, **found, "correct": int(sample["exact_match"])}


@contextmanager
def quiet() -> Iterator[None]:
    """lm-eval, datasets and transformers without bars, chatter, a network or worker processes; then as before."""
    variables = {"HF_DATASETS_OFFLINE": "1", "DISABLE_MULTIPROC": "1", "TOKENIZERS_PARALLELISM": "false"}
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    import datasets
    import lm_eval.api.task as lm_eval_task
    from transformers.utils import logging as transformers_logging

    logger, bar, offline = logging.getLogger("lm_eval"), lm_eval_task.tqdm, datasets.config.HF_DATASETS_OFFLINE
    level, bars = logger.level, datasets.are_progress_bars_disabled()
    shown = transformers_logging.is_progress_bar_enabled()
    try:
        logger.setLevel(logging.ERROR)
        lm_eval_task.tqdm = lambda items, **_: items
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
        # Read from the environment once, when datasets is imported: perhaps long ago.
        datasets.config.HF_DATASETS_OFFLINE = True
        yield
    finally:
        logger.setLevel(level)
        lm_eval_task.tqdm = bar
        datasets.config.HF_DATASETS_OFFLINE = offline
        if not bars:
            datasets.enable_progress_bars()
        if shown:
            transformers_logging.enable_progress_bar()
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
