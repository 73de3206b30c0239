"""What training text holds of the candidates: which of them stand in it, and how often each of their words does."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon.config import ConfigError, Decontaminate
from ratoon.corpus.decontaminate import Decontaminator, Item, Target, build
from ratoon.evaluation.building.answerers import terms
from ratoon.evaluation.building.candidates import Candidate


class Training(NamedTuple):
    held: frozenset[str]  # ids of candidates that a training document holds
    words: Counter[str]  # of the answers
    documents: int
    bytes: int


def read(found: Sequence[Candidate], cleans: Sequence[Path]) -> Training:
    """One pass over the training parts of the clean editions in `cleans`.

    A candidate is held as `prepare.decontaminate` means it: n-grams found in one document cover half of it.
    """
    wanted = {word for one in found for word in terms(one.answer)}
    items = tuple(Item(one.id, one.context, one.answer) for one in found)
    asked = Decontaminator(build([Target("candidates", items, COVERAGE, 0)], CONFIG))
    held: set[str] = set()
    words: Counter[str] = Counter()
    documents = size = 0
    for texts in batches(cleans):
        documents += len(texts)
        for hits in asked.hits(texts):
            held.update(name for hit in hits if hit.removes for name in hit.items)
        for text in texts.to_pylist():
            size += len(text.encode())
            words.update(word for word in terms(text) if word in wanted)
    return Training(frozenset(held), words, documents, size)


CONFIG = Decontaminate()
COVERAGE = CONFIG.coverage


def batches(cleans: Sequence[Path]) -> Iterator[pa.Array]:
    for clean in cleans:
        shards = sorted(clean.glob("train-*.parquet"))
        if not shards:
            raise ConfigError(f"{clean}: no train-*.parquet here; `ratoon prepare` writes them")
        for shard in shards:
            with parquet.ParquetFile(shard) as file:
                for batch in file.iter_batches(batch_size=512, columns=["text"]):
                    yield batch.column("text")
