"""All documents of a source together: which texts stay, and how many stand behind each.

Of a cluster the survivor is, in this order: from a source of higher priority, from the earliest edition, held out
rather than trained on, longest, least key. Nothing of it depends on the order of files or documents. So a cluster
with a held-out text keeps a held-out text alone, unless an earlier edition has already trained on the cluster: then
the newcomer goes. An earlier survivor goes only when a source of higher priority comes to hold the same.

Texts are the same here when the first 8 bytes of their keys are: among 10^8 texts some pair errs with probability
3e-4. Memory: about 80 bytes per text, and what bands.py says.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ratoon.config import ConfigError, Dedup, Engine, NearDuplicates
from ratoon.corpus.dedup import arrivals, index, paragraphs
from ratoon.corpus.dedup.bands import ENTRY, I32, Forest, Spill, pairs_of
from ratoon.corpus.dedup.upsample import copies
from ratoon.corpus.dedup.words import I64, U8, U64
from ratoon.corpus.documents import tally_of
from ratoon.corpus.edition import LEDGER, Edition, digest, read_ledger, shards
from ratoon.corpus.workers import Report, each

REASONS = (None, "near_duplicate", "in_other_source", "repeated_paragraphs")
STAYS, NEAR, ELSEWHERE, PARAGRAPHS = range(4)
CLUSTERS = pa.schema([("id", pa.string()), ("survivor", pa.binary(8)), ("size", pa.int64())])


class Fate(NamedTuple):
    """Of the documents of one shard, in their order."""

    reasons: bytes  # index into REASONS, each
    copies: bytes  # how often each is trained on, if at all


class Decision(NamedTuple):
    fates: list[Fate]
    files: list[str]  # to be listed in the edition's ledger


class Keys(NamedTuple):
    """Of the documents of one shard that the rules let pass."""

    path: Path
    signed: Path | None
    rows: I64
    keys: U64
    sizes: I64


class Texts(NamedTuple):
    """Each text once, by key."""

    keys: U64
    ranks: I32  # edition of arrival; below 0: in a source of higher priority, the least first
    numbers: I64  # place in the order of survival
    counts: I64  # documents of this source with this text


def decide(
    inputs: Sequence[Path],
    verdicts: Sequence[Path],
    against: Sequence[Path],
    edition: Edition,
    config: Dedup,
    held_out_share: float,
    report: Report | None = None,
    processes: Engine | int | None = None,
) -> Decision:
    """The fate of every document of `inputs`. `against`: clean editions of other sources, highest priority first.

    Raises ConfigError where an edition of `against` has no signatures to compare with.
    """
    made = Maker(inputs, edition, report, processes)
    near, lines = config.near, config.paragraphs
    signatures = made("signatures", index.sign, near, *index.recipe(near).values()) if near else []
    repeats = (
        made("paragraphs", paragraphs.write, lines.min_words, paragraphs.ALGORITHM, lines.min_words) if lines else []
    )
    own = [_keys(path, edition.path(signatures[i]) if near else None) for i, path in enumerate(verdicts)]
    others = [_others(directory, near) for directory in against]
    texts, arrived = _texts(own, others, edition, held_out_share)
    survivor = np.arange(len(texts.keys))
    if near:
        every = [*(keys for other in others for keys in other), *own]
        survivor = _clusters(texts, every, near, made)
    reasons = _reasons(texts, survivor)
    if lines:
        share = _repeated([edition.path(name) for name in repeats], own, texts, reasons, edition)
        reasons[(reasons == STAYS) & (share > lines.max_share)] = PARAGRAPHS
    found = _fates(texts, own, survivor, reasons, config, edition)
    return Decision(found.fates, [*signatures, *repeats, arrived, *found.files])


class Maker(NamedTuple):
    """Makes a file of each shard; those of earlier editions serve as they are."""

    inputs: Sequence[Path]
    edition: Edition
    report: Report | None
    processes: Engine | int | None

    def __call__(self, folder: str, work: Callable[..., None], asked: object, *recipe: object) -> list[str]:
        """Names of the files of work(shard, asked, file), one per shard; `recipe`: all that they depend on."""
        key = digest(*recipe)
        names = [f"{folder}/{path.stem}-{key}.parquet" for path in self.inputs]
        fresh = [i for i, name in enumerate(names) if not self.edition.reusable(name)]
        sizes = [tally_of(self.inputs[i]).bytes for i in fresh]
        tasks = [(self.inputs[i], asked, self.edition.place(names[i])) for i in fresh]
        done = 0
        for i, _ in each(work, tasks, sizes, self.processes):
            done += sizes[i]
            self.tell(done, sum(sizes), f"{folder} {self.inputs[fresh[i]].stem}")
        return names

    def tell(self, done: int, total: int, what: str) -> None:
        if self.report:
            self.report(done, total, what)


def _keys(path: Path, signed: Path | None) -> Keys:
    table = parquet.read_table(path, columns=["key", "bytes"])
    column = table["key"].combine_chunks()
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    whole = b"".join(column.drop_null().to_pylist())
    keys = np.frombuffer(whole, ">u8")[::2].astype(np.uint64)
    return Keys(path, signed, rows, keys, table["bytes"].to_numpy()[rows])


def compared(directory: Path) -> str:
    """A name for all that is read of a clean edition that others must not repeat; '' where there is none."""
    if not (directory / LEDGER).exists():
        return ""
    held = read_ledger(directory).shards
    return digest(*((name, held[name]) for name in sorted(held) if name.startswith(("verdicts/", "signatures/"))))


def _others(directory: Path, near: NearDuplicates | None) -> list[Keys]:
    found = {path.stem.rpartition("-")[0]: path for path in shards(directory, "signatures/")} if near else {}
    judged = shards(directory, "verdicts/")
    if near and len(found) != len(judged):
        raise ConfigError(f"{directory}: has no signatures to compare with; prepare this source first")
    return [_keys(path, found.get(path.stem.rpartition("-")[0])) for path in judged]


def _texts(own: list[Keys], others: list[list[Keys]], edition: Edition, share: float) -> tuple[Texts, str]:
    """Texts of all sources, and the name of the file that says when those of this one arrived."""
    mine = np.unique(_joined([item.keys for item in own], np.uint64))
    arrived = arrivals.ranks(edition, mine)
    keys = np.unique(_joined([mine, *(item.keys for other in others for item in other)], np.uint64))
    ranks = np.full(len(keys), np.iinfo(np.int32).max, np.int32)
    ranks[np.searchsorted(keys, mine)] = arrived
    sizes, counts = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    for item in own:
        at = _places(keys, item.keys)
        np.maximum.at(sizes, at, item.sizes)
        np.add.at(counts, at, 1)
    for place, other in reversed(list(enumerate(others))):
        for item in other:
            ranks[_places(keys, item.keys)] = place - len(others)
    trained = keys >= np.uint64(math.ceil(share * 2**64))
    numbers = np.empty(len(keys), np.int64)
    numbers[_order(ranks, trained, sizes)] = np.arange(len(keys))
    return Texts(keys, ranks, numbers, counts), arrivals.write(edition, mine, arrived)


def _order(ranks: I32, trained: NDArray[np.bool_], sizes: I64) -> I64:
    """Of survival: by rank, held out first, longest first, and as they stand, which is by key."""
    if not len(ranks):
        return np.empty(0, np.int64)
    # In one number: the sort is several times faster than by three.
    whole = (ranks - np.int64(ranks.min())) << 40 | trained.astype(np.int64) << 39 | ((1 << 39) - 1 - sizes)
    return np.argsort(whole, kind="stable")


def _places(keys: U64, wanted: U64) -> I64:
    """Where each wanted key is among the sorted ones. In order they are found with the cache, not against it."""
    order = np.argsort(wanted)
    found = np.empty(len(wanted), np.int64)
    found[order] = np.searchsorted(keys, wanted[order])
    return found


def _joined(parts: list[U64], kind: type[np.uint64]) -> U64:
    return np.concatenate([np.empty(0, kind), *parts])


def _clusters(texts: Texts, items: list[Keys], near: NearDuplicates, made: Maker) -> I64:
    """For every number the number of the survivor of its cluster."""
    folder = made.edition.place("spill") / "bands"
    total = sum(len(item.keys) for item in items)
    spill = Spill(folder, near.bands * total)
    ranks = np.empty_like(texts.ranks)
    ranks[texts.numbers] = texts.ranks
    np.save(folder / "ranks.npy", ranks)
    place = folder / "slots.npy" if near.agreement and len(texts.keys) else None
    slots = _slots(place, len(texts.keys), near)
    gathered, size = 0, near.bands * ENTRY.itemsize
    for item in items:
        assert item.signed is not None
        signed = index.read(item.signed, near, with_slots=slots is not None)
        at, of = np.searchsorted(item.rows, signed.rows), signed.rows
        passed = np.append(item.rows, -1)[at] == of
        numbers = texts.numbers[_places(texts.keys, item.keys[at[passed]])]
        spill.add(signed.bands[passed].reshape(-1), np.repeat(numbers, near.bands))
        if slots is not None:
            slots[numbers] = signed.slots[passed]
        gathered += len(item.keys)
        made.tell(gathered * size, total * size, f"gather {item.path.stem}")
    if slots is not None:
        slots.flush()
    del slots  # mapped twice it would count twice
    parts = spill.close()
    sizes = [part.stat().st_size for part in parts]
    forest, done = Forest(ranks), 0
    # Clusters do not depend on the order of pairs, so partitions may come as they end.
    tasks = [(part, folder / "ranks.npy", place, near.agreement) for part in parts]
    for i, found in each(pairs_of, tasks, sizes, made.processes):
        forest.join(found)
        done += sizes[i]
        made.tell(done, sum(sizes), f"join {parts[i].stem}")
    return forest.survivors()


def _slots(place: Path | None, texts: int, near: NearDuplicates) -> np.memmap[Any, Any] | None:
    if place is None:
        return None
    return np.lib.format.open_memmap(place, "w+", np.uint8, (texts, near.bands * near.rows))


def _reasons(texts: Texts, survivor: I64) -> U8:
    """By number."""
    ranks = np.empty_like(texts.ranks)
    ranks[texts.numbers] = texts.ranks
    reasons = np.where(survivor == np.arange(len(survivor)), STAYS, NEAR).astype(np.uint8)
    reasons[ranks[survivor] < 0] = ELSEWHERE
    return reasons


def _repeated(lines: list[Path], own: list[Keys], texts: Texts, reasons: U8, edition: Edition) -> NDArray[np.float64]:
    """Share of the words of every text, by number, that stand in paragraphs of texts before it."""
    files = []
    for path, item in zip(lines, own, strict=True):
        numbers = texts.numbers[_places(texts.keys, item.keys)]
        every = np.full(parquet.read_metadata(path).num_rows, -1)
        every[item.rows] = np.where(reasons[numbers] == STAYS, numbers, -1)
        files.append((path, every))
    return paragraphs.repeated(files, len(texts.keys), edition.place("spill") / "paragraphs")


def _fates(texts: Texts, own: list[Keys], survivor: I64, reasons: U8, config: Dedup, edition: Edition) -> Decision:
    keys = np.empty_like(texts.keys)
    keys[texts.numbers] = texts.keys
    files: list[str] = []
    sizes = np.zeros(len(survivor), np.int64)
    np.add.at(sizes, survivor[texts.numbers], texts.counts)
    fates = []
    for item in own:
        numbers = texts.numbers[_places(texts.keys, item.keys)]
        stands = survivor[numbers]
        times = np.where(reasons[numbers] == STAYS, copies(sizes[stands], config.copies), 0)
        fates.append(_fate(item, reasons[numbers], times.astype(np.uint8)))
        if (told := (sizes[stands] > 1) | (reasons[numbers] != STAYS)).any():
            files.append(_write_clusters(edition, item, told, keys[stands], sizes[stands]))
    return Decision(fates, files)


def _fate(item: Keys, reasons: U8, times: U8) -> Fate:
    total = parquet.read_metadata(item.path).num_rows
    whole = np.zeros((2, total), np.uint8)
    whole[:, item.rows] = reasons, times
    return Fate(whole[0].tobytes(), whole[1].tobytes())


def _write_clusters(edition: Edition, item: Keys, told: NDArray[np.bool_], survivors: U64, sizes: I64) -> str:
    """Who is in a cluster, with whom, and how large it is; `survivor` is what the survivor's key begins with."""
    stems, big = item.path.stem.rpartition("-")[0], survivors[told].astype(">u8").tobytes()
    name = f"clusters/{stems}-{digest(item.rows[told].tobytes(), big, sizes[told].tobytes())}.parquet"
    if not edition.reusable(name):
        ids = parquet.read_table(item.path, columns=["id"])["id"].take(pa.array(item.rows[told]))
        stands = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), int(told.sum()), [None, pa.py_buffer(big)])
        table = pa.Table.from_arrays([ids, stands, pa.array(sizes[told])], schema=CLUSTERS)
        parquet.write_table(table, edition.place(name), compression="zstd", use_dictionary=False)
    return name
