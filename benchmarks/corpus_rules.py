"""Rules over documents, beside datatrove's filters on the same documents: decisions first, then documents per second.

    OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python benchmarks/corpus_rules.py --peer-python PEERS/bin/python

PEERS is an environment of its own with datatrove==0.10.1, spacy and "xxhash<4". Documents are the embedded sources
(`ratoon prepare ingest python-docs` and python-code) and the odd texts of tests/corpus/odd_texts.py.

Agreement: each set of rules and each of the peer's filters alone, every document. Speed: the peer's own order, where a
dropped text is spared the filters after it, in rounds of the same documents, the peer and we in turn; the median of
the ratios of the rounds counts. Seconds are of processor time, all threads together: what one core does.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import polars as pl

from ratoon.corpus.edition import shards
from ratoon.corpus.rules import build, reasons

ROOT = Path(__file__).parents[1]

SETS: dict[str, dict[str, Any]] = {
    "gopher_repetition": {
        "gopher_duplicate_paragraphs": 0.3,
        "gopher_duplicate_paragraph_chars": 0.2,
        "gopher_duplicate_lines": 0.3,
        "gopher_duplicate_line_chars": 0.2,
        "gopher_top_ngrams": [0.2, 0.18, 0.16],
        "gopher_duplicate_ngrams": [0.15, 0.14, 0.13, 0.12, 0.11, 0.1],
    },
    "gopher_quality": {
        "gopher_words": [50, 100_000],
        "gopher_word_length": [3, 10],
        "gopher_hashes": 0.1,
        "gopher_ellipses": 0.1,
        "gopher_bullets": 0.9,
        "gopher_ellipsis_lines": 0.3,
        "gopher_alphabetic": 0.8,
        "gopher_stop_words": 2,
    },
    "fineweb": {
        "fineweb_ended_lines": 0.12,
        "fineweb_short_lines": 0.67,
        "fineweb_duplicate_chars": 0.01,
        "fineweb_newlines": 0.3,
    },
    "c4": {"c4": 5},
    "c4_ended": {"c4_ended": 5},
    "c4_paragraphs": {"c4_paragraphs": 3},
}
TIMED = ["gopher_repetition", "gopher_quality", "fineweb"]
EACH = 300  # documents a round
PROSE_BYTES = 1000  # shorter ones are labels and signatures rather than prose


class Peer:
    """A process of the peer's interpreter that answers until it is closed."""

    def __init__(self, python: str) -> None:
        script = str(Path(__file__).with_name("corpus_rules_peer.py"))
        environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, texts: list[str], filters: list[str], pipeline: bool) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"texts": texts, "filters": filters, "pipeline": pipeline}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def embedded(documents: Path, source: str, every: int) -> pl.Series:
    frames = [pl.read_parquet(path, columns=["text"]) for path in shards(documents / source)]
    return pl.concat(frames)["text"].gather_every(every)


def agree(name: str, texts: pl.Series, peer: Peer, examples: int) -> None:
    """One line per set: share of documents both keep or both drop, and what the others were dropped for."""
    theirs = peer.ask(texts.to_list(), list(SETS), pipeline=False)["decisions"]
    rows = [(label, reasons(texts, build(rules, label)), column) for column, (label, rules) in enumerate(SETS.items())]
    together = [reasons(texts, build({k: v for s in TIMED for k, v in SETS[s].items()}, "all"))]
    print(f"\n{name}: {len(texts):,} documents, {texts.str.len_bytes().mean():,.0f} bytes each")
    for label, ours, column in rows:
        show(label, texts, ours, [row[column] for row in theirs], examples)
    show("the three together", texts, together[0], [next((r for r in row[:3] if r), None) for row in theirs], examples)


def show(label: str, texts: pl.Series, ours: list[str | None], theirs: list[str | None], examples: int) -> None:
    differ = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if (a is None) != (b is None)]
    kept = sum(reason is None for reason in ours), sum(reason is None for reason in theirs)
    print(f"  {label:20} agree {1 - len(differ) / len(ours):.2%}, kept {kept[0]} here, {kept[1]} there")
    for (a, b), count in Counter((ours[i], theirs[i]) for i in differ).most_common():
        print(f"      {count:4}  here {a or 'kept'}, there {b or 'kept'}")
    for i in differ[:examples]:
        print(f"          {texts[i][:300]!r}")


def race(texts: pl.Series, peer: Peer, rounds: int, pipeline: bool) -> None:
    rules = build({name: value for label in TIMED for name, value in SETS[label].items()}, "timed")
    each = len(texts) // rounds
    ratios, ours, theirs = [], [], []
    reasons(texts[:each], rules)
    for i in range(rounds):
        part = texts[i * each : (i + 1) * each]
        theirs.append(peer.ask(part.to_list(), TIMED, pipeline)["seconds"] / each)
        begun = time.process_time()
        reasons(part, rules)
        ours.append((time.process_time() - begun) / each)
        ratios.append(theirs[-1] / ours[-1])
    print(
        f"  {'dropped texts spared' if pipeline else 'every filter asked'}: {1 / median(ours):,.0f} documents/s here, "
        f"{1 / median(theirs):,.0f} there, {median(ratios):.1f}x (rounds {min(ratios):.1f} to {max(ratios):.1f})"
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--peer-python", required=True)
    asked.add_argument("--documents", type=Path, default=ROOT / "data" / "documents")
    asked.add_argument("--every", type=int, default=5, help="compare decisions on every n-th document")
    asked.add_argument("--rounds", type=int, default=9)
    asked.add_argument("--examples", type=int, default=0, help="texts shown of each disagreement")
    asked.add_argument("--only", choices=["agreement", "speed"])
    given = asked.parse_args()
    peer = Peer(given.peer_python)
    prose = embedded(given.documents, "python-docs", 1)
    if given.only != "speed":
        agree("prose", prose.gather_every(given.every), peer, given.examples)
        agree("code", embedded(given.documents, "python-code", given.every), peer, given.examples)
        sys.path.insert(0, str(ROOT / "tests" / "corpus"))
        odd = importlib.import_module("odd_texts").ODD
        agree("odd texts", pl.Series(list(odd.values())), peer, given.examples)
    if given.only != "agreement":
        long = prose.filter(prose.str.len_bytes() >= PROSE_BYTES)
        long = long.gather_every(max(len(long) // (EACH * given.rounds), 1)).head(EACH * given.rounds)
        print(f"\nspeed: {len(long)} documents of English prose, {long.str.len_bytes().mean():,.0f} bytes each")
        race(long, peer, given.rounds, pipeline=True)
        race(long, peer, given.rounds, pipeline=False)
    peer.close()


if __name__ == "__main__":
    main()
