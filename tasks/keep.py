"""What keeps a project going for months, as parts of a flow: room made, an archive written."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from ratoon import config
from ratoon.config import Archive, BackupConfig, Collect, ConfigError
from ratoon.report.wording import size
from tasks import backup, backup_restore, retention
from tasks.artifacts import show_markdown, show_table
from tasks.backup import Request
from tasks.retention import Plan
from tasks.retry import healing

FOLDER = "RATOON_BACKUPS"
WHOLE = ""  # of no line: of the project


@healing("make room")
def collect(root: Path, ask: Collect) -> str:
    """What would go or went, in a sentence; kind by kind it is the artifact `gc`."""
    found = (retention.collect if ask.remove else retention.plan)(root, remote=ask.remote)
    said = told(found, done=ask.remove)
    rows = [{"kind": kind, "items": count, "size": size(held)} for kind, (count, held) in found.table().items()]
    notes = [{"kind": "note", "items": None, "size": note} for note in found.notes]
    show_table(WHOLE, "gc", [*rows, *notes], said)
    return said


def told(found: Plan, *, done: bool) -> str:
    if not found.items:
        return "nothing goes: all that is here is needed, young, or kept by retention in params.yaml"
    held = f"{size(sum(item.bytes for item in found.items))} in {len(found.items):,} items"
    return f"{held} freed" if done else f"{held} would go; run it again with `remove` on"


@healing("write a backup")
def archive(root: Path, ask: Archive) -> str:
    """A new archive, every hash of it compared; then the oldest beyond those that stay go. A sentence of it."""
    asked = config.load(root).operate.backup
    folder, root = folder_of(root, asked), root.resolve()
    out = folder / f"{prefix(root)}{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.tar"
    backup.make(root, out, Request(every=ask.every, without=ask.without))
    manifest = backup_restore.check(out)
    gone = thin(folder, root, asked.keep)
    said = f"{out}: {len(manifest.files):,} files, {size(out.stat().st_size)}, every hash compared"
    said += f"; {gone} older removed" if gone else ""
    show_markdown(WHOLE, "backup", f"```\n{backup.summary(manifest, out)}\n```", said)
    return said


def folder_of(root: Path, asked: BackupConfig) -> Path:
    named = os.environ.get(FOLDER) or asked.folder
    if not named:
        raise ConfigError(
            f"params.yaml: operate.backup.folder: none is named, so there is nowhere to write to; name a folder there, "
            f"best on another disk, or set {FOLDER} where the worker is started"
        )
    return root / named


def prefix(root: Path) -> str:
    """Of this project's archives: others of its name may lie in the same folder."""
    return f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:6]}-"


def thin(folder: Path, root: Path, keep: int) -> int:
    """Remove this project's oldest archives beyond the newest `keep`; how many."""
    old = sorted(folder.glob(f"{prefix(root)}*Z.tar"))[:-keep]
    for path in old:
        path.unlink()
    return len(old)
