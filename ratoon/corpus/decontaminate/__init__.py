"""Training text kept clear of what models are examined on.

    index = build([Target("trivia", read(benchmark, root), config.coverage, 0)], config)
    Decontaminator(index).reasons(texts)    # "contaminated" or None, for each text: raw or synthesised

The items are few and stay in memory; the corpus streams past once. No n-gram removes a document by itself: an item is
held by a document that covers enough of it, and n-grams many items share cover nothing.
"""

from typing import Literal, NamedTuple

from ratoon.corpus.decontaminate.coverage import covered, shared
from ratoon.corpus.decontaminate.index import Counts, Index, build
from ratoon.corpus.decontaminate.items import Item, Target, read
from ratoon.corpus.decontaminate.phrases import find
from ratoon.corpus.decontaminate.split import Split, Texts, splits
from ratoon.corpus.decontaminate.table import scan

__all__ = ["CONTAMINATED", "Counts", "Decontaminator", "Hit", "Index", "Item", "Target", "build", "read"]

CONTAMINATED = "contaminated"
How = Literal["whole", "covered", "shared"]


class Hit(NamedTuple):
    """A text holds an item: whole, or this share of it is covered; or shares a longer n-gram with it (reported)."""

    target: str
    kind: str  # of the target
    items: tuple[str, ...]  # ids of one wording
    how: How
    share: float

    @property
    def removes(self) -> bool:
        return self.how != "shared"


class Decontaminator:
    """What is said of a text depends on that text and the index alone."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def reasons(self, texts: Texts) -> list[str | None]:
        return [CONTAMINATED if any(hit.removes for hit in hits) else None for hits in self.hits(texts)]

    def hits(self, texts: Texts) -> list[tuple[Hit, ...]]:
        """Of each text, in the order of the targets and of their items' words."""
        found: list[tuple[Hit, ...]] = [()] * len(texts)
        for numbers, split in splits(texts):
            met: dict[int, dict[int, tuple[How, float]]] = {}
            for text, entry, how, share in self._met(split):
                met.setdefault(text, {}).setdefault(entry, (how, share))
            for text, entries in met.items():
                found[int(numbers[text])] = tuple(self._hit(entry, *entries[entry]) for entry in sorted(entries))
        return found

    def _met(self, split: Split) -> list[tuple[int, int, How, float]]:
        """(text, entry, how, share); of several about the same the first counts."""
        index, n = self.index, self.index.config.ngram
        asked = [item for item in (index.short, index.long) if item.items]
        grams, *anchors = scan(split, [(n, index.grams), *((item.found_by, item.anchors) for item in asked)])
        found: list[tuple[int, int, How, float]] = []
        for item, at in zip(asked, anchors, strict=True):
            found += [(text, entry, "whole", 1.0) for text, entry in find(item, split, at)]
        found += [(text, entry, "covered", share) for text, entry, share in covered(index, split, grams)]
        found += [(text, entry, "shared", 0.0) for text, entry in shared(index, split, grams)]
        return found

    def _hit(self, entry: int, how: How, share: float) -> Hit:
        target, ids, _ = self.index.entries[entry]
        return Hit(self.index.names[target], self.index.kinds[target], ids, how, round(share, 4))
