"""Held-out documents and files of items in, a folder of lm-eval tasks out.

A benchmark made from held-out documents is a task per source; one that has items of its own is one task, and its own
source. Where a benchmark has several prompts, `development/` holds its development items and `prompts/` the items
that are asked, each a suite with a task per prompt; ratoon.evaluation.prompts chooses between them.

The folder needs nothing of ratoon to be scored: `cd suite && lm_eval --include_path . --tasks ...` reads it as well.
"""

import hashlib
import heapq
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ratoon.config import Asked, AssessConfig, Benchmark, ConfigError, HeldOutText, Items, NextPassage, Role
from ratoon.evaluation import passages
from ratoon.evaluation.asking import ask
from ratoon.evaluation.folder import whole
from ratoon.evaluation.held_out import Document, held_out_documents
from ratoon.evaluation.passages import rank
from ratoon.evaluation.taskfile import digest_of, requests, write_files
from ratoon.records import Record, read, write

Lines = list[dict[str, Any]]
NOT_ASKED = "kind items keeps training text clear of its items; form.ask (choice, rolling, generation) has models asked"
DEVELOPMENT, PROMPTS = "development", "prompts"


class Task(Record):
    """One benchmark on one source: `<name>.yaml` for lm-eval and `<name>.jsonl` with the items."""

    name: str
    benchmark: str
    version: int
    source: str = Field(description="whose documents; of a benchmark with items of its own its name")
    role: Role
    kind: Asked = Field(description="how it is asked; in suites of old it follows from the metric")
    metric: Literal["bits_per_byte", "accuracy"]
    items: int
    documents: int
    requests: int = Field(description="texts a model scores or writes: one per item, or one per choice")
    prompts: tuple[str, ...] = Field((), description="of which each model is asked in its own; none: there is but one")
    sha256: str = Field(description="of the two files, one after the other")

    @model_validator(mode="before")
    @classmethod
    def of_old(cls, found: Any) -> Any:
        return {"kind": KINDS[found["metric"]], **found} if found.get("metric") in KINDS else found

    def content(self) -> dict[str, Any]:
        """What the suite's digest is taken of: without what a suite of old says by silence."""
        plain = {"kind"} if self.kind == KINDS[self.metric] else set()
        return self.model_dump(exclude=plain | ({"prompts"} if not self.prompts else set()))


KINDS: dict[str, Asked] = {"bits_per_byte": "rolling", "accuracy": "choice"}


class Suite(Record):
    """What a model is scored on. The digest names the items; it is the same wherever the folder lies."""

    digest: str
    tasks: tuple[Task, ...]
    skipped: dict[str, str] = Field(default_factory=dict, description="benchmark -> why models are not asked it")
    picked: dict[str, str] = Field(default_factory=dict, description="task -> the prompt of this one model's choice")


def build(
    benchmarks: list[Benchmark],
    sources: Mapping[str, tuple[Role, Path]],
    config: AssessConfig,
    out: Path,
    root: Path = Path(),
) -> Suite:
    """Write the suite of all benchmarks on all sources (name -> role, folder of its clean edition) to `out`.

    root    the project's folder, where benchmarks with items of their own have them

    The same held-out documents give the same suite; `out` is replaced whole.
    Documents are chosen by the hash of their id, so that a corpus that grows changes few of them.
    Raises ConfigError when a source has no readable or too few held-out documents, or no benchmark can be asked.
    """
    skipped = {item.name: NOT_ASKED for item in benchmarks if isinstance(item.form, Items) and not item.form.ask}
    asked = sorted((item for item in benchmarks if item.name not in skipped), key=lambda b: b.name)
    local, made = [item for item in asked if item.items], [item for item in asked if not item.items]
    for what, found in (("benchmark", asked), ("source", sources or local)):
        if not found:
            also = f"; {', '.join(skipped)}: {NOT_ASKED}" if skipped and what == "benchmark" else ""
            raise ConfigError(f"assess: no {what} to score a model on{also}; declare one in data/{what}s")
    named_apart([(b.name, source) for b in made for source in sorted(sources)] + [(b.name, b.name) for b in local])
    with whole(out) as folder:
        tasks = [
            write_task(benchmark, source, role, compose(benchmark, source, clean, config), folder)
            for benchmark in made
            for source, (role, clean) in sorted(sources.items())
        ]
        parts: dict[str, list[Task]] = {DEVELOPMENT: [], PROMPTS: []}
        tasks += [write_local(benchmark, root, folder, parts) for benchmark in local]
        digests = [finish(folder / part, found, {}, []).digest for part, found in parts.items() if found]
        suite = finish(folder, sorted(tasks, key=lambda task: task.metric == "accuracy"), skipped, digests)
    return suite


def named_apart(asked: list[tuple[str, str]]) -> None:
    """Refuses two tasks of one name: the files of one would take the place of the other's."""
    found = dict[str, tuple[str, str]]()
    for each in asked:
        benchmark, source = found.setdefault(name_of(*each), each)
        if each != (benchmark, source):
            raise ConfigError(
                f"assess: benchmark {benchmark!r} on {source!r} and benchmark {each[0]!r} on {each[1]!r} are both the "
                f"task {name_of(*each)!r}; rename a benchmark in data/benchmarks"
            )


def name_of(benchmark: str, source: str) -> str:
    """Of a task; a benchmark with items of its own is its own source."""
    return benchmark if source == benchmark else f"{benchmark}--{source}"


def finish(folder: Path, tasks: list[Task], skipped: dict[str, str], parts: list[str]) -> Suite:
    """Write what is in the folder beside its files; the digest is of the tasks and of the suites inside."""
    content = json.dumps([*(task.content() for task in tasks), *parts], sort_keys=True)
    suite = Suite(digest=hashlib.sha256(content.encode()).hexdigest(), tasks=tuple(tasks), skipped=skipped)
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


# ---------------------------------------------------------------- tasks


def write_local(benchmark: Benchmark, root: Path, folder: Path, parts: dict[str, list[Task]]) -> Task:
    """The task of a benchmark with items of its own, in its first prompt; with several, all of them in `parts`."""
    asking = ask(benchmark, root)
    role = benchmark.form.role  # type: ignore[union-attr]
    first, *others = asking.test
    enough(len({line["document"] for line in asking.test[first]}), benchmark, benchmark.name, root / benchmark.items)  # type: ignore[operator]
    if others:
        for part, found in ((DEVELOPMENT, asking.development), (PROMPTS, asking.test)):
            (folder / part).mkdir(exist_ok=True)
            for prompt, lines in found.items():
                task = write_task(benchmark, benchmark.name, role, lines, folder / part, asking.kind, prompt)
                parts[part].append(task)
    task = write_task(benchmark, benchmark.name, role, asking.test[first], folder, asking.kind)
    return task.model_copy(update={"prompts": tuple(asking.test)}) if others else task


def write_task(
    benchmark: Benchmark,
    source: str,
    role: Role,
    lines: Lines,
    folder: Path,
    kind: Asked | None = None,
    prompt: str | None = None,
) -> Task:
    asked = kind or benchmark.asks
    assert asked
    name = name_of(benchmark.name, source) + (f"@{prompt}" if prompt else "")
    write_files(folder, name, asked, lines, benchmark)
    return Task(
        name=name,
        benchmark=benchmark.name,
        version=benchmark.version,
        source=source,
        role=role,
        kind=asked,
        metric="bits_per_byte" if asked == "rolling" else "accuracy",
        items=len(lines),
        documents=len({line["document"] for line in lines}),
        requests=requests(lines),
        sha256=digest_of(folder, name),
    )


# ---------------------------------------------------------------- items


def compose(benchmark: Benchmark, source: str, clean: Path, config: AssessConfig) -> list[dict[str, Any]]:
    """The items of one benchmark on one source."""
    form = benchmark.form
    if isinstance(form, HeldOutText):
        chosen = choose(clean, config.max_documents, config.seed, lambda document: bool(document.text.strip()))
        enough(len(chosen), benchmark, source, clean)
        return [{"id": each.id, "document": each.id, "text": cut(each.text, config.max_bytes)} for each in chosen]
    assert isinstance(form, NextPassage)  # build leaves out what has neither form
    return choices(benchmark, form, source, clean, config)


def choices(
    benchmark: Benchmark, form: NextPassage, source: str, clean: Path, config: AssessConfig
) -> list[dict[str, Any]]:
    def usable(document: Document) -> bool:
        return next(passages.passages(document.id, document.text, form, config.seed), None) is not None

    chosen = choose(clean, config.items, config.seed, usable)
    made = passages.items(
        passages.pool([each[:2] for each in chosen], form, config.items, config.seed), config.choices, config.seed
    )
    enough(len({item["document"] for item in made}), benchmark, source, clean)
    return [dict(item) for item in made]


def enough(documents: int, benchmark: Benchmark, source: str, clean: Path) -> None:
    if documents < benchmark.min_documents and benchmark.items:
        raise ConfigError(
            f"benchmark {source!r}: its items in {clean} come from {documents} documents; it needs "
            f"{benchmark.min_documents}\n  add items, lower min_documents in its declaration, or leave it out"
        )
    if documents < benchmark.min_documents:
        raise ConfigError(
            f"{source}: {documents} held-out documents in {clean} can be used for benchmark {benchmark.name!r}; "
            f"it needs {benchmark.min_documents}\n  add text to the source, raise prepare.held_out.share, "
            f"or leave the benchmark out"
        )


def choose(clean: Path, count: int, seed: int, usable: Callable[[Document], bool]) -> list[Document]:
    """Of the usable held-out documents in `clean`, the `count` whose hash is smallest, in that order."""
    return heapq.nsmallest(
        count, filter(usable, held_out_documents(clean)), key=lambda document: rank(seed, document.id)
    )


def cut(text: str, max_bytes: int) -> str:
    """The beginning of `text`, at most `max_bytes` of UTF-8, to a whole line where half of it remains then."""
    raw = text[: max_bytes + 1].encode()
    if len(raw) <= max_bytes:
        return text
    head = raw[:max_bytes].decode(errors="ignore")
    line = head.rfind("\n") + 1
    return head[:line] if 2 * line >= len(head) else head
