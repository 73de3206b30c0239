"""A model scored on a suite, without a network; every item's score is kept.

Our own scorer reads each context once and takes a loss only where one is asked for; lm-eval is the reference it is held
to (`runner: lm_eval`), and scores tasks of kinds that are lm-eval's own.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ratoon.config import ConfigError
from ratoon.evaluation import samples
from ratoon.evaluation.folder import whole
from ratoon.evaluation.samples import TaskScore
from ratoon.evaluation.score_cache import ScoreCache
from ratoon.evaluation.suite import Suite, Task, load
from ratoon.lm.load import check_weights, load_model, load_tokenizer, pick_device
from ratoon.records import Record, read, write

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERSION = 1  # of our scorer: raised when the same model and items would give another number
OWN_KINDS = ("rolling", "choice", "generation")
Runner = Literal["ratoon", "lm_eval"]
Precision = Literal["fp32", "bf16"]
Report = Callable[[int, int], None]  # rows of tokens read, rows in all


class Settings(Record):
    """All that changes a score beside the model and the items. Two models are compared under the same."""

    row_tokens: int = Field(description="tokens the model reads at once; the loss depends on it")
    precision: Precision
    device: str = Field(description="cpu or cuda")
    lm_eval: str | None = Field(None, description="version, where lm-eval scored")
    scorer: int | None = Field(None, description="version of our own, where it scored")


class Scores(Record):
    """One model on one suite: `scores.json`, and beside it `<task>.parquet` with the per-item scores."""

    model: str
    weights: str = Field(description="digest of weights, configuration and tokenizer")
    suite: str = Field(description="digest")
    settings: Settings
    truncated: int = Field(description="choices and prompts whose context was longer than row_tokens")
    tasks: tuple[TaskScore, ...]


def score(
    model: Path,
    suite: Path,
    out: Path,
    *,
    row_tokens: int,
    device: str = "auto",
    precision: Precision = "fp32",
    batch_size: int | None = None,
    threads: int | None = None,
    report: Report | None = None,
    runner: Runner = "ratoon",
    cache: Path | None = None,
) -> Scores:
    """Score the model directory on the suite folder into `out`, or return what is there already.

    batch_size   rows of tokens at once; none: what fits a modest memory
    threads      CPU threads; none: as they are
    report       called with (rows read, rows in all) after every batch
    runner       who scores: our scorer, or lm-eval for every task
    cache        folder of scores by model, items and settings, of all refreshes; none: nothing is remembered

    More than six parameters: each but the three paths is a setting a caller leaves alone or takes from its config.
    Raises ConfigError for a model or suite that is missing, damaged or does not fit, and for a diverged model.
    """
    tests = load(suite)
    check_weights(model)
    settings = settings_of(tests, row_tokens, precision, pick_device(device).type, runner)
    weights = digest(model)
    known = recall(out)
    if known and (known.weights, known.suite, known.settings) == (weights, tests.digest, settings):
        return known
    kept = ScoreCache(cache) if cache else None
    keys = {task.name: key_of(weights, task, settings) for task in tests.tasks}
    with whole(out) as folder, at_most(threads):
        left = [t for t in tests.tasks if not (kept and kept.take(keys[t.name], folder / f"{t.name}.parquet"))]
        if left:
            fill(model, suite, left, folder, settings, runner, batch_size, report)
        for task in left:
            if kept:
                kept.put(keys[task.name], folder / f"{task.name}.parquet")
        tasks = tuple(samples.summary(task, folder / f"{task.name}.parquet") for task in tests.tasks)
        scores = Scores(
            model=model.name,
            weights=weights,
            suite=tests.digest,
            settings=settings,
            truncated=sum(task.truncated for task in tasks),
            tasks=tasks,
        )
        write(folder / "scores.json", scores)
    return scores


def settings_of(tests: Suite, row_tokens: int, precision: Precision, device: str, runner: Runner) -> Settings:
    own = [is_own(task, runner) for task in tests.tasks]
    return Settings(
        row_tokens=row_tokens,
        precision=precision,
        device=device,
        lm_eval=None if all(own) else importlib.metadata.version("lm-eval"),
        scorer=VERSION if any(own) else None,
    )


def is_own(task: Task, runner: Runner) -> bool:
    return runner == "ratoon" and task.kind in OWN_KINDS


def key_of(weights: str, task: Task, settings: Settings) -> str:
    """Of one task: another source's new text leaves it alone."""
    asked = f"{weights} {task.name} {task.sha256} {settings.model_dump_json()}"
    return hashlib.sha256(asked.encode()).hexdigest()


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


def fill(
    path: Path,
    suite: Path,
    tasks: list[Task],
    folder: Path,
    settings: Settings,
    runner: Runner,
    batch_size: int | None,
    report: Report | None,
) -> None:
    """The Parquet file of every task. Eight parameters: what was asked, resolved."""
    tokenizer = load_tokenizer(path)
    model = load_model(path, settings.device)
    fits(model, tokenizer, settings.row_tokens, path)
    bf16 = settings.precision == "bf16"
    own = [task for task in tasks if is_own(task, runner)]
    theirs = [task for task in tasks if not is_own(task, runner)]
    if own:
        from ratoon.evaluation.scorer import Scorer

        batch_tokens = batch_size and batch_size * settings.row_tokens
        scorer = Scorer(model, tokenizer, settings.row_tokens, bf16=bf16, batch_tokens=batch_tokens, report=report)
        for task, found, truncated in scorer.score(own, suite):
            samples.keep(task, found, truncated, folder / f"{task.name}.parquet", path)
    if theirs:
        from ratoon.evaluation import lm_eval_runner

        choices = sum(task.requests for task in theirs if task.metric == "accuracy")
        with lm_eval_runner.quiet():
            meter = lm_eval_runner.open_meter(
                model, tokenizer, settings.row_tokens, bf16=bf16, choices=choices, batch_size=batch_size, report=report
            )
            for task in theirs:  # one by one: what was truncated is told by task
                logged = lm_eval_runner.run(meter, suite, [task], folder / "datasets")
                found = [lm_eval_runner.row(task, sample) for sample in logged[task.name]]
                samples.keep(task, found, meter.truncated, folder / f"{task.name}.parquet", path)
                meter.truncated = 0


def fits(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", row_tokens: int, path: Path) -> None:
    """Refuses a tokenizer or a row length that the model cannot read."""
    entries: int = model.get_input_embeddings().weight.shape[0]  # type: ignore[index, assignment]
    if len(tokenizer) > entries:
        raise ConfigError(
            f"{path}: its tokenizer has {len(tokenizer):,} entries and its embedding {entries:,}; "
            f"put the tokenizer there that the model was trained with"
        )
    begins(tokenizer, path)
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and row_tokens > context:
        raise ConfigError(f"{path}: reads at most {context} tokens; row_tokens is {row_tokens}")


def begins(tokenizer: "PreTrainedTokenizerBase", path: Path) -> None:
    """Refuses a tokenizer that has no token to begin a text with."""
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ConfigError(
            f"{path}: its tokenizer names neither bos_token nor eos_token; one is needed to begin a text with: "
            f"name it in tokenizer_config.json"
        )


@contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    import torch

    former = torch.get_num_threads()
    torch.set_num_threads(threads or former)
    try:
        yield
    finally:
        torch.set_num_threads(former)
