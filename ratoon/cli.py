"""The command line: parses and calls.

Exit codes: 0 done, 1 failed, 2 asked for what cannot be done, 3 refused, 4 a person has to say.

With ratoon.cli_laws and ratoon.commands*, the one part of the package that reaches up to flows and tasks.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ratoon import (
    cli_bench,
    cli_corpus,
    cli_deploy,
    cli_keep,
    cli_laws,
    cli_promote,
    cli_services,
    commands,
    commands_arms,
    commands_history,
    commands_laws,
    commands_sync,
)
from ratoon.cli_laws import as_json
from ratoon.commands import DONE, FAILED, WRONG
from ratoon.config import Ask, ConfigError

FULL = ("No space left on device", "Disk quota exceeded", "database or disk is full")  # SQLite's words are the last
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
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)
    try:
        if asked.anywhere:
            return asked.call(asked, nearest_root(asked.root))
        root = find_root(asked.root)
        os.chdir(root)
        return asked.call(asked, root)
    except ConfigError as error:
        print(f"ratoon: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt as error:
        print("ratoon: stopped; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        return DONE
    except Exception as error:
        if os.environ.get("RATOON_TRACE"):
            raise
        said = full(error) or f"{type(error).__name__}: {error}\n  RATOON_TRACE=1 shows where"
        print(f"ratoon: {said}", file=sys.stderr)
        return FAILED
    finally:
        if before is signal.SIG_DFL and signal.getsignal(signal.SIGTERM) in (terminated, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, before)


class Terminated(KeyboardInterrupt):
    """A scheduler's Ctrl-C: what is under way ends as it would then, and says so."""


def terminated(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what ends now must not be torn away
    raise Terminated


def full(error: BaseException) -> str | None:
    """What to do where a disk had no room, whoever met it first; None: it was something else."""
    met: BaseException | None = error
    while met is not None and not any(words in str(met) for words in FULL):
        met = met.__cause__ or met.__context__
    if met is None:
        return None
    name = met.filename if isinstance(met, OSError) and isinstance(met.filename, str) else None
    places = {str(one): shutil.disk_usage(one).free for one in (Path.cwd(), Path(tempfile.gettempdir()))}
    left = ", ".join(f"{place}: {free / 2**20:,.0f} MiB free" for place, free in places.items())
    return (
        f"the disk is full{f', at {name}' if name else ''} ({left}); what was finished is kept\n"
        f"  `ratoon gc` says what can go; then the same command goes on from there"
    )


def find_root(given: Path | None) -> Path:
    """The project's folder: the one given, or the nearest above with a params.yaml."""
    if found := nearest_root(given):
        return found
    start = (given or Path.cwd()).resolve()
    raise ConfigError(
        f"{start}: no params.yaml here{'' if given else ' or above'}; go to a ratoon project, or pass --root"
    )


def nearest_root(given: Path | None) -> Path | None:
    """The same where a project is welcome and not needed."""
    start = (given or Path.cwd()).resolve()
    folders = [start] if given else [start, *start.parents]
    return next((folder for folder in folders if (folder / "params.yaml").exists()), None)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ratoon",
        description="Keep a language model current on your own text, and prove what was gained and what was lost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--root", type=Path, help="the project's folder (default: the nearest above with a params.yaml)")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=cli_laws.Command)

    def verb(name: str, call: Callable[[argparse.Namespace, Any], int], summary: str, more: str = "") -> Any:
        added = verbs.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{textwrap.dedent(more)}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(call=call, anywhere=False)
        return added

    asking(verb("refresh", commands.refresh, "prepare, sweep, train, assess, promote: the whole routine", REFRESH))
    prepare_verb = verb("prepare", commands.prepare, "bring the sources to their newest clean, packed edition", PREPARE)
    prepare_verb.add_argument(
        "step", nargs="?", choices=["ingest", "scorers", "score", "clean", "tokenizer", "pack"], metavar="STEP"
    )
    prepare_verb.add_argument("names", nargs="*", metavar="NAME")
    asking(prepare_verb)
    cli_corpus.corpus(verb("corpus", None, "ask what is in a corpus, and why", cli_corpus.CORPUS))  # type: ignore[arg-type]
    cli_bench.bench(verb("bench", None, "make, fetch and look at what models are asked", cli_bench.BENCH))  # type: ignore[arg-type]
    sweep_verb = verb("sweep", commands.sweep, "train small proxies over many ratios and choose one", SWEEP)
    sweep_verb.add_argument("--estimate", action="store_true", help="say what it would cost, and train nothing")
    sweep_verb.add_argument(
        "--suggest", action="store_true", help="say what published rules advise for rate and batch, and train nothing"
    )
    asking(sweep_verb)
    of_fit = "fit laws to a table of runs, yours or the last sweep's"
    cli_laws.fit(verb("fit", commands_laws.fit, of_fit, cli_laws.FIT))
    cli_laws.choose(verb("choose", commands_laws.choose, "choose the ratio from a table of runs", cli_laws.CHOOSE))
    train_verb = verb("train", commands.train, "continue the parent at the chosen ratio, or at --ratio", TRAIN)
    train_verb.add_argument("--show-schedule", action="store_true", help="draw the learning rate, and train nothing")
    train_verb.add_argument("--estimate", action="store_true", help="say what it would cost, and train nothing")
    train_verb.add_argument(
        "--out", type=absolute, metavar="FILE", help="with --show-schedule: write it there as an SVG"
    )
    asking(train_verb)
    asking(verb("assess", commands.part("assess"), "score the trained model against its parent, item by item", ASSESS))
    history_verb = verb("history", commands_history.history, "what a model line learned and forgot", HISTORY)
    history_verb.add_argument("--model", help="registered model (default: the one of params.yaml)")
    as_json(history_verb)
    asking(verb("drift", commands_history.drift, "has the newest text moved away from the champion?", DRIFT))
    arms_verb = verb("arms", commands_arms.arms, "hold the last refresh against cheaper ways to the same end", ARMS)
    arms_verb.add_argument("names", nargs="*", metavar="ARM", help="arms to measure (default: those of params.yaml)")
    arms_verb.add_argument("--estimate", action="store_true", help="say what they would cost, and measure nothing")
    asking(arms_verb, ("base", "budget"))
    of_judges = "which tasks are low-noise and monotone, and may gate"
    judges_verb = verb("judges", commands_arms.judges, of_judges, JUDGES)
    judges_verb.add_argument("--seeds", type=int, nargs="+", default=(), metavar="SEED", help="default: enough of them")
    asking(judges_verb, ("base", "budget"))
    report_verb = verb("report", commands.show_report, "write the page of the last refresh again, and say where it is")
    report_verb.add_argument(
        "--markdown", action="store_true", help="print the model card, with front matter for a hub"
    )
    report_verb.add_argument("--model", help="registered model (default: the one of params.yaml)")
    as_json(report_verb)
    cli_promote.add(verb)
    cli_deploy.add(verb)
    cli_keep.add(verb)
    cli_services.add(verb)
    as_json(verb("sync", commands_sync.sync, "send what runs measured while MLflow was away", SYNC))
    return top


def absolute(text: str) -> Path:
    """As seen from where the command was given: the project's folder becomes the current one."""
    return Path(text).absolute()


SYNC = """\
    A run keeps in .ratoon/unsent what MLflow could not take; the next run sends it, and so does this.
    Twice is once."""
REFRESH = """\
    Ends with a verdict: promoted, refused and why, or a person is asked (`ratoon promote`). After a kill the
    same command goes on where it was; with nothing new it ends in seconds. Exit code 3: refused; 4: it asks."""
PREPARE = """\
    Alone: everything, through `dvc repro`. With a step, one stage of dvc.yaml:
      ratoon prepare ingest SOURCE     read its files into documents
      ratoon prepare scorers           train the scorers that are kept (prepare.scores)
      ratoon prepare score SOURCE      a number per document from each of prepare.scores
      ratoon prepare clean SOURCE      rules, duplicates, held-out part
      ratoon prepare tokenizer BASE    make or copy the base's tokenizer
      ratoon prepare pack BASE SOURCE  documents to rows of tokens"""
SWEEP = """\
    Leaves observations.csv and choice.json in the refresh's folder, and one MLflow run per proxy.
    --estimate needs the packed sources and the base; a few steps of each size are run, as many at once as proxies.
    --suggest needs params.yaml and the bases' declarations: Step Law and the Power scheduler, upper bounds here."""

TRAIN = """\
    --show-schedule needs params.yaml and the base's declaration, no data: it draws train.schedule over the run's
    updates, and says whether a sweep can branch its run lengths off one trunk.
    --estimate needs the packed sources and the base: operations, memory, time, money and disk, from a few steps run
    here. With limits in train.budget, a run that would pass them is not begun."""

ASSESS = """\
    Moves no alias and registers nothing. Exit code 3: refused; 4: it asks."""

HISTORY = """\
    Bits per byte of every model of the line on the held-out text that each refresh brought, and what
    follows from it.
    docs/forgetting.md says how to read it."""

DRIFT = """\
    Brings the sources up to date and scores the champion on the newest and on older held-out text; trains nothing.
    Exit code 5: it drifted, a refresh is due; 0: it did not."""


ARMS = """\
    few_shot     the parent, shown passages of training text drawn by hash
    retrieved    the parent, shown passages that BM25 finds by the text so far
    scratch      random weights, trained as the candidate was
    domain_only  the parent, trained on domain text alone
    replay_only  the parent, trained on general text alone
    second_seed  the candidate once more, on the same text in another order
    Same items, paired differences, costs. Neither the candidate nor the registry is touched; a killed one goes on."""


JUDGES = """\
    Trains the last refresh's candidate again under other seeds, scores every checkpoint of each, and says of every
    task whether it tells models apart by more than a run scatters, and goes one way. As many seeds as
    assess.trajectory.quality.min_runs asks for, unless --seeds names them. What is there is not made again."""


def asking(verb: argparse.ArgumentParser, names: Sequence[str] = tuple(Ask.model_fields)) -> None:
    """The fields of Ask as options: one home for their names and help. Those not among `names` are not asked."""
    verb.set_defaults(**dict.fromkeys(Ask.model_fields))
    for name in names:
        field = Ask.model_fields[name]
        option, said = f"--{name}", (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            verb.add_argument(option, action="store_true", help=said)
        else:
            verb.add_argument(option, default=None, metavar=name.upper(), help=said)
    as_json(verb)


if __name__ == "__main__":
    sys.exit(main())
