"""Editions are recorded in Git beside the person's work, and never in it."""

import subprocess

import pytest

from tasks import commits

UNSEEN = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def git(root, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Work in the middle: something staged, something not, an unknown file; Git knows nobody's name."""
    for name, value in UNSEEN.items():
        monkeypatch.setenv(name, value)
    for name in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    git(tmp_path, "init", "-q", "-b", "main")
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "a").write_text("staged")
    git(tmp_path, "add", "a")
    (tmp_path / "a").write_text("staged, and then more")
    (tmp_path / "b").write_text("not staged")
    (tmp_path / "c").write_text("unknown")
    (tmp_path / "dvc.lock").write_text("as it is here")
    return tmp_path


def seen(root):
    """All a person sees of Git: HEAD, branch, index to the byte, differences, files."""
    asked = (["rev-parse", "HEAD"], ["symbolic-ref", "HEAD"], ["diff"], ["diff", "--cached"], ["stash", "list"])
    files = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    return [git(root, *one) for one in asked], (root / ".git" / "index").read_bytes(), files


def test_pointers_go_on_a_branch_of_their_own_and_nothing_of_the_persons_moves(root):
    before = seen(root)
    sha = commits.record(root, "line", b"lock one\r\n", "Record the editions of line version 1", "Edition: rows abc")
    assert seen(root) == before
    assert git(root, "rev-parse", "ratoon/line") == sha
    shown = subprocess.run(["git", "show", f"{sha}:dvc.lock"], cwd=root, capture_output=True, check=True).stdout
    assert shown == b"lock one\r\n"
    assert git(root, "ls-tree", "--name-only", sha).split() == ["a", "b", "dvc.lock"]
    assert git(root, "show", f"{sha}:a") == "a"  # as HEAD has it, not as it is staged or lies here
    said = git(root, "log", "-1", "--format=%B", sha)
    assert said.startswith("Record the editions of line version 1\n\nEdition: rows abc")
    assert "Signed-off-by: ratoon <ratoon@localhost>" in said
    assert git(root, "log", "-1", "--format=%an %ce", sha) == "ratoon ratoon@localhost"


def test_each_refresh_is_one_commit_and_the_same_editions_are_none(root):
    first = commits.record(root, "line", b"one", "1", "-")
    assert commits.record(root, "line", b"one", "again", "-") is None
    second = commits.record(root, "line", b"two", "2", "-")
    assert git(root, "rev-parse", f"{second}^@") == first
    git(root, "commit", "-qam", "code goes on")
    third = commits.record(root, "line", b"three", "3", "-")
    assert git(root, "rev-parse", f"{third}^@").split() == [second, git(root, "rev-parse", "HEAD")]
    assert git(root, "show", f"{third}:b") == "not staged"


def test_the_persons_own_name_signs_where_git_knows_it(root):
    git(root, "config", "user.name", "Ann Lee")
    git(root, "config", "user.email", "ann@example.org")
    sha = commits.record(root, "line", b"one", "1", "-")
    assert "Signed-off-by: Ann Lee <ann@example.org>" in git(root, "log", "-1", "--format=%B", sha)


def test_a_branch_that_is_checked_out_is_left_alone(root, tmp_path):
    commits.record(root, "line", b"one", "1", "-")
    git(root, "worktree", "add", "-q", str(tmp_path / "beside"), "ratoon/line")
    before = git(root, "rev-parse", "ratoon/line")
    with pytest.raises(commits.NotRecorded, match="ratoon/line is checked out"):
        commits.record(root, "line", b"two", "2", "-")
    assert git(root, "rev-parse", "ratoon/line") == before


def test_before_the_first_commit_and_below_the_top_it_works_and_outside_git_it_says_so(tmp_path, monkeypatch):
    for name, value in UNSEEN.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bare").mkdir()
    with pytest.raises(commits.NotRecorded, match="git "):
        commits.record(tmp_path / "bare", "line", b"one", "1", "-")
    git(tmp_path, "init", "-q")
    project = tmp_path / "below" / "project"
    project.mkdir(parents=True)
    sha = commits.record(project, "line", b"one", "1", "-")
    assert git(tmp_path, "ls-tree", "-r", "--name-only", sha) == "below/project/dvc.lock"


def test_another_process_that_moved_the_branch_meanwhile_is_not_overwritten(root, monkeypatch):
    commits.record(root, "line", b"one", "1", "-")
    made = commits._tree

    def meanwhile(*given):
        monkeypatch.setattr(commits, "_tree", made)
        commits.record(root, "line", b"theirs", "2", "-")
        return made(*given)

    monkeypatch.setattr(commits, "_tree", meanwhile)
    with pytest.raises(commits.NotRecorded, match="update-ref"):
        commits.record(root, "line", b"ours", "2", "-")
    assert git(root, "show", "ratoon/line:dvc.lock") == "theirs"
