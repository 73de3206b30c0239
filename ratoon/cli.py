"""The command line: parses and calls. Exit codes: 0 done, 1 failed, 2 asked for what cannot be done, 3 refused.

With ratoon.commands, the one part of the package that reaches up to flows and tasks.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ratoon import commands
from ratoon.commands import DONE, FAILED, WRONG
from ratoon.config import Ask, ConfigError

EPILOG = """\
first steps:
  ratoon refresh                    the whole routine on the declared sources
  ratoon report                     where its page is
  ratoon up                         Prefect and MLflow pages on this machine
your own text: write data/sources/mine.yaml, name it in params.yaml (refresh.sources)
your own model: write models/bases/mine.yaml, then `ratoon refresh --base mine`
"""


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    try:
        root = find_root(asked.root)
        os.chdir(root)
        return asked.call(asked, root)
    except ConfigError as error:
        print(f"ratoon: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("ratoon: stopped; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return DONE
    except Exception as error:
        if os.environ.get("RATOON_TRACE"):
            raise
        print(f"ratoon: {type(error).__name__}: {error}\n  RATOON_TRACE=1 shows where", file=sys.stderr)
        return FAILED


def find_root(given: Path | None) -> Path:
    """The project's folder: the one given, or the nearest above with a params.yaml."""
    start = (given or Path.cwd()).resolve()
    for folder in [start] if given else [start, *start.parents]:
        if (folder / "params.yaml").exists():
            return folder
    raise ConfigError(
        f"{start}: no params.yaml here{'' if given else ' or above'}; go to a ratoon project, or pass --root"
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ratoon",
        description="Keep a language model current on your own text, and prove what was gained and what was lost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--root", type=Path, help="the project's folder (default: the nearest above with a params.yaml)")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, call: Callable[[argparse.Namespace, Path], int], summary: str, more: str = "") -> Any:
        added = verbs.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{textwrap.dedent(more)}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(call=call)
        return added

    asking(verb("refresh", commands.refresh, "prepare, sweep, train, assess, promote: the whole routine", REFRESH))
    prepare_verb = verb("prepare", commands.prepare, "bring the sources to their newest clean, packed edition", PREPARE)
    prepare_verb.add_argument("step", nargs="?", choices=["ingest", "clean", "tokenizer", "pack"], metavar="STEP")
    prepare_verb.add_argument("names", nargs="*", metavar="NAME")
    asking(prepare_verb)
    asking(verb("sweep", commands.part("sweep"), "train small proxies over many ratios and choose one", SWEEP))
    targeting(verb("fit", commands.fit, "fit the laws to a table of runs, yours or the last sweep's", FIT))
    choose_verb = verb("choose", commands.choose, "choose the ratio from a table of runs", FIT)
    targeting(choose_verb)
    choose_verb.add_argument("--tolerance", help="how far general loss may rise, 0.02 or 2%% (default: params.yaml)")
    for role in ("general", "domain"):
        note = f"the parent's held-out {role} loss, nats per token (default: its rows with 0 tokens in the table)"
        choose_verb.add_argument(f"--parent-{role}", type=float, metavar="NATS", help=note)
    asking(verb("train", commands.part("train"), "continue the parent at the chosen ratio, or at --ratio"))
    asking(verb("assess", commands.part("assess"), "score the trained model against its parent, item by item"))
    report_verb = verb("report", commands.show_report, "write the page of the last refresh again, and say where it is")
    report_verb.add_argument("--model", help="registered model (default: the one of params.yaml)")
    as_json(report_verb)
    rollback_verb = verb("rollback", commands.rollback, "make the former champion the champion again")
    rollback_verb.add_argument("--model", help="registered model (default: the one of params.yaml)")
    as_json(rollback_verb)
    up_verb = verb("up", commands.up, "start Prefect, MLflow and a worker on this machine, and open their pages to you")
    up_verb.add_argument("--prefect-port", type=int, default=4200, help="first port to try (default 4200)")
    up_verb.add_argument("--mlflow-port", type=int, default=5000, help="first port to try (default 5000)")
    verb("down", commands.down, "stop what `ratoon up` started")
    as_json(verb("status", commands.status, "what runs here, and which model is the champion"))
    logs_verb = verb("logs", commands.logs, "the end of a service's log")
    logs_verb.add_argument("service", choices=["prefect", "mlflow", "worker"])
    return top


REFRESH = """\
    Ends with a verdict: promoted, or refused and why. The same command after a kill goes on where it was;
    with nothing new it ends in seconds. Exit code 3: refused by the gate."""
PREPARE = """\
    Alone: everything, through `dvc repro`. With a step, one stage of dvc.yaml:
      ratoon prepare ingest SOURCE     read its files into documents
      ratoon prepare clean SOURCE      rules, duplicates, held-out part
      ratoon prepare tokenizer BASE    make or copy the base's tokenizer
      ratoon prepare pack BASE SOURCE  documents to rows of tokens"""
SWEEP = """\
    Leaves observations.csv and choice.json in the refresh's folder, and one MLflow run per proxy."""
FIT = """\
    RUNS is a CSV or Parquet table with the columns of observations.csv; at least run, params_non_embedding,
    tokens, share (of the domain, 0..1), evaluated, role (general or domain) and loss_nats.
      ratoon fit runs.csv --target N=1.8e9,D=10e9"""


def asking(verb: argparse.ArgumentParser) -> None:
    """The fields of Ask as options: one home for their names and help."""
    for name, field in Ask.model_fields.items():
        option, said = f"--{name}", (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            verb.add_argument(option, action="store_true", help=said)
        else:
            verb.add_argument(option, default=None, metavar=name.upper(), help=said)
    as_json(verb)


def targeting(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("runs", nargs="?", type=Path, metavar="RUNS", help="table of runs (default: the last sweep's)")
    verb.add_argument("--target", metavar="N=...,D=...", help="non-embedding parameters and tokens of the target run")
    as_json(verb)


def as_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="one JSON document on standard output")


if __name__ == "__main__":
    sys.exit(main())
