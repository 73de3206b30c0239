"""Whoever is killed while holding editions holds up nobody; whoever lives is waited for."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tasks import dvc_locks, versions

SLEEPS = "stages:\n  one:\n    cmd: python one.py\n    deps: [one.py]\n    outs: [out.txt]\n"
ONE = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(SECONDS)\nopen('out.txt', 'w').write('made')\n"
HOLDS = """
import sys, time
from pathlib import Path
from tasks import dvc_locks
with dvc_locks.writer(Path(sys.argv[1])):
    Path("held").touch()
    time.sleep(float(sys.argv[2]))
"""
CLAIMS = """
import sys, time
from dvc.lock import HardlinkLock
HardlinkLock(".dvc/tmp/lock", tmp_dir=".dvc/tmp").lock()
open("held", "w").close()
time.sleep(60)
"""


@pytest.fixture
def root(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    # DVC_DAEMON: it leaves no process behind that looks for a newer DVC, and would look like a DVC at work.
    env = {**os.environ, "DVC_DAEMON": "1"}
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True, env=env)
    (tmp_path / "dvc.yaml").write_text(SLEEPS)
    (tmp_path / "one.py").write_text(ONE.replace("SECONDS", "0"))
    return tmp_path


def begun(root, command, sign):
    """A process of its own that has come to `sign`."""
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, *command], cwd=root, env=where, start_new_session=True)
    until = time.monotonic() + 120
    while not (root / sign).exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_dvc_that_was_killed_blocks_nobody_even_when_its_number_is_anothers(root):
    (root / "one.py").write_text(ONE.replace("SECONDS", "60"))
    kill(begun(root, ["-m", "dvc", "repro"], "begun"))
    path = root / ".dvc" / "tmp" / "rwlock"
    left = json.loads(path.read_text())
    assert left["write"]
    for info in left["write"].values():
        info["pid"] = os.getpid()  # the kernel hands numbers out again: this one runs, and is no DVC
    path.write_text(json.dumps(left))
    (root / "one.py").write_text(ONE.replace("SECONDS", "0"))
    heard = []
    assert versions.repro(root, report=heard.append).ran == ("one",)
    assert f"{path}: cleared of DVC processes that are gone" in heard


def test_a_lock_file_that_a_kill_cut_short_is_removed(root):
    path = root / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"write": {"/a": {"pid": 1')
    assert subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=root, capture_output=True).returncode
    assert versions.repro(root).ran == ("one",)


def test_a_hard_link_of_a_dvc_that_was_killed_is_removed_and_of_a_living_one_is_not(root):
    (root / ".dvc" / "config").write_text("[core]\n    hardlink_lock = true\n")
    lives = begun(root, ["-c", CLAIMS, "dvc"], "held")
    assert dvc_locks.clear_stale(root) == []
    kill(lives)
    assert (root / ".dvc" / "tmp" / "lock").exists()
    heard = []
    last = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(4)", "dvc"], cwd=root)
    assert versions.repro(root, report=heard.append).ran == ("one",)  # once the last DVC here is gone
    assert dvc_locks.WAITING in heard
    last.wait()


def test_a_writer_that_was_killed_holds_nothing_and_a_living_one_is_waited_for_and_named(root, monkeypatch):
    monkeypatch.setattr(dvc_locks, "BUSY_SECONDS", 0.1)
    lives = begun(root, ["-c", HOLDS, str(root), "60"], "held")
    heard = []
    with (
        pytest.raises(dvc_locks.Busy, match=rf"\(PID {lives.pid}\): .*; waited 0 s for it"),
        dvc_locks.writer(root, heard.append, wait_seconds=0.3),
    ):
        pass
    assert dvc_locks.WAITING in heard
    kill(lives)
    with dvc_locks.writer(root, wait_seconds=0):
        assert f"(PID {os.getpid()})" in (root / ".dvc" / "tmp" / "ratoon.lock").read_text()


def test_what_was_made_and_not_pushed_is_owed_until_a_push_takes_it(root, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "later"
    store.parent.joinpath("later").write_text("in the way")
    (root / ".dvc" / "config").write_text(f"[core]\n    remote = s\n['remote \"s\"']\n    url = {store}/x\n")
    assert not versions.owed(root)
    versions.repro(root)
    with pytest.raises(versions.RemoteUnavailable, match="the next refresh sends them"):
        versions.push(root)
    assert versions.repro(root).ran == ()
    assert versions.owed(root)
    (root / "one.py").write_text((root / "one.py").read_text().replace("made", "made again"))
    assert versions.repro(root).ran == ("one",)
    store.unlink()
    versions.push(root)
    assert not versions.owed(root)
    assert {path.read_text() for path in store.rglob("*") if path.is_file()} == {"made", "made again"}
