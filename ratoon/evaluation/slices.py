"""Held-out text that is kept: cut, chosen by hash, and never changed again, so that later models meet the same."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ratoon.config import AssessConfig, Benchmark, ConfigError, HeldOutText, Role
from ratoon.evaluation.folder import whole
from ratoon.evaluation.harness import Scores
from ratoon.evaluation.held_out import Document
from ratoon.evaluation.passages import rank
from ratoon.evaluation.suite import Suite, build, cut

FILE = "held_out-kept.parquet"
TEXT = Benchmark(name="text", version=1, min_documents=2, form=HeldOutText(kind="held_out"))
Score = Callable[[Path, Path, Path], Scores]  # a model on a suite, into a folder
WHOLE = 2**40  # documents and bytes: kept text is scored as it was kept


class Place(NamedTuple):
    """A source or portion as it is read: its held-out shards, and what it is to the model line."""

    clean: Path
    role: Role
    watched: bool = False


class Lowest:
    """Of the documents it is given that say something, the `count` whose hash is smallest, and no other in memory.

    A corpus that grows changes few of them.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.heap: list[tuple[int, str, Document]] = []

    def add(self, document: Document) -> None:
        if document.text.strip():
            # The largest of those kept is first, so that it is the one to go.
            entry = (-rank(self.seed, document.id), document.id, document)
            push = heapq.heappush if len(self.heap) < self.count else heapq.heappushpop
            push(self.heap, entry)

    def documents(self) -> list[Document]:
        return [document for _, _, document in sorted(self.heap, key=lambda entry: -entry[0])]


def chosen(documents: Iterable[Document], count: int, seed: int) -> list[Document]:
    lowest = Lowest(count, seed)
    for document in documents:
        lowest.add(document)
    return lowest.documents()


def keep(documents: list[Document], max_bytes: int, out: Path, more: Mapping[str, list[Any]] | None = None) -> int:
    """Write the documents, cut to `max_bytes`, as a folder a suite is built from. Returns the bytes kept."""
    import pyarrow
    import pyarrow.parquet as parquet

    texts = [cut(document.text, max_bytes) for document in documents]
    columns = {"id": [d.id for d in documents], "text": texts, "date": [d.date for d in documents], **(more or {})}
    schema = [(name, pyarrow.binary() if name == "key" else pyarrow.string()) for name in columns]
    with whole(out) as folder:
        parquet.write_table(pyarrow.table(columns, schema=pyarrow.schema(schema)), folder / FILE, compression="zstd")
    return sum(len(text.encode()) for text in texts)


def suite_of(folders: Mapping[str, tuple[Role, Path]], config: AssessConfig, out: Path) -> Suite:
    """A suite of kept text, whole; its tasks are in the order of the names."""
    all_of_it = config.model_copy(update={"max_documents": WHOLE, "max_bytes": WHOLE})
    return build([TEXT], folders, all_of_it, out)


def bits_of(scores: Path, task: str) -> tuple[list[str], list[float], list[int]]:
    """(documents, bits, bytes) of one task of a score folder, in the order of the documents' ids."""
    import math

    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    file = scores / f"{task}.parquet"
    try:
        rows = parquet.read_table(file, columns=["document", "loglik_nats", "bytes"]).to_pylist()
    except (ArrowException, OSError, KeyError) as error:
        raise ConfigError(
            f"{file}: scores are missing or damaged: {error}; delete {scores} and assess again"
        ) from error
    rows.sort(key=lambda row: row["document"])
    bits = [-row["loglik_nats"][0] / math.log(2) for row in rows]
    return [row["document"] for row in rows], bits, [row["bytes"] for row in rows]
