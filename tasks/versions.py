"""The one door to DVC, and to Git: which text there is, what is stale, and of which commit.

DVC runs as a subprocess. What a person reads when a stage fails is that stage's own letter, without DVC's frame.
"""

import configparser
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ratoon.config import ConfigError
from tasks import environment
from tasks.reach import shown

LETTER = "ratoon: "  # how the command line begins what it says to a person
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
BUSY_SECONDS = 2.0
GRACE_SECONDS = 10.0
RUNNING = re.compile(r"^Running stage '(?:.*/)?(?:dvc\.yaml:)?([^']+)'")
FAILED = re.compile(r"failed to reproduce '([^']+)'")
EXITED = re.compile(r"exited with (-?\d+)")


class RemoteUnavailable(ConnectionError):
    """The storage editions are pushed to did not take them. It may do so again: worth another try."""


class Busy(TimeoutError):
    """Another DVC process held the project for longer than we wait."""


@dataclass(frozen=True)
class Repro:
    """What `dvc repro` did."""

    ran: tuple[str, ...]  # stages that had to run, in order
    hashes: dict[str, str]  # path -> DVC hash of every output, after it


@dataclass
class Said:
    """What one DVC process printed."""

    code: int = 0
    ran: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stage_begins: int = 0  # in `errors`: where the stage now running began


# ---------------------------------------------------------------- Git


def commit(root: Path) -> tuple[str | None, bool | None]:
    """(sha, whether tracked files differ from it); (None, None) outside Git.

    dvc.lock does not count as a difference: it records editions, which are recorded by hash beside the commit.
    """
    sha = _git(root, "rev-parse", "HEAD")
    if sha is None:
        return None, None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return sha, None if changed is None else bool(changed)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# ---------------------------------------------------------------- editions


def hashes(root: Path) -> dict[str, str]:
    """Path -> DVC hash of every output dvc.lock knows; none before the first run."""
    path = root / "dvc.lock"
    if not path.exists():
        return {}
    try:
        stages = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages") or {}
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
    report: Callable[[str], None] | None = None,
    *,
    wait_seconds: float = 600.0,
) -> Repro:
    """Run the stages behind `targets` (none: all) that are stale, and only those.

    report        receives each line a stage or DVC prints, as it comes
    wait_seconds  for another DVC process to finish

    Raises ConfigError with the letter of a stage that refused its input (exit code 2), RuntimeError with the last
    words of one that failed otherwise, Busy when another process does not finish. Earlier editions stay.
    """
    ready(root)
    said = _patiently(root, ["repro", *targets], report, wait_seconds)
    if said.code:
        _raise_failed(said)
    return Repro(tuple(said.ran), hashes(root))


def status(root: Path, targets: Sequence[str] = ()) -> tuple[str, ...]:
    """Stages that would run now."""
    ready(root)
    said = _patiently(root, ["status", "--json", *targets], None, 60.0)
    if said.code:
        raise RuntimeError(f"dvc status: {_reason(said)}")
    return tuple(json.loads("\n".join(said.output) or "{}"))


def push(root: Path) -> None:
    """Send the editions to the remote. Raises ConfigError if none is set, RemoteUnavailable if it fails."""
    ready(root)
    name, url = remote(root)
    said = _patiently(root, ["push"], None, 600.0)
    if said.code:
        raise RemoteUnavailable(
            f"DVC remote {name!r} at {shown(url)} did not take the editions: {shown(_reason(said))}\n"
            f"  they are whole in .dvc/cache and stay usable; when the remote is back, run `dvc push`, "
            f"or set another with `dvc remote modify {name} url ...`; refresh.push: false in params.yaml does without"
        )


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
    if _git(root, "rev-parse", "--git-dir") is None:
        raise ConfigError(
            f"{root}: not a Git repository, and DVC records editions beside commits; "
            f"work in a clone, or run `git init && git add . && git commit` here first"
        )
    if not (root / ".dvc").is_dir():
        raise ConfigError(f"{root}: no .dvc folder; run `dvc init` and `dvc remote add -d store <folder>` here first")


# ---------------------------------------------------------------- the process


def _patiently(root: Path, arguments: Sequence[str], report: Callable[[str], None] | None, wait_seconds: float) -> Said:
    """DVC, again while another DVC process holds what it needs: --wait-for-lock does not wait for a stage's lock."""
    until = time.monotonic() + wait_seconds
    while True:
        said = _dvc(root, arguments, report)
        if not (said.code and any(sign in line for sign in BUSY for line in said.errors)):
            return said
        if time.monotonic() >= until:
            holder = next((line.strip() for line in said.errors if "(PID" in line), "one that does not say its name")
            raise Busy(
                f"another DVC process works on {root}: {holder}; waited {wait_seconds:.0f} s for it\n"
                f"  let it finish, or end it; if there is none any more, delete .dvc/tmp/rwlock and .dvc/tmp/lock"
            )
        if report:
            report("waiting for another DVC process on this project")
        time.sleep(BUSY_SECONDS)


def _dvc(root: Path, arguments: Sequence[str], report: Callable[[str], None] | None) -> Said:
    """`python -m dvc` in a session of its own: ended with us, with all its stages."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=_environment(root),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    said = Said()
    try:
        for line, is_error in _lines(process):
            _hear(said, line, is_error, report)
        said.code = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    return said


def _environment(root: Path) -> Mapping[str, str]:
    # Unbuffered: a stage's progress is news while it runs, not when it ends.
    return {**os.environ, **environment.prepare(root), "PYTHONUNBUFFERED": "1"}


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[tuple[str, bool]]:
    """(line, whether on stderr) as they come. Of a line redrawn with carriage returns, what was drawn last."""
    assert process.stdout is not None
    assert process.stderr is not None
    errors = process.stderr.fileno()
    rest = {process.stdout.fileno(): b"", errors: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in rest:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            # Output before errors: the line that says which stage begins comes on stdout.
            for pipe in sorted((key.fd for key, _ in selector.select()), key=lambda fd: fd == errors):
                chunk = os.read(pipe, 65536)
                *whole, rest[pipe] = (rest[pipe] + chunk).split(b"\n")
                if not chunk:
                    selector.unregister(pipe)
                    whole = [rest[pipe]] if rest[pipe] else []
                for line in whole:
                    yield line.decode("utf-8", errors="replace").rstrip("\r").rsplit("\r", 1)[-1], pipe == errors


def _hear(said: Said, line: str, is_error: bool, report: Callable[[str], None] | None) -> None:
    (said.errors if is_error else said.output).append(line)
    if not is_error and (match := RUNNING.match(line)):
        said.ran.append(match.group(1))
        said.stage_begins = len(said.errors)
    if report and line.strip():
        report(line)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(GRACE_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def _raise_failed(said: Said) -> None:
    errors = "\n".join(said.errors)
    failed, exited = FAILED.search(errors), EXITED.search(errors)
    if failed is None or exited is None:  # DVC itself refused: a wrong dvc.yaml, a missing input
        raise ConfigError(f"dvc.yaml: {shown(_reason(said))}")
    words = _last_words(said)
    if exited.group(1) == "2" and words:
        raise ConfigError(words)
    raise RuntimeError(f"stage {failed.group(1)} failed (exit code {exited.group(1)}): {words or 'it said nothing'}")


def _last_words(said: Said) -> str:
    """What the failed stage said on stderr: its letter if it wrote one, else its last lines."""
    lines = []
    for line in said.errors[said.stage_begins :]:
        if line.startswith("ERROR: failed to reproduce"):
            break
        lines.append(line.rstrip())
    begins = [number for number, line in enumerate(lines) if line.startswith(LETTER)]
    kept = lines[begins[-1] :] if begins else lines[-20:]
    return "\n".join(kept).strip().removeprefix(LETTER)


def _reason(said: Said) -> str:
    """DVC's own error lines, without its advice on where to discuss them."""
    found = [line.removeprefix("ERROR: ") for line in said.errors if line.startswith("ERROR: ")]
    return "; ".join(found) or "\n".join(said.errors[-5:]) or f"exit code {said.code}"


def lay_out(root: Path, hash_: str, into: Path, wanted: Callable[[str], bool]) -> Path:
    """The files of an output as it was under this DVC hash, those whose names are `wanted`, linked below `into`.

    Raises ConfigError where the cache does not hold them.
    """
    cache = root / ".dvc" / "cache" / "files" / "md5"
    ready(root)
    found = _dvc(root, ["cache", "dir"], None)
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
