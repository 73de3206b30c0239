"""Git: which commit this is, and the branch on which editions are recorded when asked.

That branch is written with plumbing alone: a temporary index, a tree, a commit, a reference that moves. The person's
index, HEAD, files and hooks have no part in it.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ratoon.config import ConfigError

POINTERS = "dvc.lock"
UNNAMED = ("ratoon", "ratoon@localhost")  # where Git knows nobody


class NotRecorded(RuntimeError):
    """The editions are whole, but Git did not take their pointers."""


def commit(root: Path) -> tuple[str | None, bool | None]:
    """(sha, whether tracked files differ from it); (None, None) outside Git.

    dvc.lock does not count as a difference: it records editions, which are recorded by hash beside the commit.
    """
    sha = ask(root, "rev-parse", "HEAD")
    if sha is None:
        return None, None
    changed = ask(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return sha, None if changed is None else bool(changed)


def ask(root: Path, *arguments: str) -> str | None:
    """What Git says; None if it does not know, or is not there."""
    try:
        return _git(root, *arguments)
    except NotRecorded:
        return None


def _git(root: Path, *arguments: str, given: bytes | None = None, **environ: str) -> str:
    # A hook from which we are called has set the index of another command.
    kept = {name: value for name, value in os.environ.items() if name != "GIT_INDEX_FILE"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, input=given, env={**kept, **environ}, capture_output=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRecorded(f"git {arguments[0]}: {error}") from error
    if done.returncode:
        raise NotRecorded(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace").strip()


def branch_of(line: str) -> str:
    return f"ratoon/{line}"


def record(root: Path, line: str, pointers: bytes, title: str, body: str) -> str | None:
    """Commit `pointers` as dvc.lock on the line's own branch, over the files of HEAD; its sha, None if they are there.

    Parents are the branch and, where the branch does not hold it yet, HEAD: code and editions go together. Raises
    NotRecorded with Git's words; nothing of the person's is touched whatever happens.
    """
    name = f"refs/heads/{branch_of(line)}"
    if name in (ask(root, "worktree", "list", "--porcelain") or "").replace("branch ", "").splitlines():
        raise NotRecorded(f"{branch_of(line)} is checked out, and a commit would change what is worked on there")
    head, tip = ask(root, "rev-parse", "--verify", "-q", "HEAD"), ask(root, "rev-parse", "--verify", "-q", name)
    tree = _tree(root, head, pointers)
    known = tip is not None and (head is None or ask(root, "merge-base", "--is-ancestor", head, tip) is not None)
    if known and ask(root, "rev-parse", f"{tip}^{{tree}}") == tree:
        return None
    parents = [tip] if known else [one for one in (tip, head) if one]
    person = _identity(root)
    said = f"{title}\n\n{body}\n\nSigned-off-by: {person['GIT_COMMITTER_NAME']} <{person['GIT_COMMITTER_EMAIL']}>\n"
    over = [word for parent in parents if parent for word in ("-p", parent)]
    made = _git(root, "commit-tree", tree, *over, "-F", "-", given=said.encode(), **person)
    # With the value it had: another process that moved it meanwhile is not overwritten.
    _git(root, "update-ref", "-m", f"ratoon: {title}", name, made, tip or "0" * len(made))
    return made


def _tree(root: Path, head: str | None, pointers: bytes) -> str:
    """HEAD's files with dvc.lock as given."""
    prefix = _git(root, "rev-parse", "--show-prefix")
    blob = _git(root, "hash-object", "-w", "--no-filters", "--stdin", given=pointers)
    with tempfile.TemporaryDirectory(prefix="ratoon-index-") as folder:
        index = str(Path(folder) / "index")
        if head:
            _git(root, "read-tree", head, GIT_INDEX_FILE=index)
        entry = f"100644,{blob},{prefix}{POINTERS}"
        _git(root, "update-index", "--add", "--cacheinfo", entry, GIT_INDEX_FILE=index)
        return _git(root, "write-tree", GIT_INDEX_FILE=index)


def _identity(root: Path) -> Mapping[str, str]:
    """Who signs: as Git knows the person, each half by a default of ours where it does not."""
    name = os.environ.get("GIT_COMMITTER_NAME") or ask(root, "config", "user.name") or UNNAMED[0]
    mail = os.environ.get("GIT_COMMITTER_EMAIL") or ask(root, "config", "user.email") or UNNAMED[1]
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": mail,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": mail,
    }


def clean(root: Path, path: str) -> bool:
    """Whether Git has this file as it lies there, so that what is there may be replaced."""
    if ask(root, "ls-files", "--error-unmatch", "--", path) is None:
        return False
    return ask(root, "status", "--porcelain", "--", path) == "" and ask(root, "rev-parse", "HEAD") is not None


def at_tips(root: Path) -> list[bytes]:
    """dvc.lock and *.dvc at every branch and tag: what somebody may check out."""
    found = set[str]()
    tips = ask(root, "for-each-ref", "--format=%(objectname)", "refs/heads", "refs/tags", "refs/remotes") or ""
    for ref in sorted(set(tips.split())):
        for line in (ask(root, "ls-tree", "-r", "-z", ref) or "").split("\0"):
            about, _, path = line.partition("\t")
            if path == POINTERS or path.endswith((f"/{POINTERS}", ".dvc")):
                found.add(about.split()[2])
    return [_git(root, "cat-file", "blob", blob).encode() for blob in sorted(found)]


def required(root: Path) -> None:
    if ask(root, "rev-parse", "--git-dir") is None:
        raise ConfigError(
            f"{root}: not a Git repository, and DVC records editions beside commits; "
            f"work in a clone, or run `git init && git add . && git commit` here first"
        )
