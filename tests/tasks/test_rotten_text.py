"""Bytes that changed on the disk, at the size and time they had, are seen before a training reads them."""

import os
import subprocess
import sys

import pytest
from kept_project import git, write

from ratoon import records
from ratoon.config import ConfigError
from ratoon.corpus.edition import LEDGER, damaged, sha256
from ratoon.records import Funnel, Ledger
from tasks import intact

EDITION = "data/rows/nano/code"


@pytest.fixture
def root(tmp_path):
    """Two packed files and their ledger, as DVC keeps them."""
    git(tmp_path, "init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    folder = tmp_path / EDITION
    for name in ("train/a.tokens", "held_out/b.tokens"):
        write(folder / name, name * 1000)
    hashes = {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*.tokens")}
    none = Funnel(documents_in=0, bytes_in=0, documents_kept=0, bytes_kept=0, dropped={}, dropped_bytes={})
    ledger = Ledger(source="code", role="domain", stage="pack", config="", funnel=none, shards=hashes)
    records.write(folder / LEDGER, ledger)
    write(tmp_path / "dvc.yaml", {"stages": {}})
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", EDITION], cwd=tmp_path, check=True)
    return tmp_path


def rot(path):
    """Other bytes, with the size and the times of before."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_rotten_file_is_brought_back_from_the_cache_and_what_is_whole_is_left_alone(root, caplog):
    path, other = root / EDITION / "train/a.tokens", root / EDITION / "held_out/b.tokens"
    whole, place = path.read_bytes(), other.stat().st_ino
    intact.mend(root, EDITION)
    assert not caplog.records
    rot(path)
    assert damaged(root / EDITION) == [path]
    intact.mend(root, EDITION)
    assert path.read_bytes() == whole
    assert other.stat().st_ino == place
    assert "train/a.tokens" in caplog.text


def test_a_file_that_is_rotten_in_the_cache_too_is_named_with_what_to_do(root):
    path = root / EDITION / "train/a.tokens"
    cached = [
        it for it in (root / ".dvc" / "cache").rglob("*") if it.is_file() and it.read_bytes() == path.read_bytes()
    ]
    rot(cached[0])
    rot(path)
    with pytest.raises(ConfigError, match=r"train/a\.tokens.*dvc pull"):
        intact.mend(root, EDITION)
