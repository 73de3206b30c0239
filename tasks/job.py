"""One refresh on its way: what was asked, on which text, from which parent, and the folder it fills."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratoon import config, records
from ratoon.config import Ask, Base, ConfigError, Params, Scratch, Source
from ratoon.corpus.portions import shares
from ratoon.layout import Layout
from ratoon.records import Refresh
from ratoon.training.sweep import Corpus
from tasks import commits, texts, versions

# Folders of the lines whose lock this run holds: its parts need not ask again.
HELD: ContextVar[frozenset[Path]] = ContextVar("HELD", default=frozenset())


class Busy(ConfigError):
    """Another run of this model line is under way."""


@dataclass(frozen=True)
class Job:
    layout: Layout
    ask: Ask
    params: Params
    base: Base
    sources: tuple[Source, ...]
    parent: Path  # directory of the model that is continued
    parent_version: int | None  # its registered version; None: the base itself
    editions: dict[str, str]  # path -> DVC hash of what is read
    folder: Path

    @property
    def line(self) -> str:
        return self.params.refresh.line

    @property
    def question(self) -> str:
        """Digest of parameters and text: equal questions need no second answer."""
        params = self.params.model_copy(update={"train": self.params.train.essence()})
        asked = params.model_dump(mode="json")
        asked["refresh"].pop("push")
        asked["refresh"].pop("watch", None)
        asked["refresh"].pop("commit", None)
        asked.pop("budgets")
        asked.pop("retention", None)
        asked.pop("arms", None)  # what a refresh is measured against does not change it
        asked.pop("operate", None)
        asked["prepare"].pop("engine")
        for section in ("budget", "faults"):
            asked["train"].pop(section)
        return digest(asked, self.editions, self.base.digest())

    @property
    def corpora(self) -> dict[str, Corpus]:
        return corpora(self.layout, self.base, self.sources)

    def edition_of(self, rows: Path) -> str | None:
        """DVC's hash of what these rows, relative to the root, are or lie in: DVC knows a portion by its source."""
        return next((self.editions[str(it)] for it in (rows, *rows.parents) if str(it) in self.editions), None)

    @property
    def common(self) -> dict[str, Any]:
        """What all training requests of this job share."""
        version = {} if self.parent_version is None else {"continues": self.parent_version}
        return version | {
            "row_tokens": self.base.row_tokens,
            "held_out_tokens": self.params.prepare.held_out.max_tokens,
            "commit": commits.commit(self.layout.root)[0],
        }


def corpora(layout: Layout, base: Base, sources: tuple[Source, ...]) -> dict[str, Corpus]:
    """What a mixture is made of: the sources, and of one that is split its portions.

    Raises ConfigError where a portion is called like a source.
    """
    found: dict[str, Corpus] = {}
    for source in sources:
        rows = layout.rows(base.name, source.name)
        for share in shares(source, layout.clean(source.name)):
            if share.name in found:
                raise ConfigError(
                    f"params.yaml: refresh.sources: {share.name!r} is a source and a portion of another; rename it"
                )
            found[share.name] = Corpus(rows=str(rows / share.folder), role=source.role, weight=share.weight)
    return found


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def resolve(root: Path, ask: Ask) -> tuple[Params, Base, tuple[Source, ...]]:
    """params.yaml with what was asked laid over it, and the declarations it names.

    Raises ConfigError for anything that is not declared or does not go together.
    """
    params = config.load(root, budget=ask.budget, changes=ask.changes())
    base = config.base(root, params.refresh.base)
    if isinstance(base.weights, Scratch) and base.weights.tokenizer:
        raise ConfigError(
            f"params.yaml: refresh.base: {base.name!r} reads the rows of {base.weights.tokenizer!r}, as its proxy; to "
            f"refresh a model of this shape, declare a base without `tokenizer` in models/bases, and name it here"
        )
    if base.name not in params.prepare.bases:
        raise ConfigError(
            f"params.yaml: prepare.bases: {base.name!r} is not among {list(params.prepare.bases)}; "
            f"add it, so that the sources are packed with its tokenizer"
        )
    sources = tuple(config.source(root, name) for name in params.refresh.sources)
    for name in params.refresh.watch:
        config.source(root, name)  # a wrong name is told at once
    roles = {source.role for source in sources}
    if missing := {"general", "domain"} - roles:
        raise ConfigError(
            f"params.yaml: refresh.sources: no {' and no '.join(sorted(missing))} source among "
            f"{[s.name for s in sources]}; one to protect (general) and one to learn (domain) are needed"
        )
    return params, base, sources


def folder_of(layout: Layout, line: str, question: str, parent_version: int | None) -> Path:
    return layout.refreshes(line) / f"{question}-on-{parent_version or 'base'}"


@contextmanager
def alone(job: Job) -> Iterator[None]:
    """One refresh of a model line at a time, on text that stays as it is meanwhile."""
    with held(job.layout, job.line), reading(job):
        yield


@contextmanager
def reading(job: Job) -> Iterator[None]:
    """Inside the block the editions are those of this job. Raises ConfigError where they are others already."""
    watched = job.params.refresh.watch
    with texts.read(job.layout, {*(source.name for source in job.sources), *watched}):
        found = versions.hashes(job.layout.root)
        if changed := sorted(path for path, edition in job.editions.items() if found.get(path) != edition):
            raise ConfigError(
                f"{changed[0]}: another edition of it was made since this run began, which would mix two texts; "
                f"nothing was done: run it again"
            )
        yield


@contextmanager
def held(layout: Layout, line: str) -> Iterator[None]:
    """The lock of a model line. It goes with the process that holds it, however that ends."""
    path = layout.refreshes(line) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Busy(
                f"{line}: another refresh of this model is under way (process {lock.read().strip() or '?'}); "
                f"wait for it, or stop it: this command then goes on where it was"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        token = HELD.set(HELD.get() | {path.parent})
        try:
            yield
        finally:
            HELD.reset(token)


@contextmanager
def alone_or_within(job: Job) -> Iterator[None]:
    """For a part that also runs by itself: within a refresh the refresh holds the lock, else it is taken here."""
    if job.layout.refreshes(job.line) in HELD.get():
        yield
        return
    with alone(job):
        yield


def latest(layout: Layout, line: str) -> Refresh | None:
    """The last refresh of this line that came to a verdict."""
    folder = latest_folder(layout, line)
    return None if folder is None else records.read(folder / "refresh.json", Refresh)


def latest_folder(layout: Layout, line: str) -> Path | None:
    path = layout.latest(line)
    if not path.exists():
        return None
    folder = layout.refreshes(line) / json.loads(path.read_text(encoding="utf-8"))["folder"]
    return folder if (folder / "refresh.json").exists() else None


def finish(job: Job, refresh: Refresh) -> None:
    records.write(job.folder / "refresh.json", refresh)
    latest_text = json.dumps({"folder": job.folder.name, "question": job.question})
    records.write_text(job.layout.latest(job.line), latest_text)


def question_answered(job: Job) -> bool:
    """Whether the last refresh of this line asked the same of the same text."""
    path = job.layout.latest(job.line)
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["question"] == job.question
