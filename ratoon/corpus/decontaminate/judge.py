"""Decontamination as a judge of clean's first pass, and what it looks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ratoon.config import Benchmark, Decontaminate, Items
from ratoon.corpus.decontaminate import CONTAMINATED, Decontaminator, Hit, Index, Item, Target, build, read
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.judge import Ask, Documents, Findings

NOTE = "contamination"
HIT = pa.struct(
    [("target", pa.string()), ("items", pa.list_(pa.string())), ("how", pa.string()), ("share", pa.float64())]
)
# Kinds of targets that come of held-out documents: these may hold them, no other may.
HELD_OUT = ("held_out", "built")
Key = Callable[[str], bytes]  # what equal texts have in common
HeldOut = Callable[[bytes], bool]  # whether texts of that key are kept from training


@dataclass(frozen=True)
class Clear:
    """Drops what holds an item. The index travels with the judge: it is small, and workers need no files.

    `key` and `held_out` say which documents are held out: held-out targets are theirs, and do not speak against them.
    """

    index: Index
    key: Key | None = None
    held_out: HeldOut | None = None
    fields: tuple[pa.Field, ...] = (pa.field(NOTE, pa.list_(HIT)),)

    def content(self) -> tuple[object, ...]:
        return ("decontaminate", self.index.digest)

    def open(self) -> Ask:
        asked = Decontaminator(self.index)

        def ask(documents: Documents) -> Findings:
            column = documents.columns.column("text")
            found = asked.hits(column)
            for place, hits in enumerate(found):
                if any(hit.kind in HELD_OUT for hit in hits) and self._own(column[place].as_py()):
                    found[place] = tuple(hit for hit in hits if hit.kind not in HELD_OUT)
            reasons = [CONTAMINATED if any(hit.removes for hit in hits) else None for hits in found]
            return Findings(reasons, {NOTE: pa.array([_noted(hits) for hits in found], pa.list_(HIT))})

        return ask

    def _own(self, text: str) -> bool:
        return self.key is not None and self.held_out is not None and self.held_out(self.key(text))


def _noted(hits: tuple[Hit, ...]) -> list[dict[str, object]] | None:
    """None, not an empty list, where there is nothing: it takes no room."""
    return [
        {"target": hit.target, "items": list(hit.items), "how": hit.how, "share": hit.share} for hit in hits
    ] or None


# ---------------------------------------------------------------- what is looked for


def judge(
    config: Decontaminate, benchmarks: Sequence[Benchmark], root: Path, documents: Path, key: Key, held_out: HeldOut
) -> Clear:
    """`documents`: the folder that holds ingested documents, a folder per source.

    Raises ConfigError where the items of a benchmark or the documents of a source cannot be read.
    """
    targets = [
        Target(item.name, read(item, root), config.coverage, config.least, _kind(item))
        for item in sorted(benchmarks, key=lambda item: item.name)
        if item.items
    ]
    if asked := config.held_out:
        for source in sorted(asked.sources):
            items = held_out_items(documents / source, key, held_out)
            targets.append(Target(f"{source}, held out", items, asked.coverage, asked.min_words, "held_out"))
    return Clear(build(targets, config), key, held_out)


def _kind(benchmark: Benchmark) -> str:
    return "built" if isinstance(benchmark.form, Items) and benchmark.form.source else "benchmark"


def held_out_items(documents: Path, key: Key, held_out: HeldOut) -> tuple[Item, ...]:
    """The documents of a source that are held out if they are kept: their text alone decides. Each text once."""
    found: dict[bytes, Item] = {}
    for shard in shards(documents):
        for row in rows(shard, ["id", "text"]):
            name = key(row["text"])
            if held_out(name):
                found.setdefault(name, Item(row["id"], row["text"]))
    return tuple(found.values())
