"""Bands of signatures to clusters of documents, out of memory.

Two documents are candidates when all rows of one band of their signatures agree: with similarity s that happens
with probability 1 - (1 - s^rows)^bands. Clusters are connected components.

Documents are numbered in the order in which they would survive, best first, so a cluster's survivor is its least
number. Memory: 16 bytes per document, and one partition of band hashes; the hashes themselves lie on disk.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.corpus.dedup.signatures import U32
from ratoon.corpus.dedup.words import GOLDEN, I64, U8, U64, mix

# Entries of one partition, about: 16 bytes each on disk, some 80 while it is sorted and joined.
PARTITION = 1 << 22
ENTRY = np.dtype([("hash", "<u8"), ("number", "<i8")])

I32 = NDArray[np.int32]


def band_hashes(signatures: U32, bands: int) -> U64:
    """(documents, bands). A band's number goes into its hash, so that all bands can share one table."""
    documents, slots = signatures.shape
    rows = signatures.reshape(documents, bands, slots // bands).astype(np.uint64)
    hashes = np.broadcast_to(mix(np.arange(1, bands + 1, dtype=np.uint64) * np.uint64(GOLDEN)), rows.shape[:2])
    for row in range(rows.shape[2]):
        hashes = mix(hashes ^ rows[:, :, row])
    return hashes


class Spill:
    """(band hash, document) pairs on disk, parted by hash so that equal hashes lie together."""

    def __init__(self, folder: Path, expected: int) -> None:
        """`expected`: how many pairs will come, about; it decides only how much memory a partition takes."""
        folder.mkdir(parents=True, exist_ok=True)
        self.bits = max(0, (expected // PARTITION).bit_length())
        self.files = [(folder / f"{part:04x}").open("w+b") for part in range(1 << self.bits)]

    def add(self, hashes: U64, numbers: I64) -> None:
        entries = np.empty(len(hashes), ENTRY)
        entries["hash"], entries["number"] = hashes, numbers
        if not self.bits:
            self.files[0].write(entries.tobytes())
            return
        part = (hashes >> np.uint64(64 - self.bits)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(len(self.files) + 1))
        for file, first, last in zip(self.files, ends[:-1], ends[1:], strict=True):
            file.write(entries[order[first:last]].tobytes())

    def close(self) -> list[Path]:
        """The partitions: every hash lies in one of them."""
        for file in self.files:
            file.close()
        return [Path(file.name) for file in self.files]


def partition(path: Path) -> tuple[U64, I64]:
    """(hashes, numbers) sorted by both, where a hash occurs more than once."""
    entries = np.fromfile(path, ENTRY)
    # Few hashes have company, so only those are put into the full order.
    order = np.argsort(entries["hash"])
    hashes = entries["hash"][order]
    same = hashes[1:] == hashes[:-1]
    found = entries[order[np.append(False, same) | np.append(same, False)[: len(order)]]]
    order = np.lexsort((found["number"], found["hash"]))
    return found["hash"][order], found["number"][order]


class Pairs(NamedTuple):
    """Documents that belong together; `older` has the lesser number."""

    older: I64
    newer: I64


def pairs(hashes: U64, numbers: I64, ranks: I32, slots: U8 | None = None, agreement: float = 0.0) -> Pairs:
    """Of a sorted partition: the first of every run of equal hashes with each of the others.

    Where that one is of an earlier rank, also those next to each other of one rank: they are alike too. With an
    `agreement` a pair must reach it; what fails with the first is compared among itself again, and so on.
    """
    found: list[tuple[I64, I64]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    while len(hashes):
        first = np.append(True, hashes[1:] != hashes[:-1])
        other = np.flatnonzero(~first)
        leader = numbers[np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))[other]]
        previous, this = numbers[other - 1], numbers[other]
        beside = (ranks[leader] != ranks[this]) & (ranks[previous] == ranks[this]) & (previous != this)
        alike = _reach(slots, agreement, leader, this)
        beside[beside] = _reach(slots, agreement, previous[beside], this[beside])
        found += [(left[good], this[good]) for left, good in ((leader, alike & (leader != this)), (previous, beside))]
        hashes, numbers = hashes[other][~alike], this[~alike]
    return Pairs(*(np.concatenate(side) for side in zip(*found, strict=True)))


def pairs_of(path: Path, ranks: Path, slots: Path | None, agreement: float) -> Pairs:
    """Of the partition at `path`; ranks and slots by number, as numpy files. Runs in a process of its own."""
    mapped = None if slots is None else np.load(slots, mmap_mode="r")
    found = pairs(*partition(path), np.load(ranks, mmap_mode="r"), mapped, agreement)
    path.unlink()
    return found


def _reach(slots: U8 | None, agreement: float, left: I64, right: I64) -> NDArray[np.bool_]:
    if slots is None:
        return np.ones(len(left), np.bool_)
    return similarity(slots, left, right) >= agreement


def similarity(slots: U8, left: I64, right: I64) -> NDArray[np.float64]:
    """Estimated Jaccard similarity from one byte per slot, chance agreement taken off (arXiv:0910.3349)."""
    same = np.empty(len(left))
    for at in range(0, len(left), 1 << 16):
        part = slice(at, at + (1 << 16))
        same[part] = (slots[left[part]] == slots[right[part]]).mean(axis=1)
    return (same - 1 / 256) / (1 - 1 / 256)


class Forest:
    """Documents joined into clusters; what arrived earlier is never joined by what arrived later.

    Documents of one rank form connected components. A component next to one of an earlier rank goes to it whole,
    and two earlier ones stay apart even if a later document is like both: the past is not rewritten.
    """

    def __init__(self, ranks: I32) -> None:
        self.ranks = ranks
        self.root = np.arange(len(ranks))
        self.across: list[Pairs] = []

    def join(self, found: Pairs) -> None:
        same = self.ranks[found.older] == self.ranks[found.newer]
        self._unite(found.older[same], found.newer[same])
        if not same.all():
            distinct = np.unique(np.stack([found.newer[~same], found.older[~same]]), axis=1)
            self.across.append(Pairs(distinct[1], distinct[0]))

    def _unite(self, left: I64, right: I64) -> None:
        left, right = follow(self.root, left), follow(self.root, right)
        apart = left != right
        nodes, index = np.unique(np.stack([left[apart], right[apart]]), return_inverse=True)
        if not len(nodes):
            return
        index = index.reshape(2, -1)
        from scipy.sparse import coo_array  # a quarter of a second, and most stages link nothing
        from scipy.sparse.csgraph import connected_components

        links = coo_array((np.ones(index.shape[1], np.bool_), (index[0], index[1])), shape=(len(nodes), len(nodes)))
        count, label = connected_components(links, directed=False)
        least = np.full(count, len(self.root))
        np.minimum.at(least, label, nodes)
        self.root[nodes] = least[label]

    def survivors(self) -> I64:
        """For every document the number of the one that stands for its cluster."""
        everyone = np.arange(len(self.root))
        self.root = follow(self.root, everyone)
        parent = everyone.copy()
        for older, newer in self.across:
            np.minimum.at(parent, self.root[newer], self.root[older])
        return follow(parent, self.root)


def follow(parent: I64, numbers: I64) -> I64:
    """Up to the roots; a parent has a lesser number than its child."""
    while True:
        above = parent[numbers]
        if np.array_equal(above, numbers):
            return above
        numbers = above
