"""The part of the command line that asks tables of runs: `ratoon fit`, `ratoon choose` and its questions."""

import argparse
import difflib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratoon import commands_choose

FIT = """\
    RUNS is a CSV or Parquet table with a row per run: parameters N, tokens D, the domain's share and the losses of
    general and domain text, in nats per token. Columns with telling names are found; --columns names the others:
      ratoon fit runs.csv --columns general=loss_web,domain=loss_code,D=tokens_b*1e9
      ratoon fit runs.csv --law dcpt --target N=1.8e9,D=10e9 --tolerance 3% --parent general=2.86,domain=1.84
      ratoon fit runs.csv --law chinchilla --columns loss=eval_loss --out fitted
    A law that does not exist is answered with those that do."""
CHOOSE = """\
    Reads the same tables as `ratoon fit`, and answers with the domain share alone:
      ratoon choose runs.csv --target N=1.8e9,D=10e9 --tolerance 3% --parent general=2.86,domain=1.84
      ratoon choose runs.csv --goal weighted --weight 0.3
    Other questions, each with --help of its own:"""
SCARCE = """\
    The more of a share, the sooner the text runs out: share and length of the run are chosen together. Repeats are
    discounted (arXiv:2305.16264), and text is read at most choose.domain_epochs times (--set domain_epochs=4). D of
    --target is the longest the run may be; without it, as long as the laws may be asked about.
      ratoon choose scarce runs.csv --domain-tokens 20M --tolerance 3%"""
ALLOCATE = """\
    Wants runs of two sizes, better three. Compute is 6 N D; a domain share is given, and what is split is the rest.
      ratoon choose allocate runs.csv --flops 1e21 --share 0.3"""
RATE = """\
    Wants runs of one size and length at three or more shares crossed with three or more peak learning rates, the
    column lr. Surfaces are quadratic (arXiv:2409.06624) and speak of the box that was swept only.
      ratoon choose rate runs.csv --columns lr=peak_lr --tolerance 3%"""
STAGE = """\
    By the law of learning dynamics (arXiv:2505.07796). A row is a checkpoint: its share of domain text, its losses,
    the sums S1cpt and S2cpt of this stage's learning rates, S1pt and S2pt of its parent's. The page
    docs/choosing-the-ratio.md makes them of a schedule. Every combination of what is listed is looked at.
      ratoon choose stage checkpoints.csv --peaks 1e-5,3e-5,1e-4 --steps 1000,4000 --tolerance 2%"""
MIXTURE = """\
    Wants runs of one size and length that differ in their mixture, the columns of h, and a loss or several. Laws,
    a Gaussian process, trees and their stack are compared on runs they have not seen; --law names one instead.
      ratoon choose mixture runs.csv --columns 'h=mix_*,loss=loss_*' --maximum mix_code=0.5
      ratoon choose mixture runs.csv --columns 'h=shares(mix_*),loss=loss_*' --unique mix_books=3B --target D=25B
      ratoon choose mixture runs.csv --columns 'h=mix_*,loss=loss_*' --weights loss_code=1 --ceilings loss_web=2.9"""
TRANSFER = """\
    RUNS has the runs of three swept domains or more (N, D, the domain's share or its own r, its loss), --probes the
    losses over the first percent of one run of every domain, all alike; `evaluated` is the column of their names.
    Rows of the new domain in RUNS are read as short runs of its own, and move its level.
      ratoon choose transfer runs.csv --probes probes.csv --new law --columns evaluated=corpus,domain=loss"""


class Command(argparse.ArgumentParser):
    """A command that is also the head of others: `choose RUNS`, `choose scarce RUNS`. A file of such a name is
    `./scarce`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.questions: dict[str, Command] = {}

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        if args and args[0] in self.questions:
            return self.questions[args[0]].parse_known_args(args[1:], namespace)
        if args and not Path(args[0]).exists() and (near := difflib.get_close_matches(args[0], self.questions, n=1)):
            self.error(f"no table and no question {args[0]!r}; did you mean {near[0]!r}?")
        return super().parse_known_args(args, namespace)

    def question(self, name: str, call: Any, summary: str, more: str) -> "Command":
        found = Command(
            prog=f"{self.prog} {name}",
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{textwrap.dedent(more)}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        found.set_defaults(call=call, anywhere=True)
        self.questions[name] = found
        self.description = f"{self.description}\n  {name:<12}{summary}"
        return found


ROLES = ("general", "domain")
DECIDING = ("law", "target", "tolerance", "goal", "weight", "parent", "domain_tokens", "set", "extrapolate")
OPTIONS: dict[str, dict[str, Any]] = {
    "experiment": {"metavar": "NAME", "help": "finished runs of this MLflow experiment as the table"},
    "columns": {"metavar": "N=COLUMN,...", "help": "what is in which column, or an expression over columns"},
    "law": {"help": "the law to believe, or auto, or combined (default: choose.law)"},
    "target": {"metavar": "N=...,D=...", "help": "the run asked about (default: the largest of the table)"},
    "tolerance": {"help": "how far general loss may rise, 0.02 or 2%% (default: params.yaml)"},
    "goal": {
        "choices": ("ceiling", "weighted"),
        "help": "least domain loss under the ceiling, or the least sum of both",
    },
    "weight": {"help": "of general loss in the weighted goal, 0..1; domain loss has the rest (default 0.5)"},
    "domain_tokens": {
        "metavar": "COUNT",
        "help": "domain text there is, in tokens: 20M; it is read domain_epochs times",
    },
    "set": {
        "metavar": "NAME=VALUE,...",
        "help": "other settings of params.yaml's choose: confidence=0.95,form_doubt=0",
    },
    "extrapolate": {"action": "store_true", "help": "answer for targets far beyond the runs too"},
}


def fit(verb: Command) -> None:
    of_runs(verb, *DECIDING)
    verb.add_argument("--out", type=Path, metavar="DIR", help="write laws.html, figures/*.svg and result.json there")


def choose(verb: Command) -> None:
    """The share, and the other questions."""
    of_runs(verb, *DECIDING)
    scarce(verb.question("scarce", commands_choose.scarce, "domain text that runs out: share and run length", SCARCE))
    allocate(
        verb.question("allocate", commands_choose.allocate, "compute: how large a model, how many tokens", ALLOCATE)
    )
    rate = verb.question("rate", commands_choose.rate, "share and peak learning rate, from a sweep of both", RATE)
    of_runs(rate, "target", "tolerance", "goal", "weight", "parent", "set", "extrapolate")
    stage(verb.question("stage", commands_choose.stage, "schedule, peak rate, steps and share together", STAGE))
    mixture(verb.question("mixture", commands_choose.mixture, "the shares of many domains at once", MIXTURE))
    transfer(verb.question("transfer", commands_choose.transfer, "a domain nobody has swept, from a probe", TRANSFER))


def scarce(verb: Command) -> None:
    of_runs(verb, "law", "target", "tolerance", "parent", "set", "extrapolate")
    verb.add_argument("--domain-tokens", required=True, metavar="COUNT", help="unique domain text there is: 20M")
    verb.add_argument("--no-ceiling", action="store_true", help="general loss may rise as it likes")


def allocate(verb: Command) -> None:
    of_runs(verb, "set", "extrapolate")
    verb.add_argument("--flops", required=True, metavar="COUNT", help="compute of the run: 1e21")
    verb.add_argument("--share", required=True, help="domain share of the run, 0.3 or 30%%")
    verb.add_argument("--loss", choices=ROLES, default="domain", help="whose loss is made small (default: domain)")


def stage(verb: Command) -> None:
    of_runs(verb, "target", "tolerance", "goal", "weight", "parent", "set", "extrapolate")
    verb.add_argument("--peaks", required=True, metavar="RATE,...", help="peak learning rates to look at")
    verb.add_argument("--steps", required=True, metavar="COUNT,...", help="lengths to look at")
    known = "constant,cosine,wsd"
    verb.add_argument("--schedules", default=known, metavar="NAME,...", help=f"those to look at (default {known})")
    verb.add_argument("--warmup", type=int, default=0, metavar="STEPS", help="steps of warm-up in each (default 0)")


def mixture(verb: Command) -> None:
    of_runs(verb, "target", "set")
    verb.add_argument(
        "--law", metavar="REGRESSOR", help="believe this one: loglinear, additive, gaussian, trees, stack"
    )
    verb.add_argument("--minimum", metavar="DOMAIN=SHARE,...", help="least shares")
    verb.add_argument("--maximum", metavar="DOMAIN=SHARE,...", help="largest shares")
    verb.add_argument("--unique", metavar="DOMAIN=TOKENS,...", help="text there is, read at most --epochs times in D")
    verb.add_argument("--epochs", type=float, metavar="TIMES", help="times a text may be read (default 4)")
    verb.add_argument("--weights", metavar="LOSS=WEIGHT,...", help="of the losses in the goal (default: all the same)")
    verb.add_argument("--ceilings", metavar="LOSS=NATS,...", help="losses that must stay under these")
    verb.add_argument("--reference", metavar="DOMAIN=SHARE,...", help="a mixture that is trusted, for --pull")
    verb.add_argument("--pull", type=float, default=0.0, metavar="NATS", help="towards it, times KL (Olmix: 0.05)")


def transfer(verb: Command) -> None:
    verb.set_defaults(**dict.fromkeys(DECIDING))
    verb.add_argument("runs", type=Path, metavar="RUNS", help="runs of the swept domains")
    verb.add_argument(
        "--probes", required=True, type=Path, metavar="FILE", help="every domain's first percent of a run"
    )
    verb.add_argument("--new", required=True, metavar="NAME", help="the domain asked about, as its probe names it")
    for name in ("columns", "target", "extrapolate"):
        option(verb, name)
    as_json(verb)


def of_runs(verb: argparse.ArgumentParser, *options: str) -> None:
    """A table of runs and what is asked of it. Done without a project as well as in one."""
    verb.set_defaults(anywhere=True, **dict.fromkeys(DECIDING), parent_general=None, parent_domain=None)
    verb.add_argument("runs", nargs="?", type=Path, metavar="RUNS", help="table of runs (default: the last sweep's)")
    for name in ("experiment", "columns", *options):
        option(verb, name)
    as_json(verb)


def option(verb: argparse.ArgumentParser, name: str) -> None:
    if name != "parent":
        verb.add_argument(f"--{name.replace('_', '-')}", **OPTIONS[name])
        return
    note = "the parent's held-out losses, nats per token (default: the rows with 0 tokens)"
    verb.add_argument("--parent", metavar="general=...,domain=...", help=note)
    for role in ROLES:
        verb.add_argument(f"--parent-{role}", type=float, metavar="NATS", help="one of the two")


def as_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="one JSON document on standard output")
