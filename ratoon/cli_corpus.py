"""The part of the command line that asks about corpora: `ratoon corpus QUESTION`."""

import argparse
from typing import Any

from ratoon import commands_corpus
from ratoon.cli_laws import as_json

CORPUS = """\
    show      what is in it, and what was dropped on the way
    stats     lengths, languages, licences, years, places, what sources share
    sample    documents to look at: some kept, some of every reason to drop
    why       what became of a document: by id, place, or words of its text
    diff      what this edition has that an earlier one had not"""


def corpus(verb: Any) -> None:
    questions = verb.add_subparsers(title="questions", metavar="QUESTION", required=True)

    def question(name: str, call: Any, summary: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = questions.add_parser(name, help=summary, description=f"{summary}.")
        added.set_defaults(call=call, anywhere=False)
        return added

    show = question("show", commands_corpus.show, "what is in a source, and what was dropped on the way")
    stats = question("stats", commands_corpus.stats, "lengths, languages, licences, years, places, overlap")
    sample = question("sample", commands_corpus.sample, "documents to look at, kept and dropped")
    sample.add_argument("--reason", help="only what this dropped, or `kept` (default: every one)")
    sample.add_argument("-n", "--number", type=int, default=20, help="documents of each (default 20)")
    sample.add_argument("--seed", type=int, default=0, help="another sample (default 0)")
    why = question("why", commands_corpus.why, "what became of a document, and why")
    why.add_argument("document", help="an id or its beginning, a part of its place, or words of its text")
    diff = question("diff", commands_corpus.diff, "what this edition has that an earlier one had not")
    diff.add_argument(
        "--against", metavar="EDITION", help="a folder or a DVC hash (default: the last refresh's that was another)"
    )
    for one in (show, stats, sample, diff):
        one.add_argument("source", nargs="?", help="a declared source (default: all of params.yaml)")
    why.add_argument("--source", help="a declared source (default: all of params.yaml)")
    for one in (show, stats, sample, why, diff):
        as_json(one)
