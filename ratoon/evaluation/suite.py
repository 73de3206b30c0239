"""Held-out documents in, a folder of lm-eval tasks out: one per benchmark and source.

The folder needs nothing of ratoon to be scored: `cd suite && lm_eval --include_path . --tasks ...` reads it as well.
"""

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from ratoon.config import AssessConfig, Benchmark, ConfigError, HeldOutText, Items, NextPassage, Role
from ratoon.evaluation import passages
from ratoon.evaluation.folder import whole
from ratoon.evaluation.passages import rank
from ratoon.records import Record, read, write

Document = tuple[str, str]  # id, text
Kind = Literal["rolling", "choice", "generation"]
NOT_ASKED = "kind items keeps training text clear of its items; models are not asked them yet"


class Task(Record):
    """One benchmark on one source: `<name>.yaml` for lm-eval and `<name>.jsonl` with the items."""

    name: str
    benchmark: str
    version: int
    source: str
    role: Role
    metric: Literal["bits_per_byte", "accuracy"]
    kind: Kind
    items: int
    documents: int
    requests: int = Field(description="texts a model scores: one per item, or one per choice")
    sha256: str = Field(description="of the two files, one after the other")

    @model_validator(mode="before")
    @classmethod
    def kind_by_metric(cls, given: Any) -> Any:
        """Suites written before kinds were named had one per metric."""
        if isinstance(given, dict) and "kind" not in given:
            return given | {"kind": "rolling" if given.get("metric") == "bits_per_byte" else "choice"}
        return given


class Suite(Record):
    """What a model is scored on. The digest names the items; it is the same wherever the folder lies."""

    digest: str
    tasks: tuple[Task, ...]
    skipped: dict[str, str] = Field(default_factory=dict, description="benchmark -> why models are not asked it")


def build(
    benchmarks: list[Benchmark], sources: Mapping[str, tuple[Role, Path]], config: AssessConfig, out: Path
) -> Suite:
    """Write the suite of all benchmarks on all sources (name -> role, folder of its clean edition) to `out`.

    The same held-out documents give the same suite; `out` is replaced whole.
    Documents are chosen by the hash of their id, so that a corpus that grows changes few of them.
    Raises ConfigError when a source has no readable or too few held-out documents, or no benchmark can be asked.
    """
    skipped = {item.name: NOT_ASKED for item in benchmarks if isinstance(item.form, Items)}
    asked = [item for item in benchmarks if item.name not in skipped]
    for what, found in (("benchmark", asked), ("source", sources)):
        if not found:
            also = f"; {', '.join(skipped)}: {NOT_ASKED}" if skipped and what == "benchmark" else ""
            raise ConfigError(f"assess: no {what} to score a model on{also}; declare one in data/{what}s")
    with whole(out) as folder:
        tasks = tuple(
            write_task(benchmark, source, role, compose(benchmark, source, clean, config), folder)
            for benchmark in sorted(asked, key=lambda b: (b.metric == "accuracy", b.name))
            for source, (role, clean) in sorted(sources.items())
        )
        content = json.dumps([task.model_dump() for task in tasks], sort_keys=True)
        suite = Suite(digest=hashlib.sha256(content.encode()).hexdigest(), tasks=tasks, skipped=skipped)
        write(folder / "suite.json", suite)
    return suite


def load(folder: Path) -> Suite:
    """The suite in `folder`, its files checked against their digests."""
    suite = read(folder / "suite.json", Suite)
    for task in suite.tasks:
        if not all((folder / f"{task.name}.{kind}").exists() for kind in ("yaml", "jsonl")):
            raise ConfigError(f"{folder}: the files of {task.name} are not there; delete the folder and assess again")
        if digest_of(folder, task.name) != task.sha256:
            raise ConfigError(f"{folder}: {task.name} is not what suite.json says; delete the folder and assess again")
    return suite


def digest_of(folder: Path, name: str) -> str:
    content = (folder / f"{name}.yaml").read_bytes() + (folder / f"{name}.jsonl").read_bytes()
    return hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- items


def compose(benchmark: Benchmark, source: str, clean: Path, config: AssessConfig) -> list[dict[str, Any]]:
    """The items of one benchmark on one source."""
    form = benchmark.form
    if isinstance(form, HeldOutText):
        chosen = choose(clean, config.max_documents, config.seed, lambda document: bool(document[1].strip()))
        enough(len(chosen), benchmark, source, clean)
        return [{"id": key, "document": key, "text": cut(text, config.max_bytes)} for key, text in chosen]
    assert isinstance(form, NextPassage)  # build leaves out what has neither form
    return choices(benchmark, form, source, clean, config)


def choices(
    benchmark: Benchmark, form: NextPassage, source: str, clean: Path, config: AssessConfig
) -> list[dict[str, Any]]:
    def usable(document: Document) -> bool:
        return next(passages.passages(*document, form, config.seed), None) is not None

    chosen = choose(clean, config.items, config.seed, usable)
    made = passages.items(passages.pool(chosen, form, config.items, config.seed), config.choices, config.seed)
    enough(len({item["document"] for item in made}), benchmark, source, clean)
    return [dict(item) for item in made]


def enough(documents: int, benchmark: Benchmark, source: str, clean: Path) -> None:
    if documents < benchmark.min_documents:
        raise ConfigError(
            f"{source}: {documents} held-out documents in {clean} can be used for benchmark {benchmark.name!r}; "
            f"it needs {benchmark.min_documents}\n  add text to the source, raise prepare.held_out.share, "
            f"or leave the benchmark out"
        )


def choose(clean: Path, count: int, seed: int, usable: Callable[[Document], bool]) -> list[Document]:
    """Of the usable held-out documents in `clean`, the `count` whose hash is smallest, in that order."""
    return heapq.nsmallest(count, filter(usable, held_out(clean)), key=lambda document: rank(seed, document[0]))


def held_out(clean: Path) -> Iterator[Document]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    shards = sorted(clean.glob("held_out-*.parquet"))
    if not shards:
        raise ConfigError(f"{clean}: no held_out-*.parquet here; `ratoon prepare` writes them")
    for shard in shards:
        try:
            with parquet.ParquetFile(shard) as file:
                for batch in file.iter_batches(batch_size=256, columns=["id", "text"]):
                    yield from zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True)
        except (ArrowException, OSError, KeyError) as error:
            raise ConfigError(
                f"{shard}: not readable as a shard with columns id and text: {error}; `ratoon prepare` makes it again"
            ) from error


def cut(text: str, max_bytes: int) -> str:
    """The beginning of `text`, at most `max_bytes` of UTF-8, to a whole line where half of it remains then."""
    raw = text[: max_bytes + 1].encode()
    if len(raw) <= max_bytes:
        return text
    head = raw[:max_bytes].decode(errors="ignore")
    line = head.rfind("\n") + 1
    return head[:line] if 2 * line >= len(head) else head


# ---------------------------------------------------------------- lm-eval's files


def write_task(benchmark: Benchmark, source: str, role: Role, found: list[dict[str, Any]], folder: Path) -> Task:
    name = f"{benchmark.name}--{source}"
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in found)
    (folder / f"{name}.jsonl").write_bytes(lines.encode())
    declaration = yaml.safe_dump(task_file(name, benchmark), sort_keys=False)
    (folder / f"{name}.yaml").write_bytes(declaration.encode())
    return Task(
        name=name,
        benchmark=benchmark.name,
        version=benchmark.version,
        source=source,
        role=role,
        metric=benchmark.metric,
        kind="rolling" if benchmark.metric == "bits_per_byte" else "choice",
        items=len(found),
        documents=len({item["document"] for item in found}),
        requests=sum(len(item.get("choices", "1")) for item in found),
        sha256=digest_of(folder, name),
    )


def task_file(name: str, benchmark: Benchmark) -> dict[str, Any]:
    """A task of lm-eval. Fields are named by column: a template would read "[1]" in a text as a Python list."""
    rolling = isinstance(benchmark.form, HeldOutText)
    fields: dict[str, Any] = (
        {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"}
        if rolling
        else {
            "output_type": "multiple_choice",
            "doc_to_text": "context",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": "",  # a continuation begins with its own white space
        }
    )
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        **fields,
        "num_fewshot": 0,
        # acc, fixed in advance: the choices are equally long, and dividing by length would only add noise.
        "metric_list": [{"metric": "bits_per_byte" if rolling else "acc"}],
        "metadata": {"version": benchmark.version},
    }
