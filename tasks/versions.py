"""The one door to DVC's commands: which text there is, what is stale, and what was sent to the remote."""

import configparser
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import yaml

from ratoon import records
from ratoon.config import ConfigError
from ratoon.layout import Layout
from tasks import commits, dvc_locks, objects
from tasks.dvc_locks import Busy as Busy
from tasks.dvc_process import Report, call, patiently, raise_failed, reason
from tasks.reach import shown


class RemoteUnavailable(ConnectionError):
    """The storage editions are pushed to did not take them. It may do so again: worth another try."""


@dataclass(frozen=True)
class Repro:
    """What `dvc repro` did."""

    ran: tuple[str, ...]  # stages that had to run, in order
    hashes: dict[str, str]  # path -> DVC hash of every output, after it


def hashes(root: Path) -> dict[str, str]:
    """Path -> DVC hash of every output dvc.lock knows; none before the first run."""
    path = root / "dvc.lock"
    return outs_of(path.read_bytes(), path) if path.exists() else {}


def outs_of(lock: bytes, path: Path) -> dict[str, str]:
    """Path -> DVC hash of every output in this text of a dvc.lock, which lies or lay at `path`."""
    try:
        stages = (yaml.safe_load(lock.decode("utf-8")) or {}).get("stages") or {}
        outs = [out for stage in stages.values() for out in stage.get("outs", [])]
        return {out["path"]: out["md5"] for out in outs if "md5" in out}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a DVC lock file ({str(error).splitlines()[0]}); it may hold a merge conflict: "
            f"`git checkout dvc.lock` takes back the committed one, `dvc repro` writes it anew"
        ) from None


def repro(
    root: Path,
    targets: Sequence[str] = (),
    report: Report | None = None,
    *,
    forced: bool = False,
    wait_seconds: float = 600.0,
    within: AbstractContextManager[None] | None = None,
) -> Repro:
    """Run the stages behind `targets` (none: all) that are stale, and only those.

    forced        run the targets themselves, stale or not, and nothing that is behind them
    report        receives each line a stage or DVC prints, as it comes
    wait_seconds  for another DVC process to finish
    within        entered when there is none: nobody else makes editions then

    Raises ConfigError with the letter of a stage that refused its input (exit code 2), RuntimeError with the last
    words of one that failed otherwise, Busy when another process does not finish. Earlier editions stay.
    """
    ready(root)
    unpushed = Layout(root).unpushed
    # What is owed is read and written in the lock too: another run may send it, or owe more, the moment that is free.
    with dvc_locks.writer(root, report, wait_seconds), within or nullcontext():
        before = unpushed.exists()
        if not before:  # written first: what a killed repro made is pushed by the next refresh too
            records.write_text(unpushed, "")
        how = ["--force", "--single-item"] if forced else []
        said = patiently(root, ["repro", *how, *targets], report, wait_seconds, as_writer=True)
        made = hashes(root)
        if said.ran or said.code or before:
            # By hash: `dvc push` sends what dvc.lock names by then, which may be a later edition.
            records.write_text(unpushed, "\n".join(sorted({*unpushed.read_text().split(), *made.values()})))
        else:
            unpushed.unlink()
    if said.code:
        raise_failed(said)
    return Repro(tuple(said.ran), made)


def status(root: Path, targets: Sequence[str] = ()) -> tuple[str, ...]:
    """Stages that would run now."""
    ready(root)
    said = patiently(root, ["status", "--json", *targets], None, 60.0)
    if said.code:
        raise RuntimeError(f"dvc status: {reason(said)}")
    return tuple(json.loads("\n".join(said.output) or "{}"))


def push(root: Path) -> None:
    """Send the editions to the remote. Raises ConfigError if none is set, RemoteUnavailable if it fails."""
    ready(root)
    name, url = remote(root)
    with dvc_locks.writer(root):
        said = patiently(root, ["push"], None, 600.0, as_writer=True)
        why = reason(said) if said.code else earlier(root)
        if not why:
            Layout(root).unpushed.unlink(missing_ok=True)
    if why:
        raise RemoteUnavailable(
            f"DVC remote {name!r} at {shown(url)} did not take the editions: {shown(why)}\n"
            f"  they are whole in .dvc/cache and stay usable; when the remote is back, the next refresh sends them, "
            f"or run `dvc push`\n  `dvc remote modify {name} url ...` sets another remote, and refresh.push: later in "
            f"params.yaml goes on without"
        )


def earlier(root: Path) -> str:
    """Send what is owed of editions before the present one; why it was not taken."""
    unpushed = Layout(root).unpushed
    former = set(unpushed.read_text().split()) if unpushed.exists() else set()
    if former := former - {*hashes(root).values()}:
        try:
            with objects.opened(root) as store:
                store.send(former)
        except Exception as error:  # whatever the storage's own client raises
            return str(error)
    return ""


def owed(root: Path) -> bool:
    """Whether editions were made that no push has taken."""
    return Layout(root).unpushed.exists()


def remote(root: Path) -> tuple[str, str]:
    """(name, URL or absolute folder) of the default remote. Raises ConfigError if there is none."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    name = parser.get("core", "remote", fallback="")
    for section in (f"'remote \"{name}\"'", f'remote "{name}"'):
        if name and parser.has_option(section, "url"):
            url = parser.get(section, "url")
            # A relative folder is meant from .dvc/, which no reader of a message would guess.
            return name, url if "://" in url else str((root / ".dvc" / url).resolve())
    found = f"core.remote is {name!r}, which has no url" if name else "no default remote"
    raise ConfigError(
        f".dvc/config: {found}; `dvc remote add -d store <folder or s3://...>` sets one, "
        f"or set refresh.push: false in params.yaml"
    )


def ready(root: Path) -> None:
    """Whether DVC can work here at all. Raises ConfigError saying what is missing."""
    if not (root / "dvc.yaml").exists():
        raise ConfigError(f"{root}: no dvc.yaml, so there are no stages to run; go to a ratoon project, or pass --root")
    commits.required(root)
    if not (root / ".dvc").is_dir():
        raise ConfigError(f"{root}: no .dvc folder; run `dvc init` and `dvc remote add -d store <folder>` here first")


def lay_out(root: Path, hash_: str, into: Path, wanted: Callable[[str], bool]) -> Path:
    """The files of an output as it was under this DVC hash, those whose names are `wanted`, linked below `into`.

    Raises ConfigError where the cache does not hold them.
    """
    cache = root / ".dvc" / "cache" / "files" / "md5"
    ready(root)
    found = call(root, ["cache", "dir"], None)
    if not found.code and found.output:
        cache = (root / found.output[-1]).resolve() / "files" / "md5"
    listing = cache / hash_[:2] / hash_[2:]
    missing = f"the edition {hash_} is not in DVC's cache; `dvc fetch --all-commits` brings back what was pushed"
    if not listing.exists():
        raise ConfigError(missing)
    for item in json.loads(listing.read_text(encoding="utf-8")):
        if wanted(item["relpath"]):
            stored = cache / item["md5"][:2] / item["md5"][2:]
            if not stored.exists():
                raise ConfigError(missing)
            place = into / item["relpath"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(stored)
    return into
