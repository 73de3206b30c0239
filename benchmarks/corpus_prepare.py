"""The whole prepare, from zstd JSON lines to packed rows: speed per core, where time goes, memory, a small addition.

    OMP_NUM_THREADS=1 python benchmarks/corpus_prepare.py [--size 200MB] [--workers 1] [--keep FOLDER]
                      [--stages ingest clean] [--profile STAGE]

Text: the documents of a source in data/documents (by default python-docs), again and again until `--size` is reached,
each time with every fifth word replaced at random (seeded), so that most are neither copies nor near-duplicates of one
another and rules see real text. Files are zstd JSON lines of 64 MB of text. Stages run as `dvc repro` runs them, each
in a process of its own, with prepare as params.yaml has it; the tokenizer is models/tokenizers/nano.

speed      bytes of text over processor time of all stages, so a busy machine does not count
share      what zstd takes to decompress the files and the tokenizer to encode the text that was kept, each alone and
           on one thread, in the processor time of the whole
memory     peak over all stages of the process tree: resident, and of that not backed by files (what cannot be dropped)
second     everything again once a file with 1% of new text lies beside the others
"""

import argparse
import cProfile
import json
import os
import pstats
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as parquet

from ratoon import config
from ratoon.config import Engine, Files, Source
from ratoon.corpus.clean import clean
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.pack import BATCH_BYTES, pack
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import load

HERE = Path(__file__).resolve().parent.parent
TOKENIZER = HERE / "models" / "tokenizers" / "nano"
FILE_BYTES = 64_000_000
REPLACED = 0.2  # of the words: a 5-gram of the original stays with probability 0.33
STAGES = ("ingest", "clean", "pack")
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


# ---------------------------------------------------------------- text


def texts(folder: Path, seed: int) -> Iterator[str]:
    """Endless: the documents of an edition, with other words replaced on every round."""
    found = [text for shard in shards(folder) for text in parquet.read_table(shard)["text"].to_pylist()]
    words = [text.split(" ") for text in found]
    flat = np.array([word for each in words for word in each], object)
    pool = np.array([word for word in flat if word.isalpha()], object)
    ends = np.cumsum([len(each) for each in words])
    for turn in range(1 << 30):
        random = np.random.default_rng([seed, turn])
        edited = flat.copy()
        at = np.flatnonzero(random.random(len(flat)) < REPLACED)
        edited[at] = pool[random.integers(len(pool), size=len(at))]
        for begin, end in zip((0, *ends[:-1]), ends, strict=True):
            yield " ".join(edited[begin:end])


def write(raw: Path, size: int, source: Path, seed: int) -> int:
    """Files of `size` bytes of text together; returns the number of documents."""
    raw.mkdir(parents=True, exist_ok=True)
    stream = texts(source, seed)
    left, number, count = size, 0, 0
    while left > 0:
        with pa.CompressedOutputStream(str(raw / f"{seed}-{number:04d}.jsonl.zst"), "zstd") as file:
            room = min(left, FILE_BYTES)
            left -= room
            while room > 0:
                text = next(stream)
                room -= len(text.encode())
                count += 1
                file.write(json.dumps({"text": text, "url": f"doc-{seed}-{count}"}).encode() + b"\n")
        number += 1
    return count


# ---------------------------------------------------------------- stages


def stage(name: str, root: Path, workers: int) -> None:
    """One stage, as `python -m ratoon prepare` runs it."""
    source = Source(name="bench", role="general", origins=(Files(path="raw"),))
    prepare = config.load(HERE).prepare
    engine: Any = Engine(workers=workers)
    documents, cleaned = root / "documents" / "bench", root / "clean" / "bench"
    if name == "ingest":
        ingest(source, root, documents, processes=engine, asked=prepare.amend.get(source.kind))
    elif name == "clean":
        clean(source, prepare, documents, cleaned, processes=engine)
    else:
        pack(source, cleaned, TOKENIZER, config.base(HERE, "nano"), root / "rows" / "bench")


def measured(name: str, root: Path, workers: int) -> dict[str, float]:
    """Wall and processor seconds, and peak memory of the tree in MiB, of one stage in a process of its own."""
    command = [sys.executable, __file__, "--stage", name, "--keep", str(root), "--workers", str(workers)]
    begun = time.monotonic()
    environment = {**os.environ, "RAYON_NUM_THREADS": str(workers), "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    before = os.times()
    process = psutil.Popen(command, env=environment)
    peak = anonymous = 0.0
    while process.poll() is None:
        resident, own = memory(process)
        peak, anonymous = max(peak, resident), max(anonymous, own)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}")
    after = os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": time.monotonic() - begun, "cpu": busy, "resident": peak, "own": anonymous}


def memory(process: psutil.Process) -> tuple[float, float]:
    """MiB of a process and all below it: resident, and resident without pages of files."""
    resident = own = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            found = one.memory_info()
        except psutil.NoSuchProcess:
            continue
        resident += found.rss
        own += found.rss - found.shared
    return resident / 2**20, own / 2**20


# ---------------------------------------------------------------- what cannot be saved


def decompression(raw: Path) -> float:
    """Processor seconds to decompress all files."""
    begun = time.process_time()
    for path in sorted(raw.iterdir()):
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
            while file.read(1 << 20):
                pass
    return time.process_time() - begun


def tokenisation(cleaned: Path, most: int = 100_000_000) -> float:
    """Processor seconds to encode all that was kept, from `most` bytes of it."""
    encoder, _ = load(TOKENIZER)
    ledger = read_ledger(cleaned)
    size, seconds = 0, 0.0
    for shard in shards(cleaned, "train-"):
        for batch in parquet.ParquetFile(shard).iter_batches(batch_size=BATCH_BYTES >> 10, columns=["text"]):
            found = batch["text"].to_pylist()
            begun = time.process_time()
            encoder.encode_batch_fast(found, add_special_tokens=False)
            seconds += time.process_time() - begun
            size += sum(len(text.encode()) for text in found)
        if size > most:
            break
    return seconds * ledger.funnel.bytes_kept / size


# ---------------------------------------------------------------- the tables


def run(root: Path, stages: list[str], workers: int) -> dict[str, dict[str, float]]:
    return {name: measured(name, root, workers) for name in stages}


def total(found: dict[str, dict[str, float]], what: str) -> float:
    return sum(each[what] for each in found.values())


def report(root: Path, size: int, documents: int, first: dict[str, dict[str, float]]) -> None:
    funnel = read_ledger(root / "clean" / "bench").funnel
    busy = total(first, "cpu")
    print(f"\n{documents:,} documents, {size / 1e6:,.0f} MB of text; kept {funnel.documents_kept:,}, {funnel.dropped}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| stage | wall | processor | MB/s and core | peak resident | of that not files |\n|---|---|---|---|---|---|")
    for name, each in first.items():
        print(
            f"| {name} | {each['wall']:.1f} s | {each['cpu']:.1f} s | {size / each['cpu'] / 1e6:.1f} "
            f"| {each['resident']:,.0f} MiB | {each['own']:,.0f} MiB |"
        )
    print(f"| all | {total(first, 'wall'):.1f} s | {busy:.1f} s | {size / busy / 1e6:.2f} | | |")
    if tuple(first) != STAGES:
        return
    unpack, encode = decompression(root / "raw"), tokenisation(root / "clean" / "bench")
    print(
        f"\ndecompression {unpack:.1f} s and tokenisation {encode:.1f} s are {(unpack + encode) / busy:.0%} "
        f"of the processor time; the rest {size / (busy - unpack - encode) / 1e6:.1f} MB/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="200MB")
    parser.add_argument("--source", type=Path, default=HERE / "data" / "documents" / "python-docs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder to work in, kept; what is there is reused")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="without pack: no shares")
    parser.add_argument("--profile", choices=STAGES, help="show where one stage spends its time, and stop")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        stage(arguments.stage, arguments.keep, arguments.workers)
        return
    root = arguments.keep or Path(tempfile.mkdtemp())
    size = int(float(arguments.size[:-2]) * UNITS[arguments.size[-2:].upper()])
    try:
        if arguments.profile:
            profile = cProfile.Profile()
            profile.runcall(stage, arguments.profile, root, 1)
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)
            return
        documents = write(root / "raw", size, arguments.source, 0)
        report(root, size, documents, first := run(root, arguments.stages, arguments.workers))
        write(root / "raw", size // 100, arguments.source, 1)
        second = run(root, arguments.stages, arguments.workers)
        told = ", ".join(f"{name} {each['cpu']:.1f}" for name, each in second.items())
        print(
            f"\nsecond run with 1% new text: {total(second, 'wall'):.1f} s, {total(second, 'cpu'):.1f} s of processor "
            f"({told}): {total(second, 'cpu') / total(first, 'cpu'):.1%} of the first"
        )
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
