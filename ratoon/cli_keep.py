"""The part of the command line that keeps: `ratoon restore`, `ratoon gc`, `ratoon backup`, `ratoon upgrade`."""

import argparse
from pathlib import Path
from typing import Any

from ratoon import commands_keep
from ratoon.cli_laws import as_json

RESTORE = """\
    Every file that version was made of, compared by hash: params.yaml, declarations, benchmarks, dvc.lock, and the
    editions of every stage, from DVC's cache or else its remote. The commit of the code is told.
      ratoon restore 7                  into .ratoon/restored/<model>-v7
      ratoon restore 7 --into .         into this project: what was changed and is kept nowhere else is refused"""
GC = """\
    Says what would go, by `retention` of params.yaml, and removes nothing without --yes. What a champion, its
    predecessor, a challenger or any version that was ever promoted needs never goes; nor do records and reports."""
BACKUP = """\
    make FILE       databases of Prefect and MLflow, models in use, records, history, config; servers may run
    check FILE      read it all and compare every hash
    restore FILE    check it, then bring it back; what differs is refused without --force, and then moved aside"""

UPGRADE = """\
    After newer versions were installed, with the services down: the databases of MLflow and Prefect
    are brought to the form these want. SQLite's are kept as they were in .ratoon/before-upgrade;
    PostgreSQL's wants --yes."""


def add(verb: Any) -> None:
    restore = verb("restore", commands_keep.restore, "bring back the text and config a version was made of", RESTORE)
    restore.add_argument("version", type=int, metavar="VERSION")
    restore.add_argument(
        "--into", type=absolute, metavar="DIR", help="another folder, such as a worktree of its commit"
    )
    restore.add_argument("--force", action="store_true", help="move aside what is in the way")
    restore.add_argument("--model", help="registered model (default: the one of params.yaml)")
    collect = verb("gc", commands_keep.gc, "remove what no version in use needs", GC)
    how = collect.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="say what would go (the default)")
    how.add_argument("--yes", action="store_true", help="do it")
    collect.add_argument("--remote", action="store_true", help="at the DVC remote too, of what was made here")
    backup(verb("backup", None, "one archive of what cannot be made again, and back", BACKUP))
    upgrade = verb("upgrade", commands_keep.upgrade, "bring the databases to the installed versions' form", UPGRADE)
    upgrade.add_argument("--without", action="append", default=[], choices=["mlflow", "prefect"], help="leave this one")
    upgrade.add_argument("--yes", action="store_true", help="PostgreSQL too, in place, after a dump")
    named_databases(upgrade)
    for one in (restore, collect):
        as_json(one)


def backup(verb: Any) -> None:
    does = verb.add_subparsers(title="what", metavar="WHAT", required=True)

    def action(name: str, call: Any, summary: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = does.add_parser(name, help=summary, description=f"{summary}.")
        added.set_defaults(call=call, anywhere=False)
        added.add_argument("file", type=absolute, metavar="FILE")
        as_json(added)
        return added

    make = action("make", commands_keep.backup_make, "write the archive")
    make.add_argument("--all", action="store_true", help="all registered versions, and editions the remote has too")
    make.add_argument(
        "--without", action="append", default=[], choices=["mlflow", "prefect", "editions"], help="leave this out"
    )
    check = action("check", commands_keep.backup_check, "compare every hash")
    back = action("restore", commands_keep.backup_restore, "bring it back")
    back.add_argument("--into", type=absolute, metavar="DIR", help="another folder than this project")
    back.add_argument("--force", action="store_true", help="move aside what differs")
    for one in (make, back):
        named_databases(one)
    for one in (check, back):
        one.set_defaults(anywhere=True)


def named_databases(one: argparse.ArgumentParser) -> None:
    for name in ("mlflow", "prefect"):
        one.add_argument(f"--{name}-database", metavar="URI", help="sqlite:///... or postgresql://...")


def absolute(text: str) -> Path:
    """As seen from where the command was given: the project's folder becomes the current one."""
    return Path(text).absolute()
