"""Sources to their newest clean, packed edition, and the base they are packed for."""

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config, records, stages
from ratoon.config import Ask, Base, Gguf, Pretrained, Scratch, Source
from ratoon.layout import Layout
from ratoon.lm.base import check_tokenizer, obtain, weights_folder
from ratoon.records import Ledger
from ratoon.training import scratch
from ratoon.training.batch import BatchResult
from ratoon.training.sole import Occupied, sole
from ratoon.training.supervise import supervise
from tasks import texts, tracking, versions
from tasks.artifacts import show_table
from tasks.job import Job, corpora, folder_of, resolve
from tasks.live import stage, warn
from tasks.retry import PAUSES, healing, midway

STAGE = re.compile(r"(?:Running stage|Stage) '([^']+)'")  # what DVC says of each, run or skipped


@healing()
def make_editions(root: Path, ask: Ask) -> tuple[list[str], dict[str, str]]:
    """Bring every source up to date through DVC. Returns the stages that had to run, and path -> hash of all."""
    params, base, sources = resolve(root, ask)
    stages.known(root, params.prepare)
    targets = {source.name: f"pack@{base.name}-{source.name}" for source in sources}
    targets |= {name: f"clean-watched@{name}" for name in params.refresh.watch}
    for name in targets:
        # A stage depends on the folder for files dropped in; a source of packages or a hub alone has none yet.
        (root / "data" / "raw" / name).mkdir(parents=True, exist_ok=True)
    passed: set[str] = set()

    def is_stale(name: str) -> bool:
        behind = any(stages.behind(root, step, of) for step, of in stages.beside(root, targets) if of == name)
        return behind or bool(versions.status(root, ["--with-deps", targets[name]]))

    def unread() -> AbstractContextManager[None]:
        return texts.change(Layout(root), targets, is_stale)

    # Ingest, score, clean, pack of each, the tokenizer and the scorers that are kept; two stages of what is watched.
    total = 4 * len(sources) + 2 + 2 * len(params.refresh.watch)
    with stage("prepare", "stages", total, params.refresh.line) as shown:

        def heard(line: str) -> None:
            if begun := STAGE.match(line):
                passed.add(begun[1])
            shown.update(max(0, len(passed) - 1), note=line.removeprefix("> "))

        ran: list[str] = []
        for step, name in stages.beside(root, targets):
            one = f"{step}{'-watched' if name in params.refresh.watch else ''}@{name}"
            ran += versions.repro(root, [one], heard, within=unread()).ran
            if stages.behind(root, step, name):
                ran += versions.repro(root, [one], heard, forced=True, within=unread()).ran
        made = versions.repro(root, list(targets.values()), heard, within=unread())
        ran = list(dict.fromkeys([*ran, *made.ran]))
        shown.update(total, note=f"{len(ran)} ran" if ran else "nothing new")
    return ran, made.hashes


@healing()
def push_editions(root: Path) -> None:
    versions.push(root)


@healing()
def make_base(root: Path, ask: Ask) -> Path:
    """The base's weights: found, converted, or trained from nothing with its family. Made once, then reused."""
    with alone_at_bases(Layout(root)):
        return made_base(root, ask)


@contextmanager
def alone_at_bases(layout: Layout) -> Iterator[None]:
    """Of two runs that want a base the second finds it made."""
    folder = layout.state / "bases"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(sole(folder, 0))
        except Occupied:
            warn("another run makes its base: waiting for it")
            held.enter_context(sole(folder, math.inf))
        yield


def made_base(root: Path, ask: Ask) -> Path:
    params, base, sources = resolve(root, ask)
    family = [config.base(root, name) for name in base.family]
    layout = Layout(root)
    todo = scratch.missing([b for b in (base, *family) if isinstance(b.weights, Scratch)], root)
    if todo:
        batch = scratch.begin(
            todo,
            root,
            layout.tokenizer(base.name),
            corpora(layout, base, sources),
            params.prepare.held_out.max_tokens,
        )
        total = sum(request.recipe.tokens for request in batch.requests)
        with stage("base", "tokens", total, params.refresh.line) as shown:
            supervise("batch", batch, Path(batch.out), on_line=lambda line: shown.update(line["tokens"]))
        scratch.keep(todo, root, records.read(Path(batch.out) / "result.json", BatchResult))
    for other in (base, *family):
        if isinstance(other.weights, Pretrained | Gguf):
            with stage("base", line=params.refresh.line) as shown:
                shown.update(0, note=other.name)
                obtain(other, root)
    return path_of(base, root)


def path_of(base: Base, root: Path) -> Path:
    return weights_folder(root, base) if isinstance(base.weights, Scratch) else obtain(base, root)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=PAUSES, retry_condition_fn=midway)
def open_job(root: Path, ask: Ask) -> Job:
    """What is to be done, on which text, from which parent. The parent is the line's champion, or else the base."""
    params, base, sources = resolve(root, ask)
    layout = Layout(root)
    hashes = versions.hashes(root)
    wanted = [str(layout.rows(base.name, s.name).relative_to(root)) for s in sources]
    wanted += [str(layout.clean(s.name).relative_to(root)) for s in sources]
    editions = {path: hashes[path] for path in wanted if path in hashes}
    champion = tracking.champion(params.refresh.line)
    job = Job(
        layout=layout,
        ask=ask,
        params=params,
        base=base,
        sources=sources,
        parent=tracking.version_path(champion.line, champion.version) if champion else path_of(base, root),
        parent_version=champion.version if champion else None,
        editions=editions,
        folder=Path(),
    )
    for corpus in job.corpora.values():
        check_tokenizer(job.parent, Path(corpus.rows))
    folder = folder_of(layout, job.line, job.question, job.parent_version)
    return Job(**{**job.__dict__, "folder": folder})


def ledgers(layout: Layout, base: Base, sources: Iterable[Source]) -> tuple[Ledger, ...]:
    """Of every stage of every source, in the order text passes them."""
    return tuple(
        records.read(place / "ledger.json", Ledger)
        for source in sources
        for place in (layout.documents(source.name), layout.clean(source.name), layout.rows(base.name, source.name))
    )


@task(cache_policy=NO_CACHE)
def show_funnel(root: Path, ask: Ask) -> None:
    """What came in, what each reason dropped and what is left, as a table on the Prefect page of the run."""
    params, base, sources = resolve(root, ask)
    rows = list(funnel(ledgers(Layout(root), base, sources)))
    show_table(params.refresh.line, "funnel", rows, "documents and bytes, stage by stage")


def funnel(found: Iterable[Ledger]) -> Iterator[dict[str, str | int]]:
    """A row for what enters a stage, one for each reason to drop, the commonest first, one for what is kept."""
    for ledger in found:
        it = ledger.funnel
        dropped = sorted(it.dropped.items(), key=lambda reason: -reason[1])
        rows = [("in", it.documents_in, it.bytes_in)]
        rows += [(f"- {reason}", count, it.dropped_bytes.get(reason, 0)) for reason, count in dropped]
        for what, documents, size in [*rows, ("kept", it.documents_kept, it.bytes_kept)]:
            yield {"source": ledger.source, "stage": ledger.stage, "": what, "documents": documents, "bytes": size}
