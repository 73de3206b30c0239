"""What the commands that keep do: bring back a version's text, remove what nobody needs, back up and restore."""

import argparse
import json
from pathlib import Path
from typing import Any

from ratoon.commands import DONE, embedded, line_of
from ratoon.config import ConfigError


def restore(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from ratoon.report.wording import size
    from tasks.restore import restore as bring_back

    done = bring_back(root, line_of(asked, root), asked.version, asked.into, force=asked.force)
    if asked.json:
        print(json.dumps(done.__dict__, default=str, indent=2))
        return DONE
    print(f"{done.line} version {done.version} in {done.into}")
    print(f"  {done.files:,} files as they were, {done.written:,} written ({size(done.bytes)})")
    if done.aside:
        print(f"  what was in the way: {done.aside}")
    print(f"  {code(done.commit, done.dirty, done.into)}")
    return DONE


def code(commit: str | None, dirty: bool | None, into: Path) -> str:
    if commit is None:
        return "code: made outside of Git, so its commit is not known"
    changed = ", from which the work tree differed" if dirty else ""
    return f"code: commit {commit}{changed}; with it: `git worktree add {into}-code {commit}`, then --into that folder"


def gc(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import retention

    found = (retention.collect if asked.yes else retention.plan)(root, remote=asked.remote)
    table = found.table()
    if asked.json:
        items = [
            {"kind": it.kind, "path": it.path and str(it.path), "hash": it.hash, "bytes": it.bytes}
            for it in found.items
        ]
        kinds = {kind: {"items": count, "bytes": held} for kind, (count, held) in table.items()}
        print(json.dumps({"removed": asked.yes, "kinds": kinds, "items": items, "notes": found.notes}, indent=2))
        return DONE
    print("\n".join(gc_text(table, found.notes, done=asked.yes)))
    return DONE


def gc_text(table: dict[str, tuple[int, int]], notes: list[str], *, done: bool) -> list[str]:
    from ratoon.report.wording import size

    lines = [f"{'':<16}{'items':>8}{'size':>12}"] if table else []
    lines += [f"{kind:<16}{count:>8,}{size(held):>12}" for kind, (count, held) in table.items()]
    total = size(sum(held for _, held in table.values()))
    if not table:
        said = "nothing goes: all that is here is needed, young, or kept by retention in params.yaml"
    else:
        said = f"{total} freed" if done else f"{total} would go; `ratoon gc --yes` removes it"
    return [*lines, *(f"note: {note}" for note in notes), said]


def backup_make(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import backup

    request = backup.Request(every=asked.all, without=tuple(asked.without), given=tuple(given(asked).items()))
    made = backup.make(root, asked.file, request)
    print(made.model_dump_json(indent=2) if asked.json else backup.summary(made, asked.file))
    return DONE


def given(asked: argparse.Namespace) -> dict[str, str]:
    """Databases that were named."""
    found = {name: getattr(asked, f"{name}_database") for name in ("mlflow", "prefect")}
    return {name: uri for name, uri in found.items() if uri}


def upgrade(asked: argparse.Namespace, root: Path) -> int:
    embedded(root)
    from tasks import upgrade as upgrades

    for each in upgrades.upgrade(root, given(asked), tuple(asked.without), yes=asked.yes):
        print(upgrades.told(each), flush=True)
    return DONE


def backup_check(asked: argparse.Namespace, root: Path | None) -> int:
    from tasks import backup, backup_restore

    found = backup_restore.check(asked.file)
    print(
        found.model_dump_json(indent=2) if asked.json else f"{backup.summary(found, asked.file)}\nall as it was put in"
    )
    return DONE


def backup_restore(asked: argparse.Namespace, root: Path | None) -> int:
    into: Path | None = asked.into or root
    if into is None:
        raise ConfigError("ratoon backup restore: no params.yaml here or above; name the folder with --into")
    into = into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    embedded(into)
    from tasks import backup_restore as back

    done = back.load(into, asked.file, given(asked), force=asked.force)
    said: dict[str, Any] = {"into": str(into), "files": done.files, "moved": done.moved, "notes": list(done.notes)}
    if asked.json:
        print(json.dumps({**said, "aside": done.aside and str(done.aside)}, indent=2))
        return DONE
    print(f"{into}: {done.files:,} files as they were on {done.manifest.created}")
    if done.moved:
        print(f"  {done.moved:,} paths below {done.manifest.root} are paths below {into} now")
    if done.aside:
        print(f"  what was in the way: {done.aside}")
    print("\n".join([*(f"note: {note}" for note in done.notes), f"code: commit {done.manifest.commit}"]))
    return DONE
