"""How fast items of benchmarks are found in a corpus, beside datatrove and lm-eval's Janitor, and how surely.

    python3.11 -m venv peers && peers/bin/pip install 'datatrove[io]==0.10.1' 'xxhash<4' spacy orjson
    OMP_NUM_THREADS=1 python benchmarks/corpus_decontaminate.py --peers peers/bin/python [--documents 40000]

Documents: those of corpus_dedup.py. Items: 8 to 80 words of a document in random order, so that no text holds them but
where they are planted: half of them, each in one document, on a line of its own. All sides: the same documents and
items, one process, from text in memory to which documents go; making the index is not timed. Peers run on the first
`--peer-documents`; ours runs on as many before and after each of them, and the medians are compared. The last run is
ours on all documents.

datatrove   NGramsDecontFilter, 12-grams, default word tokenizer and normalisation. Its indexer asks for lighteval, so
            the file of hashes is written here, as its filter reads it
Janitor     lm-eval's, in Python, 13-grams: what it cuts text out of counts as found

`found`: documents with a planted item that go. `others`: documents without one that go. Both peers drop at the first
n-gram in common, and know nothing of items shorter than their n-grams.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from corpus_dedup import documents

Material = dict[str, list[str]]


def items(texts: list[str], share: float) -> tuple[list[str], list[int]]:
    """(items, the documents that are given one each: the first of the items, in their order)."""
    draw = random.Random(0)
    made: list[str] = []
    step = max(1, round(1 / share))
    for number in range(step // 2, len(texts), max(1, step // 2)):
        words = [word for word in texts[number].split() if word.isalpha()]
        size = draw.choice([8, 12, 20, 40, 80])
        made.append(" ".join(draw.sample(words, size)) if len(words) >= size else "")
    made = [item for item in dict.fromkeys(made) if item]
    draw.shuffle(made)
    origins = list(range(0, len(texts), step))[: len(made) // 2]
    for item, number in zip(made, origins, strict=False):
        begin = texts[number].find("\n", len(texts[number]) // 2)
        texts[number] = f"{texts[number][:begin]}\n{item}\n{texts[number][begin:]}"
    return made, origins


# ---------------------------------------------------------------- three sides


def ours(material: Material) -> Callable[[], list[bool]]:
    import pyarrow as pa

    from ratoon.config import Decontaminate
    from ratoon.corpus.decontaminate import Decontaminator, Item, Target, build

    asked = tuple(Item(str(number), text) for number, text in enumerate(material["items"]))
    finder = Decontaminator(build([Target("items", asked, 0.5, 5)], Decontaminate()))
    column = pa.array(material["texts"], pa.large_string())
    return lambda: [reason is not None for reason in finder.reasons(column)]


def datatrove(material: Material) -> Callable[[], list[bool]]:
    import numpy as np
    from datatrove.data import Document
    from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text

    config = NGramsDecontConfig(n_grams=12)
    with tempfile.TemporaryDirectory() as folder:
        filter = NGramsDecontFilter(folder, config)
        hashes = {
            filter.hash_func(" ".join(gram))
            for item in material["items"]
            for gram in ngrams(filter.tokenizer.word_tokenize(simplify_text(item, config.norm_config)), config.n_grams)
        }
        np.array(sorted(hashes), config.hash_config.np_descr).tofile(Path(folder, "items.index.hashes"))
        filter.load_index_hashes()
    made = [Document(text=text, id=str(number)) for number, text in enumerate(material["texts"])]
    return lambda: [filter.filter(document) is not True for document in made]


def janitor(material: Material) -> Callable[[], list[bool]]:
    from lm_eval.decontamination.janitor import Janitor

    one = Janitor(ngram_n=13)
    for item in material["items"]:
        one.register_contaminant_python(item)
    return lambda: [one.clean_python(text) != [text] for text in material["texts"]]


SIDES = {"ours": ours, "datatrove": datatrove, "janitor": janitor}


def run(side: str, path: Path) -> dict[str, float]:
    material = json.loads(path.read_text())
    work = SIDES[side](material)
    begun = time.perf_counter()
    gone = work()
    seconds = time.perf_counter() - begun
    origins = [number for number in material["origins"] if number < len(gone)]
    found = sum(gone[number] for number in origins)
    return {"seconds": seconds, "found": found, "planted": len(origins), "others": sum(gone) - found}


def measure(side: str, python: str, path: Path) -> dict[str, float]:
    """In a process of its own."""
    said = subprocess.run([python, __file__, "--side", side, str(path)], capture_output=True, text=True)
    if said.returncode:
        raise SystemExit(said.stderr)
    return dict(json.loads(said.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of the environment with datatrove; none: it is left out")
    parser.add_argument("--documents", type=int, default=40_000)
    parser.add_argument("--peer-documents", type=int, default=4_000)
    parser.add_argument("--share", type=float, default=0.02, help="of documents that are given an item")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run(arguments.side[0], Path(arguments.side[1]))))
        return
    texts = documents(arguments.documents)
    asked, origins = items(texts, arguments.share)
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder, "whole.json"), Path(folder, "part.json")
        few = texts[: arguments.peer_documents]
        for path, chosen in ((whole, texts), (part, few)):
            path.write_text(json.dumps({"texts": chosen, "items": asked, "origins": origins}))
        told = {"ours": [measure("ours", sys.executable, part)]}
        for peer, python in (("datatrove", arguments.peers), ("janitor", sys.executable)):
            if python:
                told[peer] = [measure(peer, python, part)]
                told["ours"].append(measure("ours", sys.executable, part))
        last = measure("ours", sys.executable, whole)
    print(f"{len(asked):,} items, {len(origins):,} of them planted\n")
    print("| side | documents | documents/s | MB/s | ours | found | others |\n|---|---|---|---|---|---|---|")
    speed = {side: statistics.median(len(few) / one["seconds"] for one in each) for side, each in told.items()}
    rows = [(side, few, each[0], speed[side]) for side, each in told.items()]
    for side, chosen, one, rate in [*rows, ("ours, all", texts, last, len(texts) / last["seconds"])]:
        megabytes = sum(len(text.encode()) for text in chosen) / len(chosen) / 1e6
        print(
            f"| {side} | {len(chosen):,} | {rate:,.0f} | {rate * megabytes:.1f} | {speed['ours'] / rate:.0f}x "
            f"| {one['found']} of {one['planted']} | {one['others']} |"
        )


if __name__ == "__main__":
    main()
