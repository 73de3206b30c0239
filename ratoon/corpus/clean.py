"""Documents to a clean edition: rules, exact deduplication, and the part held out from training.

Three passes. Each shard alone: rules, and a key of the normalised text. All together: of equal keys the first in
shard order survives, and of near-duplicates the one that dedup/survivors.py says. Each shard alone again: what is
left is written, split by the key. The split depends on the text and nothing else, so a document held out once is
held out in every later edition, under whatever name it comes, and in every source with the same share.

Memory of the second pass: about 100 bytes per document, as much again for near-duplicates.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon.config import ConfigError, HeldOut, PrepareConfig, Source
from ratoon.corpus.dedup.survivors import REASONS, Decision, Fate, decide
from ratoon.corpus.documents import ShardWriter, Tally, rows, tally_of
from ratoon.corpus.edition import Edition, digest, read_ledger, renew, shards
from ratoon.corpus.rules.profile import Profile, profile
from ratoon.corpus.workers import Report, each
from ratoon.records import Ledger

# Raise it whenever the same documents and parameters would give another edition.
VERSION = 2
DUPLICATE = "duplicate"
DROP, TRAIN, HELD_OUT = range(3)
PARTS = {TRAIN: "train", HELD_OUT: "held_out"}
BATCH = 512  # documents the rules see at once, at most
VERDICTS = pa.schema(
    [("id", pa.string()), ("place", pa.string()), ("reason", pa.string()), ("key", pa.binary()), ("bytes", pa.int64())]
)


class Kept(NamedTuple):
    """One shard of documents after deduplication: DROP, TRAIN or HELD_OUT for each, as bytes.

    `copies`: how often each is written to the training part; empty: once.
    """

    shard: Path
    flags: bytes
    copies: bytes

    def file(self, part: int) -> str:
        key = digest(VERSION, self.shard.name, self.flags, self.copies if part == TRAIN else b"")
        return f"{PARTS[part]}-{self.shard.stem}-{key}.parquet"


def clean(
    source: Source,
    config: PrepareConfig,
    documents: Path,
    out: Path,
    report: Report | None = None,
    processes: int | None = None,
) -> Ledger:
    """Bring `out` to the clean edition of `documents`, and return its ledger; unchanged shards are reused.

    Writes train-*.parquet and held_out-*.parquet (documents), verdicts/*.parquet (per document: the rule that
    dropped it, or its key) and ledger.json; kept counts both parts. Near-duplicates add signatures/*.parquet,
    clusters/*.parquet and arrivals-*.parquet: what `out` held before came first and stays. Editions of sources with a
    higher priority lie beside `out`, under their names. `report` hears of bytes of documents.

    Raises ConfigError, with the earlier edition untouched, for an unknown rule, or when the held-out part has
    fewer than `held_out.min_documents` documents or is larger than what is left to train on.
    """
    asked = profile(source, config)
    inputs = shards(documents)
    key = digest(VERSION, asked.content())
    with renew(out) as edition:
        judged = _judge(inputs, key, asked, edition, report, processes)
        total = Tally()
        verdicts = [edition.path(name) for name in judged]
        found = Decision([Fate(b"", b"")] * len(inputs), [])
        if config.dedup.joint:
            above = [out.with_name(name) for name in config.dedup.above(source.name)]
            share = config.held_out.share
            found = decide(inputs, verdicts, above, edition, config.dedup, share, report, processes)
        kept = list(_survivors(inputs, verdicts, found.fates, config, total))
        files = _write(kept, edition, report, processes)
        train, held = (_sum(edition.path(name) for of, name in files if of == part) for part in PARTS)
        _refuse(source, config.held_out, train, held)
        ledger = Ledger(
            source=source.name,
            role=source.role,
            stage="clean",
            config=digest(
                read_ledger(documents).config,
                key,
                config.dedup.digest(),
                config.held_out.share,
                config.held_out.min_documents,
            ),
            funnel=total.funnel(),
            shards=edition.hashes([*judged, *found.files, *(name for _, name in files)]),
            held_out_documents=held.documents,
            held_out_bytes=held.bytes,
            examples=total.examples,
        )
        return edition.publish(ledger)


def _sum(paths: Iterable[Path]) -> Tally:
    total = Tally()
    for path in paths:
        total.add(tally_of(path))
    return total


# ---------------------------------------------------------------- each shard alone


def normalise(text: str) -> str:
    """What counts as the same text: composed form, without regard to case and to the amount of white space."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def text_key(text: str) -> bytes:
    """16 bytes that equal texts, after `normalise`, have in common."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=16).digest()


def _judge(
    inputs: list[Path], key: str, asked: Profile, edition: Edition, report: Report | None, n: int | None
) -> list[str]:
    """Names of the files of verdicts, one per shard of documents, in their order."""
    names = [f"verdicts/{path.stem}-{key}.parquet" for path in inputs]
    fresh = [i for i, name in enumerate(names) if not edition.reusable(name)]
    sizes = [tally_of(inputs[i]).bytes for i in fresh]
    done = 0
    for i, _ in each(judge, [(inputs[i], asked, edition.place(names[i])) for i in fresh], sizes, n):
        done += sizes[i]
        if report:
            report(done, sum(sizes), f"rules {inputs[fresh[i]].stem}")
    return names


def judge(shard: Path, asked: Profile, path: Path) -> None:
    """Ask the rules about every document of a shard, many at once. Runs in a process of its own."""
    judges = asked.judges()
    writer = ShardWriter(path, VERDICTS)
    with parquet.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=["id", "text", "url", "language"]):
            columns = batch.to_pydict()
            reasons = judges.reasons(columns["text"], columns["language"])
            for id_, text, place, reason in zip(columns["id"], columns["text"], columns["url"], reasons, strict=True):
                key = None if reason else text_key(text)
                size = len(text.encode())
                writer.add({"id": id_, "place": place, "reason": reason, "key": key, "bytes": size}, 256)
    writer.close(Tally())


# ---------------------------------------------------------------- all together


def held_out(key: bytes, share: float) -> bool:
    """Whether the text with this key is kept from training: a fixed fate, whatever else is in the corpus."""
    return int.from_bytes(key[:8], "big") < share * 2**64


def _survivors(
    inputs: list[Path], verdicts: list[Path], fates: list[Fate], config: PrepareConfig, total: Tally
) -> Iterator[Kept]:
    """What stays of every shard; `total` is told of every document."""
    same = "key" if config.dedup.exact == "normalised" else "id"
    seen: set[bytes | str] = set()
    for shard, path, fate in zip(inputs, verdicts, fates, strict=True):
        flags = bytearray()
        for number, row in enumerate(rows(path)):
            reason = row["reason"] or (DUPLICATE if row[same] in seen else None)
            if not reason:
                seen.add(row[same])
                reason = REASONS[fate.reasons[number]] if fate.reasons else None
            if reason:
                total.drop(reason, row["bytes"], row["place"])
                flags.append(DROP)
                continue
            total.keep(row["bytes"])
            flags.append(HELD_OUT if held_out(row["key"], config.held_out.share) else TRAIN)
        yield Kept(shard, bytes(flags), fate.copies)


# ---------------------------------------------------------------- each shard alone again


def _write(kept: list[Kept], edition: Edition, report: Report | None, processes: int | None) -> list[tuple[int, str]]:
    """(part, name) of every file of the edition, once they are all there."""
    files = [(part, item.file(part)) for item in kept for part in PARTS if part in item.flags]
    fresh = [item for item in kept if any(f in item.flags and not edition.reusable(item.file(f)) for f in PARTS)]
    tasks = [(item, {part: edition.place(item.file(part)) for part in PARTS}) for item in fresh]
    sizes = [tally_of(item.shard).bytes for item in fresh]
    done = 0
    for i, _ in each(write_parts, tasks, sizes, processes):
        done += sizes[i]
        if report:
            report(done, sum(sizes), f"write {fresh[i].shard.stem}")
    return files


def write_parts(kept: Kept, paths: dict[int, Path]) -> None:
    """Copy what stays of a shard into its parts; a part of no documents gets no file."""
    open_parts = {part: (ShardWriter(path), Tally()) for part, path in paths.items() if part in kept.flags}
    # What is held out is measured once, however often it was said.
    times = kept.copies or bytes([1]) * len(kept.flags)
    for flag, copies, row in zip(kept.flags, times, rows(kept.shard), strict=True):
        if flag != DROP:
            writer, tally = open_parts[flag]
            size = len(row["text"].encode())
            for _ in range(copies if flag == TRAIN else 1):
                tally.keep(size)
                writer.add(row, size)
    for writer, tally in open_parts.values():
        writer.close(tally)


def _refuse(source: Source, config: HeldOut, train: Tally, held: Tally) -> None:
    if held.documents < config.min_documents:
        total = train.documents + held.documents
        # A quarter more than needed on average: which documents fall in is up to their hashes.
        share = 1.25 * config.min_documents / total if total else 1
        way = f"set prepare.held_out.share in params.yaml to {share:.2f}, or " if share < 0.3 else ""
        raise ConfigError(
            f"source {source.name!r}: {held.documents} of {total} clean documents are held out; "
            f"prepare.held_out.min_documents is {config.min_documents}\n"
            f"  {way}add text, cut long texts into documents, or lower min_documents (intervals then widen)"
        )
    if not train.documents or train.bytes < held.bytes:
        raise ConfigError(
            f"source {source.name!r} is smaller than its held-out part: {train.documents} documents ({train.bytes} "
            f"bytes) to train on, {held.documents} documents ({held.bytes} bytes) held out\n"
            f"  add text, or lower prepare.held_out.share in params.yaml"
        )
