"""Promises of the door to DVC and Git."""

import fcntl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from ratoon.config import ConfigError
from ratoon.layout import Layout
from tasks import commits, dvc_locks, versions
from tasks.dvc_process import Said

STAGES = """
stages:
  first:
    cmd: python first.py
    deps: [first.py, in.txt]
    outs: [first.txt]
  second:
    foreach: [a, b]
    do:
      cmd: python second.py ${item}
      deps: [second.py, first.txt]
      outs: ["second/${item}.txt"]
"""
FIRST = "print('reading'); open('first.txt', 'w').write(open('in.txt').read())\n"
SECOND = """
import pathlib, sys
pathlib.Path("second").mkdir(exist_ok=True)
pathlib.Path(f"second/{sys.argv[1]}.txt").write_text(sys.argv[1])
"""
LETTER = """
import sys
print("ratoon: an older word", file=sys.stderr)
print("5% of it\\r99% of it", file=sys.stderr)
print("ratoon: data/sources/x.yaml: no such file\\n  to declare it, write one", file=sys.stderr)
sys.exit(2)
"""


def git(root, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A small project under Git and DVC, with a folder as remote."""
    root = tmp_path_factory.mktemp("template")
    git(root, "init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    (root / ".dvc" / "config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../remote\n", encoding="utf-8"
    )
    (root / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (root / "first.py").write_text(FIRST, encoding="utf-8")
    (root / "second.py").write_text(SECOND, encoding="utf-8")
    (root / "in.txt").write_text("one", encoding="utf-8")
    (root / ".gitignore").write_text("/first.txt\n/second\n/.ratoon\n", encoding="utf-8")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


@pytest.fixture
def root(template, tmp_path):
    """A clean clone."""
    subprocess.run(["git", "clone", "-q", str(template), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def test_a_clean_clone_runs_what_is_stale_and_then_nothing(root):
    heard = []
    made = versions.repro(root, report=heard.append)
    assert made.ran == ("first", "second@a", "second@b")
    assert "reading" in heard
    assert made.hashes == versions.hashes(root)
    assert set(made.hashes) == {"first.txt", "second/a.txt", "second/b.txt"}
    assert made.hashes["second/a.txt"] == "0cc175b9c0f1b6a831c399e269772661"  # md5 of "a"

    again = versions.repro(root)
    assert again.ran == ()
    assert versions.status(root) == ()

    (root / "in.txt").write_text("two", encoding="utf-8")
    assert versions.status(root, ["first"]) == ("first",)
    assert versions.repro(root, ["first"]).ran == ("first",)


def test_editions_are_pushed_and_a_remote_that_is_gone_is_named(root, tmp_path):
    before = versions.repro(root).hashes
    versions.push(root)
    assert any((tmp_path / "remote").rglob("c175b9c0f1b6a831c399e269772661"))
    (tmp_path / "blocked").write_text("", encoding="utf-8")
    text = (root / ".dvc" / "config").read_text(encoding="utf-8")
    (root / ".dvc" / "config").write_text(text.replace("../../remote", "../../blocked/x"), encoding="utf-8")
    with pytest.raises(versions.RemoteUnavailable) as raised:
        versions.push(root)
    said = str(raised.value)
    assert f"DVC remote 'store' at {tmp_path}/blocked/x did not take the editions: " in said
    assert "run `dvc push`" in said
    assert isinstance(raised.value, ConnectionError)
    assert versions.hashes(root) == before
    assert (root / "first.txt").read_text(encoding="utf-8") == "one"
    assert versions.repro(root).ran == ()


def test_without_a_remote_the_letter_says_how_to_set_one(root):
    (root / ".dvc" / "config").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="no default remote; `dvc remote add -d store"):
        versions.push(root)
    (root / ".dvc" / "config").write_text("[core]\n    remote = lost\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"core\.remote is 'lost', which has no url"):
        versions.push(root)


def test_a_stage_that_refuses_its_input_is_heard_word_for_word(root):
    versions.repro(root)
    (root / "first.py").write_text(LETTER, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        versions.repro(root)
    assert str(raised.value) == "data/sources/x.yaml: no such file\n  to declare it, write one"


def test_a_stage_that_crashes_is_named_with_its_last_words(root):
    (root / "second.py").write_text("print('fine'); raise OSError('No space left on device')\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"(?s)^stage second@a failed \(exit code 1\): Traceback.*No space left"):
        versions.repro(root)
    assert versions.hashes(root).keys() == {"first.txt"}  # what was finished is kept


def test_a_missing_input_and_an_unknown_stage_are_the_persons_to_mend(root):
    (root / "in.txt").unlink()
    with pytest.raises(ConfigError, match=r"dvc\.yaml: .*in\.txt"):
        versions.repro(root)
    with pytest.raises(ConfigError, match=r"dvc\.yaml: .*'nosuch'"):
        versions.repro(root, ["nosuch"])


def test_while_another_dvc_works_the_second_waits_and_then_names_it(root, monkeypatch):
    monkeypatch.setattr(dvc_locks, "BUSY_SECONDS", 0.2)
    (root / "first.py").write_text(FIRST + "import time\nopen('begun', 'w')\ntime.sleep(6)\n", encoding="utf-8")
    other = threading.Thread(target=versions.repro, args=(root, ["first"]))
    other.start()
    while not (root / "begun").exists():
        time.sleep(0.05)
    with pytest.raises(versions.Busy, match=r"another DVC process works on .*\(PID \d+\).*; waited 0 s for it"):
        versions.repro(root, ["first"], wait_seconds=0)
    heard = []
    assert versions.repro(root, ["first"], heard.append).ran == ()
    other.join()
    assert "waiting for another DVC process on this project" in heard


def test_an_interrupted_caller_leaves_no_stage_running(root):
    sleeper = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\nprint('on', flush=True)\ntime.sleep(60)\n"
    (root / "first.py").write_text(sleeper, encoding="utf-8")

    def interrupt(line):
        if line == "on":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        versions.repro(root, report=interrupt)
    pid = int((root / "pid").read_text())
    until = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, f"stage {pid} still runs"
        time.sleep(0.1)
    (root / "first.py").write_text(FIRST, encoding="utf-8")
    assert versions.repro(root, ["first"]).ran == ("first",)


def test_outside_git_or_dvc_the_letter_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"no dvc\.yaml"):
        versions.repro(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"not a Git repository.*work in a clone, or run `git init"):
        versions.repro(tmp_path)
    git(tmp_path, "init", "-q")
    with pytest.raises(ConfigError, match=r"no \.dvc folder; run `dvc init`"):
        versions.repro(tmp_path)


def test_the_commit_is_dirty_by_code_and_not_by_editions(root, tmp_path):
    sha, dirty = commits.commit(root)
    assert (len(sha), dirty) == (40, False)
    (root / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    git(root, "add", "-f", "dvc.lock")
    assert commits.commit(root)[1] is False
    (root / "first.py").write_text("changed", encoding="utf-8")
    assert commits.commit(root) == (sha, True)
    assert commits.commit(tmp_path) == (None, None)


def test_a_lock_file_with_a_merge_conflict_is_refused(root):
    (root / "dvc.lock").write_text(
        textwrap.dedent("""\
            schema: '2.0'
            stages:
            <<<<<<< ours
              first: {}
            =======
        """),
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"dvc\.lock: not a DVC lock file .*git checkout dvc\.lock"):
        versions.hashes(root)


def test_an_output_as_it_was_is_laid_out_from_the_cache_and_only_what_is_wanted(root, tmp_path):
    (root / "dvc.yaml").write_text(
        "stages:\n  make:\n    cmd: python make.py\n    deps: [in.txt]\n    outs: [made]\n", encoding="utf-8"
    )
    (root / "make.py").write_text(
        "import pathlib\nfor name in ('keep/a.txt', 'b.txt'):\n    path = pathlib.Path('made') / name\n"
        "    path.parent.mkdir(parents=True, exist_ok=True)\n    path.write_text(open('in.txt').read())\n",
        encoding="utf-8",
    )
    (root / ".gitignore").write_text("/made\n", encoding="utf-8")
    before = versions.repro(root).hashes["made"]
    (root / "in.txt").write_text("two", encoding="utf-8")
    assert versions.repro(root).hashes["made"] != before
    found = versions.lay_out(root, before, tmp_path / "former", lambda name: name.startswith("keep/"))
    files = [path for path in found.rglob("*") if path.is_file()]
    assert [path.relative_to(found).as_posix() for path in files] == ["keep/a.txt"]
    assert files[0].read_text() == "one"
    with pytest.raises(ConfigError, match="dvc fetch"):
        versions.lay_out(root, "0" * 32 + ".dir", tmp_path / "none", lambda name: True)


def test_what_is_owed_changes_while_no_other_run_may_send_it(root, monkeypatch):
    unpushed, seen = Layout(root).unpushed, []

    def held():
        with (root / ".dvc" / "tmp" / "ratoon.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def watched(change):
        def changed(path, *given, **named):
            if path == unpushed:
                seen.append(held())
            return change(path, *given, **named)

        return changed

    monkeypatch.setattr(versions.records, "write_text", watched(versions.records.write_text))
    monkeypatch.setattr(Path, "unlink", watched(Path.unlink))
    monkeypatch.setattr(versions, "patiently", lambda *given, **named: Said())
    versions.repro(root)
    versions.repro(root)
    versions.push(root)
    assert len(seen) >= 5
    assert all(seen)
