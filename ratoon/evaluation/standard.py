"""A task of lm-eval by its name, written down as items: prompts, examples and all.

Once written, a suite needs neither lm-eval's 14,000 task files nor the dataset, and training text can be kept clear of
the items. The dataset comes from a cache of the datasets library (form.cache, a folder for DVC), or from the hub where
HF_HUB_OFFLINE is not set; then it is in that cache for the next time. A declaration may pin both ends: the commit of
the dataset, and the items that came of it.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from ratoon.config import Benchmark, ConfigError, LmEval
from ratoon.records import Record, read, write, write_text

SEED = 1234  # lm-eval's own default for the draw of examples
UNTIL = ["\n\n"]


class Fetched(Record):
    """Where a benchmark's items come from: `fetched.json` beside them."""

    task: str
    dataset: str
    origin: str = Field(description="cache, or hub")
    lm_eval: str = Field(description="version")
    shots: int
    items: int
    revision: str | None = Field(None, description="commit of the dataset; None: not told")
    sha256: str | None = Field(None, description="of items.jsonl; None: written by a release that did not keep it")


class Loaded(NamedTuple):
    task: Any  # lm-eval's, its dataset read
    origin: Literal["cache", "hub"]
    revision: str | None


def fetch(benchmark: Benchmark, root: Path) -> Fetched:
    """Write the items of a benchmark of kind lm_eval to its folder.

    Raises ConfigError for a task nobody knows, one whose answers are no choice, text or plain generation, a dataset
    that is in no cache and cannot be reached, and one that is not what is pinned; then what was there is untouched.
    """
    form = benchmark.form
    if not isinstance(form, LmEval):
        raise ConfigError(f"benchmark {benchmark.name!r}: of kind {form.kind}; only items of kind lm_eval are fetched")
    task, origin, revision = load(form, root, benchmark.name)
    check_revision(benchmark.name, form, origin, revision)
    shots = form.shots if form.shots is not None else task.config.num_fewshot or 0
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in items(task, shots, benchmark.name)]
    text = "".join(lines)
    found = Fetched(
        task=form.task,
        dataset=" ".join(filter(None, (task.DATASET_PATH, task.DATASET_NAME))),
        origin=origin,
        lm_eval=importlib.metadata.version("lm-eval"),
        shots=shots,
        items=len(lines),
        revision=revision,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    check_content(benchmark.name, form, found)
    path = root / str(benchmark.items)
    write_text(path, text)
    write(path.parent / "fetched.json", found)
    return found


def check_revision(name: str, form: LmEval, origin: str, revision: str | None) -> None:
    """The cache answers with what it has, also where the hub was asked for a commit and did not answer."""
    if form.revision in (None, revision):
        return
    where = f"{form.cache} has" if origin == "cache" else "the hub gave"
    raise ConfigError(
        f"benchmark {name!r}: its dataset is pinned to revision {form.revision}, and {where} {revision}; nothing "
        f"was written\n"
        f"  fetch it where the hub can be reached (`HF_HUB_OFFLINE=0 ratoon bench fetch {name}`), or pin what is there"
    )


def check_content(name: str, form: LmEval, found: Fetched) -> None:
    if form.sha256 in (None, found.sha256):
        return
    raise ConfigError(
        f"benchmark {name!r}: its items are pinned to sha256 {form.sha256}, and those of {found.dataset} at revision "
        f"{found.revision}, with {found.shots} examples, by lm-eval {found.lm_eval}, have {found.sha256}; nothing was "
        f"written\n  find out what changed: the dataset, the number of examples, or lm-eval. If it is meant, pin the "
        f"new one and raise `version`"
    )


def check_fetched(name: str, form: LmEval, folder: Path) -> None:
    """Refuse items that were written for another declaration, or are not what was written."""
    again = f"`ratoon bench fetch {name}` writes them, from the cache of datasets or the hub"
    if not (folder / "fetched.json").exists() or not (folder / "items.jsonl").exists():
        raise ConfigError(f"benchmark {name!r}: its items are not there; {again}")
    found = read(folder / "fetched.json", Fetched)
    if found.task != form.task or form.shots not in (None, found.shots):
        shots = "" if form.shots is None else f" with {form.shots} examples"
        raise ConfigError(
            f"benchmark {name!r}: asks for {form.task}{shots}, and its items are of {found.task} with {found.shots}; "
            f"{again}"
        )
    if form.revision not in (None, found.revision):
        was = found.revision or "a revision that was not kept"
        raise ConfigError(f"benchmark {name!r}: asks for revision {form.revision}, and its items are of {was}; {again}")
    content = hashlib.sha256((folder / "items.jsonl").read_bytes()).hexdigest()
    if (form.sha256 or found.sha256) not in (None, content):
        pinned = "its declaration pins" if form.sha256 else "fetched.json tells"
        raise ConfigError(
            f"benchmark {name!r}: {folder / 'items.jsonl'} has sha256 {content}, and {pinned} "
            f"{form.sha256 or found.sha256}: other items than were fetched; {again}"
        )


def offline() -> bool:
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE)


OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


# ---------------------------------------------------------------- lm-eval's task


def task_file(name: str) -> Path:
    """The YAML that declares the task: found by its text, for an index of all of them takes many seconds."""
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__file__).parent
    wanted = re.compile(rf"""^["']?(task|group|tag)["']?\s*:\s*["']?{re.escape(name)}["']?\s*$""".encode(), re.M)
    likely = sorted(folder.rglob(f"{name}.yaml"))
    for path in [*likely, *sorted(folder.rglob("*.yaml"))]:
        if found := wanted.search(path.read_bytes()):
            if found[1] != b"task":
                raise ConfigError(
                    f"lm-eval's {name!r} is a {found[1].decode()} of tasks; declare a benchmark for each task you want "
                    f"of {path.parent.relative_to(folder.parent)}"
                )
            return path
    raise ConfigError(f"lm-eval {importlib.metadata.version('lm-eval')} has no task {name!r}; `lm-eval ls tasks`")


def load(form: LmEval, root: Path, benchmark: str) -> Loaded:
    from lm_eval.tasks import TaskManager

    path = task_file(form.task)
    cache = root / form.cache
    with dataset_cache(cache), opened_at(form.revision) as opened:
        manager = TaskManager(include_path=str(path.parent), include_defaults=False)
        try:
            task: Any = manager.load([form.task])["tasks"][form.task]
        except Exception as error:  # of the hub, of the cache, of a dataset's files: they share no base
            raise ConfigError(missing(form, cache, benchmark, error)) from error
    if form.shots is not None:
        task.set_config("num_fewshot", form.shots)
    task.set_fewshot_seed(seed=SEED)
    return Loaded(task, *opened[-1]) if opened else Loaded(task, "cache" if offline() else "hub", None)


def missing(form: LmEval, cache: Path, benchmark: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    why = "HF_HUB_OFFLINE is set, so only the cache was looked at" if offline() else "the hub was asked, then the cache"
    return (
        f"benchmark {benchmark!r}: the dataset of {form.task} was not found ({type(error).__name__}: {reason})\n"
        f"  {why}: {cache}\n"
        f"  fill it once where the hub can be reached: `HF_HUB_OFFLINE=0 ratoon bench fetch {benchmark}`, then carry "
        f"the folder here (`dvc add {form.cache}`, `dvc push`, `dvc pull`)"
    )


@contextmanager
def opened_at(commit: str | None) -> Iterator[list[tuple[Literal["cache", "hub"], str]]]:
    """Datasets are opened at this commit of their repository; yields from where each came, and its commit.

    The datasets library takes the newest copy of its cache, of whatever commit, where the hub does not answer, and
    says so in its log alone.
    """
    from datasets import load as loading
    from datasets.packaged_modules.cache.cache import Cache

    former, opened = loading.load_dataset_builder, list[tuple[Literal["cache", "hub"], str]]()

    def open_builder(*args: Any, **kwargs: Any) -> Any:
        builder = former(*args, **(kwargs | {"revision": commit} if commit else kwargs))
        opened.append(("cache" if isinstance(builder, Cache) else "hub", str(builder.hash)))
        return builder

    loading.load_dataset_builder = open_builder  # lm-eval has no way to hand a revision on to load_dataset
    try:
        yield opened
    finally:
        loading.load_dataset_builder = former


@contextmanager
def dataset_cache(folder: Path) -> Iterator[None]:
    """The datasets library with another cache and without bars, and lm-eval without chatter; then as before."""
    import datasets
    from datasets.utils.logging import get_verbosity, set_verbosity_error

    former, bars, verbosity = datasets.config.HF_DATASETS_CACHE, datasets.are_progress_bars_disabled(), get_verbosity()
    logger = logging.getLogger("lm_eval")
    level = logger.level
    datasets.config.HF_DATASETS_CACHE = folder
    datasets.disable_progress_bars()
    set_verbosity_error()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = former
        if not bars:
            datasets.enable_progress_bars()
        datasets.utils.logging.set_verbosity(verbosity)
        logger.setLevel(level)


# ---------------------------------------------------------------- its items


def items(task: Any, shots: int, benchmark: str) -> Iterator[dict[str, Any]]:
    write_one = {"multiple_choice": choice, "loglikelihood_rolling": rolling, "generate_until": generation}
    kind = task.OUTPUT_TYPE
    if kind not in write_one or task.multiple_input or (kind == "generate_until" and task.config.filter_list):
        what = (
            "its choices are contexts" if task.multiple_input
            else "its answers are cut out by filters of its own" if kind in write_one
            else f"its output_type is {kind}"
        )  # fmt: skip
        raise ConfigError(
            f"benchmark {benchmark!r}: {task.config.task} cannot be written down as items: {what}\n"
            f"  run it with lm-eval itself, or choose a task of multiple choice, of rolling likelihood or of plain "
            f"generation"
        )
    for number, doc in task.doc_iterator(rank=0, limit=None, world_size=1):
        prefix = task.doc_to_prefix(doc)
        context, bare = (task.fewshot_context(doc, count, gen_prefix=prefix) for count in (shots, 0))
        yield {"id": str(number), "document": str(number), **write_one[kind](task, doc, context, bare)}


def choice(task: Any, doc: Any, context: str, bare: str) -> dict[str, Any]:
    options, gold = task.doc_to_choice(doc), task.doc_to_target(doc)
    right = options.index(gold) if isinstance(gold, str) else gold
    if not isinstance(right, int) or not 0 <= right < len(options):
        raise ConfigError(f"lm-eval's {task.config.task}: an item's answer is {gold!r}, not one of its {len(options)}")
    delimiter = task.config.target_delimiter
    return {"question": bare, "context": context, "choices": [f"{delimiter}{one}" for one in options], "gold": right}


def rolling(task: Any, doc: Any, context: str, bare: str) -> dict[str, Any]:
    return {"text": task.doc_to_target(doc)}


def generation(task: Any, doc: Any, context: str, bare: str) -> dict[str, Any]:
    asked, answers = task.config.generation_kwargs or {}, task.doc_to_target(doc)
    until = asked.get("until") or UNTIL
    return {
        "question": bare,
        "prompt": context,
        "answers": [str(one) for one in answers] if isinstance(answers, list | tuple) else [str(answers)],
        "until": [until] if isinstance(until, str) else list(until),
        "max_tokens": int(asked.get("max_gen_toks", 256)),
    }
