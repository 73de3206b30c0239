"""Documents to a clean edition: what judges let pass, each text once, and the part held out from training.

Three passes. Each shard alone: rules and other judges (judges.py), and a key of the normalised text. All together: of
equal keys the first in shard order survives, and of near-duplicates the one that dedup/survivors.py says. Each shard
alone again: what is left is written, split by the key. The split depends on the text and nothing else, so a document
held out once is held out in every later edition, under whatever name it comes, and in every source with the same share.

Memory of the second pass: about 100 bytes per document, as much again for near-duplicates.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute

from ratoon.config import ConfigError, Engine, HeldOut, PrepareConfig, Source
from ratoon.corpus.decontaminate import report as contamination
from ratoon.corpus.decontaminate.judge import Clear
from ratoon.corpus.dedup.survivors import Decision, Fate, compared, decide
from ratoon.corpus.documents import ShardWriter, Tally, batches, tally_of
from ratoon.corpus.edition import Edition, digest, read_ledger, renew, shards
from ratoon.corpus.fates import DROP, HELD_OUT, TRAIN, Kept, part_of, settle
from ratoon.corpus.judge import COLUMNS, Court, Documents, Judge
from ratoon.corpus.judges import judges
from ratoon.corpus.scores.select import NOT_SELECTED
from ratoon.corpus.workers import Report, Seen, each
from ratoon.records import Ledger

# Raise it whenever the same documents and parameters would give another edition.
VERSION = 2
REASONS_TOLD = 5  # of those that dropped documents, in the letter of a source with too few
BATCH = 512  # documents the judges see at once, at most
VERDICTS = pa.schema(
    [("id", pa.string()), ("place", pa.string()), ("reason", pa.string()), ("key", pa.binary()), ("bytes", pa.int64())]
)


def clean(
    source: Source,
    config: PrepareConfig,
    documents: Path,
    out: Path,
    report: Report | None = None,
    processes: Engine | int | None = None,
    also: Sequence[Judge] = (),
    scores: Path | None = None,
) -> Ledger:
    """Bring `out` to the clean edition of `documents`, and return its ledger; unchanged shards are reused.

    Writes train-*.parquet and held_out-*.parquet (documents), verdicts/*.parquet (per document: the reason that
    dropped it, or its key, and what judges noted), fates/*.parquet (per document: its part, or why it is in none) and
    ledger.json; kept counts both parts. Near-duplicates add
    signatures/*.parquet, clusters/*.parquet and arrivals-*.parquet: what `out` held before came first and stays.
    Editions of sources with a higher priority lie beside `out`, under their names. `report` hears of bytes of
    documents. `also` are asked after all other judges; decontamination adds contamination.json. `scores`: the source's
    edition of scores, where prepare.select asks for some.

    Raises ConfigError, with the earlier edition untouched, for an unknown rule, or when the held-out part has
    fewer than `held_out.min_documents` documents or is larger than what is left to train on.
    """
    asked = (*judges(source, config), *also)
    inputs = shards(documents)
    key = digest(VERSION, *(each.content() for each in asked))
    above = held_against(source.name, config, out)
    if missing := [name for name, found in above.items() if not found]:
        raise ConfigError(
            f"params.yaml: prepare.dedup.across: {missing[0]!r} comes before {source.name!r} and has no clean edition "
            f"at {out.with_name(missing[0])}\n"
            f"  `ratoon prepare` makes the sources of refresh.sources and refresh.watch in that order; of another, or "
            f"stage by stage: ratoon prepare clean {missing[0]}"
        )
    with renew(out) as edition:
        judged = _judge(inputs, key, asked, edition, report, processes)
        verdicts = [edition.path(name) for name in judged]
        told = [contamination.write(edition, each.index, verdicts) for each in asked if isinstance(each, Clear)]
        found = Decision([Fate(b"", b"")] * len(inputs), [])
        if config.dedup.joint:
            against, share = [out.with_name(name) for name in above], config.held_out.share
            found = decide(inputs, verdicts, against, edition, config.dedup, share, report, processes)
        settled = settle(source, config, inputs, verdicts, found.fates, scores, edition)
        files = _write(settled.kept, edition, report, processes)
        for portion in settled.portions or [""]:
            inside = [item for item in files if not portion or item[1].startswith(f"{portion}/")]
            _refuse(source.name, portion, config.held_out, *_sums(edition, inside), settled.total)
        _, held = _sums(edition, files)
        ledger = Ledger(
            source=source.name,
            role=source.role,
            stage="clean",
            config=digest(
                read_ledger(documents).config,
                key,
                config.dedup.digest(),
                *(select.digest() for select in config.selects(source.name)),
                config.held_out.share,
                config.held_out.min_documents,
            ),
            funnel=settled.total.funnel(),
            shards=edition.hashes([*judged, *told, *found.files, *settled.files, *(name for _, name in files)]),
            held_out_documents=held.documents,
            held_out_bytes=held.bytes,
            examples=settled.total.examples,
            kept_by=settled.kept_by,
            portions=settled.portions,
            also_read=above,
        )
        return edition.publish(ledger)


def held_against(source: str, config: PrepareConfig, out: Path) -> dict[str, str]:
    """Each source of higher priority -> a name for what `out` must not repeat of it; '' where it has no edition."""
    return {name: compared(out.with_name(name)) for name in config.dedup.above(source)}


def _sums(edition: Edition, files: Iterable[tuple[int, str]]) -> tuple[Tally, Tally]:
    """(to train on, held out)."""
    found = {TRAIN: Tally(), HELD_OUT: Tally()}
    for number, name in files:
        found[int(part_of(number))].add(tally_of(edition.path(name)))
    return found[TRAIN], found[HELD_OUT]


# ---------------------------------------------------------------- each shard alone


def normalise(text: str) -> str:
    """What counts as the same text: composed form, without regard to case and to the amount of white space."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def text_key(text: str) -> bytes:
    """16 bytes that equal texts, after `normalise`, have in common."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=16).digest()


def _judge(
    inputs: list[Path],
    key: str,
    asked: Sequence[Judge],
    edition: Edition,
    report: Report | None,
    processes: Engine | int | None,
) -> list[str]:
    """Names of the files of verdicts, one per shard of documents, in their order."""
    names = [f"verdicts/{path.stem}-{key}.parquet" for path in inputs]
    fresh = [i for i, name in enumerate(names) if not edition.reusable(name)]
    sizes = [tally_of(inputs[i]).bytes for i in fresh]
    done = kept = dropped = 0
    for i, found in each(judge, [(inputs[i], asked, edition.place(names[i])) for i in fresh], sizes, processes):
        if report:
            done, kept, dropped = done + sizes[i], kept + found.kept, dropped + found.dropped
            report(done, sum(sizes), f"rules {inputs[fresh[i]].stem}", Seen(kept, dropped))
    return names


def judge(shard: Path, asked: Sequence[Judge], path: Path) -> Seen:
    """Ask the judges about every document of a shard, many at once. Runs in a process of its own."""
    kept = dropped = 0
    court = Court(asked)
    schema = pa.schema([*VERDICTS, *(field for judge in asked for field in judge.fields)])
    writer = ShardWriter(path, schema)
    for batch in batches(shard, list(COLUMNS), BATCH):
        found = court(Documents(batch))
        texts = batch.column("text")
        keys = [
            None if reason else text_key(text) for text, reason in zip(texts.to_pylist(), found.reasons, strict=True)
        ]
        columns = [
            batch.column("id"),
            batch.column("url"),
            pa.array(found.reasons, pa.string()),
            pa.array(keys, pa.binary()),
            compute.binary_length(texts).cast(pa.int64()),
            *(found.notes[name] for name in schema.names[len(VERDICTS) :]),
        ]
        kept, dropped = kept + batch.num_rows - columns[3].null_count, dropped + columns[3].null_count
        every = np.arange(batch.num_rows)
        writer.take(pa.RecordBatch.from_arrays(columns, names=schema.names), every, np.full_like(every, 256))
    writer.close(Tally())
    return Seen(kept, dropped)


# ---------------------------------------------------------------- all together


def held_out(key: bytes, share: float) -> bool:
    """Whether the text with this key is kept from training: a fixed fate, whatever else is in the corpus."""
    return int.from_bytes(key[:8], "big") < share * 2**64


# ---------------------------------------------------------------- each shard alone again


def _write(
    kept: list[Kept], edition: Edition, report: Report | None, processes: Engine | int | None
) -> list[tuple[int, str]]:
    """(number, name) of every file of the edition, once they are all there."""
    named = [{number: item.file(number, VERSION) for number in item.files} for item in kept]
    files = [(number, name) for names in named for number, name in names.items()]
    new = [i for i, names in enumerate(named) if not all(edition.reusable(name) for name in names.values())]
    fresh = [kept[i] for i in new]
    tasks = [(kept[i], {number: edition.place(name) for number, name in named[i].items()}) for i in new]
    sizes = [tally_of(item.shard).bytes for item in fresh]
    done = stay = gone = 0
    for i, _ in each(write_parts, tasks, sizes, processes):
        flags = fresh[i].flags
        done, stay, gone = done + sizes[i], stay + len(flags) - flags.count(DROP), gone + flags.count(DROP)
        if report:
            report(done, sum(sizes), f"write {fresh[i].shard.stem}", Seen(stay, gone))
    return files


def write_parts(kept: Kept, paths: dict[int, Path]) -> None:
    """Copy what stays of a shard into its files, by their numbers; a part of no documents gets no file."""
    open_files = {number: (ShardWriter(path), Tally()) for number, path in paths.items()}
    flags = np.frombuffer(kept.flags, np.uint8)
    copies = np.frombuffer(kept.copies, np.uint8) if kept.copies else np.ones_like(flags)
    # What is held out is measured once, however often it was said.
    times = np.where(part_of(flags) == TRAIN, copies, flags != DROP)
    begin = 0
    for batch in batches(kept.shard, most=4096):
        here = slice(begin, begin + batch.num_rows)
        begin += batch.num_rows
        sizes = compute.binary_length(batch.column("text")).to_numpy().astype(np.int64)
        for number, (writer, tally) in open_files.items():
            rows = np.flatnonzero(flags[here] == number)
            rows = np.repeat(rows, times[here][rows])
            tally.keep(int(sizes[rows].sum()), len(rows))
            writer.take(batch, rows, sizes[rows])
    assert begin == len(flags)
    for writer, tally in open_files.values():
        writer.close(tally)


def _refuse(source: str, portion: str, config: HeldOut, train: Tally, held: Tally, total: Tally) -> None:
    """`total`: of the whole source, for what became of the documents that are missing."""
    named = f"source {source!r}" + (f", portion {portion!r}" if portion else "")
    also = "\n  or take that language from split.languages (portion `other`: split.rest: drop)" if portion else ""
    gone = ", ".join(f"{count} {reason}" for reason, count in total.dropped.most_common(REASONS_TOLD))
    lost = f"  of {total.documents + total.dropped.total()} documents: {gone}\n" if gone else ""
    if held.documents < config.min_documents:
        clean = train.documents + held.documents
        # A quarter more than needed on average: which documents fall in is up to their hashes.
        share = 1.25 * config.min_documents / clean if clean else 1
        way = f"set prepare.held_out.share in params.yaml to {share:.2f}, or " if share < 0.3 else ""
        raise ConfigError(
            f"{named}: {held.documents} of {clean} clean documents are held out; "
            f"prepare.held_out.min_documents is {config.min_documents}\n"
            f"{lost}  {way}add text, cut long texts into documents, or lower min_documents (intervals then widen){also}"
        )
    if not train.documents or train.bytes < held.bytes:
        way = "keep more of it by prepare.select in params.yaml, " if total.dropped[NOT_SELECTED] else ""
        raise ConfigError(
            f"{named} is smaller than its held-out part: {train.documents} documents ({train.bytes} "
            f"bytes) to train on, {held.documents} documents ({held.bytes} bytes) held out\n"
            f"{lost}  {way}add text, or lower prepare.held_out.share in params.yaml{also}"
        )
