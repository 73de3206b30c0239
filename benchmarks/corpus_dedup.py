"""How fast near-duplicates are found, beside datatrove and datasketch on the same documents, and how surely.

    python3.11 -m venv peers && peers/bin/pip install 'datatrove[io]==0.10.1' datasketch==2.0.0 'xxhash<4' spacy orjson
    OMP_NUM_THREADS=1 python benchmarks/corpus_dedup.py --peers peers/bin/python [--documents 100000]

Documents: text files of the installed packages (Python source with its docstrings, reST, Markdown), cut at line ends
into about 2,000 characters. All sides: word 5-grams, 14 bands of 8 rows, one process; from text in memory or JSON
lines to which documents survive. Peers run on `--peer-documents` of them, by default all; ours runs before and after
every peer, and the medians of documents per second are compared.

datatrove   its four stages without the last (signatures, buckets, clusters), one task each, default word tokenizer and
            normalisation, except that numbers are not made equal
datasketch  MinHash(112).update_batch of the distinct 5-grams of text.lower().split(), then insert and query of
            MinHashLSH(params=(14, 8)): the splitting is the cheapest there is

Certainty: near-duplicates planted by replacing words at random until the Jaccard similarity of the 5-gram sets is
0.85; and controls with the words of a document shuffled, which share its words and length but not its 5-grams.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CHARACTERS = 2000
SUFFIXES = {".py", ".rst", ".md", ".txt"}
PLANTED = 5000


def documents(count: int) -> list[str]:
    """The first `count` cuts, files in the order of their names."""
    found: list[str] = []
    for text in _files(Path(sysconfig.get_paths()["purelib"])):
        part: list[str] = []
        size = 0
        for line in text.splitlines(keepends=True):
            part.append(line)
            size += len(line)
            if size >= CHARACTERS:
                found.append("".join(part))
                part, size = [], 0
        if len(found) >= count:
            return found[:count]
    raise SystemExit(f"the installed packages make {len(found)} documents; ask for no more with --documents")


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            try:
                yield path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


# ---------------------------------------------------------------- three sides


def ours(path: Path) -> dict[str, float]:
    import pyarrow as pa

    import ratoon.corpus.dedup.bands  # noqa: F401, loaded here so as not to be timed
    from ratoon.corpus.dedup.signatures import signatures

    texts = pa.array(json.loads(line)["text"] for line in path.open())
    begun = time.perf_counter()
    made = signatures(texts)
    signed = time.perf_counter()
    survivor = _clusters(made)
    seconds = time.perf_counter() - begun
    kept = int((survivor == range(len(survivor))).sum())
    return {"documents": len(texts), "signatures": signed - begun, "seconds": seconds, "kept": kept}


def _clusters(made):  # type: ignore[no-untyped-def]
    """The survivor of every document's cluster, by signatures alone."""
    import numpy as np

    from ratoon.corpus.dedup.bands import Forest, Spill, band_hashes, pairs, partition
    from ratoon.corpus.dedup.signatures import EMPTY

    ranks = np.ones(len(made), np.int32)
    forest = Forest(ranks)
    numbers = np.flatnonzero(made[:, 0] != EMPTY)
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Path(folder), 14 * len(made))
        spill.add(band_hashes(made[numbers], 14).reshape(-1), np.repeat(numbers, 14))
        for part in spill.close():
            forest.join(pairs(*partition(part), ranks))
    return forest.survivors()


def datasketch(path: Path) -> dict[str, float]:
    from datasketch import MinHash, MinHashLSH

    texts = [json.loads(line)["text"] for line in path.open()]
    begun = time.perf_counter()
    index = MinHashLSH(params=(14, 8), num_perm=112)
    empty = MinHash(112)
    kept, signed = 0, 0.0
    for number, text in enumerate(texts):
        start = time.perf_counter()
        words = text.lower().split()
        grams = {" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)}
        one = empty.copy()
        one.update_batch(grams)
        signed += time.perf_counter() - start
        if not grams or not index.query(one):
            kept += 1
        if grams:
            index.insert(number, one, check_duplication=False)
    return {"documents": len(texts), "signatures": signed, "seconds": time.perf_counter() - begun, "kept": kept}


def datatrove(path: Path) -> dict[str, float]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.text import TextNormConfig

    numbers_stay = TextNormConfig(norm_numbers=False)
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, norm_config=numbers_stay)
    count = sum(1 for _ in path.open())
    with tempfile.TemporaryDirectory() as folder:
        stages = [
            [JsonlReader(str(path.parent), glob_pattern=path.name), MinhashDedupSignature(f"{folder}/s", config)],
            [MinhashDedupBuckets(f"{folder}/s", f"{folder}/b", config=config)],
            [MinhashDedupCluster(f"{folder}/b", f"{folder}/r", config=config)],
        ]
        seconds = []
        for number, (stage, tasks) in enumerate(zip(stages, (1, 14, 1), strict=True)):
            begun = time.perf_counter()
            LocalPipelineExecutor(stage, tasks=tasks, workers=1, logging_dir=f"{folder}/l{number}").run()
            seconds.append(time.perf_counter() - begun)
        removed = sum(file.stat().st_size // 4 for file in Path(folder, "r").rglob("*.remove"))
    return {"documents": count, "signatures": seconds[0], "seconds": sum(seconds), "kept": count - removed}


SIDES = {"ours": ours, "datasketch": datasketch, "datatrove": datatrove}


def measure(side: str, python: str, path: Path) -> dict[str, float]:
    """In a process of its own, so that no side inherits another's memory."""
    said = subprocess.run([python, __file__, "--side", side, str(path)], capture_output=True, text=True)
    if said.returncode:
        raise SystemExit(said.stderr)
    return dict(json.loads(said.stdout.splitlines()[-1]))


# ---------------------------------------------------------------- certainty


def ngrams(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def plant(words: list[str], draw: random.Random) -> tuple[list[str], float]:
    """A copy with words replaced at random until the share of common 5-grams is as near 0.85 as it gets."""
    original, copy, similarity = ngrams(words), list(words), 1.0
    while True:
        before, was = list(copy), similarity
        copy[draw.randrange(len(copy))] = f"planted{len(words)}x{draw.getrandbits(30)}"
        changed = ngrams(copy)
        similarity = len(original & changed) / len(original | changed)
        if similarity <= 0.85:
            return (copy, similarity) if 0.85 - similarity < was - 0.85 else (before, was)


def certainty(texts: list[str]) -> None:
    import numpy as np
    import pyarrow as pa

    from ratoon.corpus.dedup.bands import band_hashes
    from ratoon.corpus.dedup.signatures import signatures

    draw = random.Random(0)
    split = [re.findall(r"[a-z0-9]+", text.lower()) for text in texts]
    long = [words for words in split if len(words) >= 100 and len(ngrams(words)) > 0.9 * len(words)]
    chosen = draw.sample(long, PLANTED)
    planted = [plant(words, draw) for words in chosen]
    shuffled = [draw.sample(words, len(words)) for words in chosen]

    def bands(each: list[list[str]]):  # type: ignore[no-untyped-def]
        return band_hashes(signatures(pa.array(" ".join(words) for words in each)), 14)

    originals = bands(chosen)
    recall = (originals == bands([copy for copy, _ in planted])).any(axis=1).mean()
    mean = statistics.fmean(similarity for _, similarity in planted)
    print(f"| planted near-duplicates, mean Jaccard {mean:.3f}: found | {recall:.4f} of {PLANTED} | at least 0.98 |")
    # Against every document, not its own original alone.
    known = np.unique(originals)
    merged = np.isin(bands(shuffled), known).any(axis=1).mean()
    print(f"| shuffled controls merged with any document | {merged:.2%} of {PLANTED} | below 0.1% |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of the environment with the peers; none: ours alone")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--peer-documents", type=int, help="of them, for the peers")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side[0]](Path(arguments.side[1]))))
        return
    texts = documents(arguments.documents)
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder, "whole.jsonl"), Path(folder, "part.jsonl")
        for path, count in ((whole, len(texts)), (part, arguments.peer_documents or len(texts))):
            path.write_text("".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(texts[:count])))
        told = {"ours": [measure("ours", sys.executable, whole)]}
        for peer in ("datasketch", "datatrove") if arguments.peers else ():
            told[peer] = [measure(peer, arguments.peers, part)]
            told["ours"].append(measure("ours", sys.executable, whole))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {megabytes:,.0f} MB\n")
    print("| side | documents | kept | seconds (signatures) | documents/s | ours |\n|---|---|---|---|---|---|")
    speed = {side: statistics.median(one["documents"] / one["seconds"] for one in each) for side, each in told.items()}
    for side, each in told.items():
        one = sorted(each, key=lambda said: said["seconds"])[len(each) // 2]
        print(
            f"| {side} | {one['documents']:,} | {one['kept']:,} | {one['seconds']:.1f} ({one['signatures']:.1f}) "
            f"| {speed[side]:,.0f} | {speed['ours'] / speed[side]:.1f}x |"
        )
    print("\n| certainty | measured | asked |\n|---|---|---|")
    certainty(texts)


if __name__ == "__main__":
    main()
