"""The part of the command line that makes and shows benchmarks: `ratoon bench QUESTION`."""

import argparse
from typing import Any

from ratoon import commands_bench
from ratoon.cli_laws import as_json
from ratoon.config.building import KINDS, BuildRecipe

BENCH = """\
    list      what is declared in data/benchmarks
    build     make one from held-out documents of a source, without a language model
    show      items as a model is asked them
    fetch     write the items of a task of lm-eval, from the cache of datasets or the hub"""
BUILD = """\
    ratoon bench build code-facts --source python-code
    ratoon bench build doc-facts --source python-docs --kinds number,name,definition --items 300
    Nothing that stands in the training part of a source is asked for. Built again from the same text it is the same;
    with other items its version is raised."""


def bench(verb: Any) -> None:
    questions = verb.add_subparsers(title="questions", metavar="QUESTION", required=True)

    def question(name: str, call: Any, summary: str, more: str = "") -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = questions.add_parser(
            name,
            help=summary,
            description=f"{summary}.\n\n{more}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(call=call, anywhere=False)
        return added

    every = question("list", commands_bench.show_all, "what is declared in data/benchmarks")
    build = question("build", commands_bench.build, "make a benchmark from held-out documents of a source", BUILD)
    build.add_argument("name", help="of the benchmark: data/benchmarks/NAME.yaml")
    build.add_argument("--source", required=True, help="a declared source, prepared")
    build.add_argument("--kinds", metavar="KIND,...", help=f"of {', '.join(KINDS)} (default: all)")
    for key in ("items", "choices", "least", "seed"):
        field = BuildRecipe.model_fields[key]
        said = f"{field.description} (default {field.default})" if field.description else f"default {field.default}"
        build.add_argument(f"--{key}", metavar="N", help=said)
    show = question("show", commands_bench.show, "items as a model is asked them")
    show.add_argument("name", help="a declared benchmark with items of its own")
    show.add_argument("-n", "--number", type=int, default=3, help="items of each kind (default 3)")
    show.add_argument("--seed", type=int, default=0, help="other items (default 0)")
    fetch = question("fetch", commands_bench.fetch, "write the items of a benchmark of kind lm_eval")
    fetch.add_argument("name", help="a declared benchmark of kind lm_eval")
    for one in (every, build, show, fetch):
        as_json(one)
