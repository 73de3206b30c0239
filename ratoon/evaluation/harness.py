"""A model scored on a suite by lm-eval, without a network; every item's score is kept."""

import hashlib
import importlib.metadata
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ratoon.config import ConfigError, read_yaml
from ratoon.evaluation.folder import whole
from ratoon.evaluation.suite import Suite, Task, load
from ratoon.lm.load import check_weights, load_model, load_tokenizer, pick_device
from ratoon.records import Record, read, write

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ratoon.evaluation.meter import Meter

# What a batch of logits, their logarithms and one copy may take, in float32.
LOGIT_BYTES = {"cpu": 2**28, "cuda": 2**33}
LOGIT_COPIES = 3
MAX_BATCH = {"cpu": 32, "cuda": 512}  # more gave no more tokens per second on CPU

Sample = dict[str, Any]


class Settings(Record):
    """All that changes a score beside the model and the items. Two models are compared under the same."""

    row_tokens: int = Field(description="tokens the model reads at once; the loss depends on it")
    precision: Literal["fp32", "bf16"]
    device: str = Field(description="cpu or cuda")
    lm_eval: str = Field(description="version")


class TaskScore(Record):
    task: str
    value: float = Field(description="bits per byte, or accuracy between 0 and 1")
    items: int
    sha256: str = Field(description="of <task>.parquet, the per-item scores")


class Scores(Record):
    """One model on one suite: `scores.json`, and beside it `<task>.parquet` with the per-item scores."""

    model: str
    weights: str = Field(description="digest of weights, configuration and tokenizer")
    suite: str = Field(description="digest")
    settings: Settings
    truncated: int = Field(description="multiple-choice requests whose context was longer than row_tokens")
    tasks: tuple[TaskScore, ...]


def score(
    model: Path,
    suite: Path,
    out: Path,
    *,
    row_tokens: int,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    batch_size: int | None = None,
    threads: int | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score the model directory on the suite folder into `out`, or return what is there already.

    batch_size   rows of tokens at once; none: what fits a modest memory at this vocabulary
    threads      CPU threads; none: as they are
    report       called with (rows read, rows in all) after every batch

    More than six parameters: each but the three paths is a setting a caller leaves alone or takes from its config.
    Raises ConfigError for a model or suite that is missing, damaged or does not fit, and for a diverged model.
    """
    tests = load(suite)
    check_weights(model)
    settings = Settings(
        row_tokens=row_tokens,
        precision=precision,
        device=pick_device(device).type,
        lm_eval=importlib.metadata.version("lm-eval"),
    )
    weights = digest(model)
    known = recall(out)
    if known and (known.weights, known.suite, known.settings) == (weights, tests.digest, settings):
        return known
    with whole(out) as folder:
        with quiet(), at_most(threads):
            meter = open_meter(model, tests, settings, batch_size, report)
            samples = run(meter, suite, tests, folder / "datasets")
        tasks = tuple(keep(task, samples[task.name], folder, model) for task in tests.tasks)
        scores = Scores(
            model=model.name,
            weights=weights,
            suite=tests.digest,
            settings=settings,
            truncated=meter.truncated,
            tasks=tasks,
        )
        write(folder / "scores.json", scores)
    return scores


def digest(model: Path) -> str:
    """Of all that decides what a model answers: weights, configuration and tokenizer, by name and content."""
    total = hashlib.sha256()
    for file in sorted([*model.glob("*.safetensors"), *model.glob("*.json"), *model.glob("*.model")]):
        with file.open("rb") as handle:
            total.update(f"{file.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def recall(out: Path) -> Scores | None:
    """The scores in `out` if they are whole; damaged ones are made again."""
    try:
        scores = read(out / "scores.json", Scores)
        files = {score.task: hashlib.sha256((out / f"{score.task}.parquet").read_bytes()) for score in scores.tasks}
    except (ConfigError, OSError):
        return None
    return scores if all(files[score.task].hexdigest() == score.sha256 for score in scores.tasks) else None


# ---------------------------------------------------------------- lm-eval


def open_meter(
    path: Path,
    tests: Suite,
    settings: Settings,
    batch_size: int | None,
    report: Callable[[int, int], None] | None,
) -> "Meter":
    tokenizer = load_tokenizer(path)
    model = load_model(path, settings.device)
    vocabulary = fits(model, tokenizer, settings.row_tokens, path)
    from ratoon.evaluation.meter import Meter

    row_bytes = 4 * LOGIT_COPIES * settings.row_tokens * vocabulary
    rows = max(1, min(MAX_BATCH[settings.device], LOGIT_BYTES[settings.device] // row_bytes))
    return Meter(
        model,
        tokenizer,
        choices=sum(task.requests for task in tests.tasks if task.metric == "accuracy"),
        report=report,
        backend="causal",
        max_length=settings.row_tokens,
        batch_size=batch_size or rows,
        # Held-out texts begin with one prefix token; a tokenizer that adds its own would double it.
        add_bos_token=False,
        mixed_precision_dtype="bfloat16" if settings.precision == "bf16" else None,
        softmax_dtype="float32",
    )


def fits(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", row_tokens: int, path: Path) -> int:
    """Entries of the model's vocabulary; refuses a tokenizer or a row length that the model cannot read."""
    entries: int = model.get_input_embeddings().weight.shape[0]  # type: ignore[index, assignment]
    if len(tokenizer) > entries:
        raise ConfigError(
            f"{path}: its tokenizer has {len(tokenizer):,} entries and its embedding {entries:,}; "
            f"put the tokenizer there that the model was trained with"
        )
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ConfigError(
            f"{path}: its tokenizer names neither bos_token nor eos_token; one is needed to begin a text with: "
            f"name it in tokenizer_config.json"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and row_tokens > context:
        raise ConfigError(f"{path}: reads at most {context} tokens; row_tokens is {row_tokens}")
    return entries


def run(meter: "Meter", suite: Path, tests: Suite, cache: Path) -> dict[str, list[Sample]]:
    """Task -> what lm-eval has logged for each item. `cache` is removed again."""
    import shutil

    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = []
    for task in tests.tasks:
        # The YAML names its items by a path relative to itself; here the folder may be anywhere.
        files = {"data_files": {"test": str((suite / f"{task.name}.jsonl").resolve())}, "cache_dir": str(cache)}
        tasks.append(read_yaml(suite / f"{task.name}.yaml") | {"dataset_kwargs": files})
    try:
        loaded = TaskManager(include_defaults=False).load(tasks)
        # Not simple_evaluate: it reseeds the caller's generators, of which likelihoods need none, and takes
        # seconds to describe the machine.
        results = lm_eval.evaluate(meter, loaded, bootstrap_iters=0, log_samples=True)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return results["samples"]


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


@contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    import torch

    former = torch.get_num_threads()
    torch.set_num_threads(threads or former)
    try:
        yield
    finally:
        torch.set_num_threads(former)


# ---------------------------------------------------------------- per-item scores


def keep(task: Task, samples: list[Sample], folder: Path, model: Path) -> TaskScore:
    """Write the per-item scores of one task as Parquet."""
    import pyarrow
    import pyarrow.parquet as parquet

    rows = [held_out_row(s) if task.metric == "bits_per_byte" else choice_row(s) for s in samples]
    broken = sum(not all(map(math.isfinite, row["loglik_nats"])) for row in rows)
    if broken:
        raise ConfigError(
            f"{model}: {broken} of {len(rows)} log-likelihoods on {task.name} are not finite; training has diverged: "
            f"lower train.learning_rate, or take an earlier checkpoint"
        )
    file = folder / f"{task.name}.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, compression="zstd")
    if task.metric == "bits_per_byte":
        nats = math.fsum(row["loglik_nats"][0] for row in rows)
        value = -nats / math.log(2) / sum(row["bytes"] for row in rows)
    else:
        value = sum(row["correct"] for row in rows) / len(rows)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return TaskScore(task=task.name, value=value, items=len(rows), sha256=sha256)


def held_out_row(sample: Sample) -> dict[str, Any]:
    loglik_nats, num_bytes = sample["bits_per_byte"]
    return {**identity(sample), "loglik_nats": [float(loglik_nats)], "bytes": int(num_bytes)}


def choice_row(sample: Sample) -> dict[str, Any]:
    logliks = [float(loglik) for loglik, _ in sample["filtered_resps"]]
    gold = int(sample["target"])
    return {**identity(sample), "loglik_nats": logliks, "gold": gold, "correct": int(sample["acc"])}


def identity(sample: Sample) -> dict[str, Any]:
    hashes = {name: sample[name] for name in ("doc_hash", "prompt_hash", "target_hash")}
    return {"id": sample["doc"]["id"], "document": sample["doc"]["document"], **hashes}
