"""An edition under fault: two runs at once, a killed run at every step, a shard that vanishes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_sources import base, lines, notes, sentence, tree

from ratoon.config import ConfigError, Dedup, HeldOut, NearDuplicates, Paragraphs, PrepareConfig
from ratoon.corpus import clean as cleaning
from ratoon.corpus.clean import clean
from ratoon.corpus.edition import renew
from ratoon.corpus.pack import pack
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import train_tokenizer

HERE = os.path.dirname(__file__)
CONFIG = PrepareConfig(
    rules={"prose": {"min_bytes": 20}},
    dedup=Dedup(near=NearDuplicates(agreement=0.7), paragraphs=Paragraphs(min_words=5), copies={2: 2}),
    held_out=HeldOut(share=0.2, min_documents=2),
)


def prepare(root: Path, tokenizer: Path) -> None:
    """From raw/ to rows, as the stages of dvc.yaml do it."""
    documents, cleaned = root / "documents" / "notes", root / "clean" / "notes"
    ingest(notes(), root, documents, processes=1)
    clean(notes(), CONFIG, documents, cleaned, processes=1)
    pack(notes(), cleaned, tokenizer, base(), root / "rows" / "notes")


def raw(root: Path, first: bool) -> None:
    texts = [sentence(i) * 3 for i in range(60)]
    lines(root / "raw" / "a.jsonl", texts[:40])
    if not first:
        lines(root / "raw" / "b.jsonl", [*texts[30:], "Another. " + texts[3]])
        (root / "raw" / "c.txt").write_text(sentence(99))


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, *sys.path]), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizer")
    raw(root, first=True)
    ingest(notes(), root, root / "documents")
    clean(notes(), CONFIG, root / "documents", root / "clean")
    train_tokenizer([root / "clean"], 300, root / "tokenizer")
    return root / "tokenizer"


# ---------------------------------------------------------------- two at once

HOLD = """
import sys, time
from pathlib import Path
from ratoon.corpus.edition import renew
with renew(Path(sys.argv[1])) as edition:
    edition.place("half").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    other = run(HOLD, tmp_path / "documents" / "notes")
    assert other.stdout.readline() == "held\n"
    yield other
    other.kill()
    other.communicate()


def test_a_second_run_on_one_source_is_refused_with_the_number_of_the_first(held, tmp_path):
    raw(tmp_path, first=True)
    with pytest.raises(ConfigError, match=rf"notes: another run is making this edition \(process {held.pid} on "):
        ingest(notes(), tmp_path, tmp_path / "documents" / "notes")
    assert (tmp_path / "documents" / f".notes.{held.pid}" / "half").exists()


def test_other_sources_do_not_wait(held, tmp_path):
    raw(tmp_path, first=True)
    assert ingest(notes(), tmp_path, tmp_path / "documents" / "other").funnel.documents_kept == 40


def test_the_lock_of_a_killed_process_is_no_lock_and_what_it_left_goes(held, tmp_path):
    held.send_signal(signal.SIGKILL)
    held.communicate()
    raw(tmp_path, first=True)
    ingest(notes(), tmp_path, tmp_path / "documents" / "notes")
    assert [path.name for path in (tmp_path / "documents").iterdir()] == ["notes"]


RACE = """
import sys, time
from pathlib import Path
from small_sources import notes
from ratoon.config import ConfigError
from ratoon.corpus.sources import ingest
root, start = Path(sys.argv[1]), float(sys.argv[2])
made = refused = 0
time.sleep(max(0, start - time.time()))
for _ in range(30):
    try:
        ingest(notes(), root, root / "documents" / "notes", processes=1)
        made += 1
    except ConfigError as error:
        assert "another run is making this edition" in str(error), error
        refused += 1
print(made, refused)
"""


def test_two_processes_that_race_either_make_the_edition_or_are_refused(tmp_path):
    raw(tmp_path, first=False)
    ingest(notes(), tmp_path, tmp_path / "alone" / "notes")
    both = [run(RACE, tmp_path, time.time() + 3) for _ in range(2)]
    told = [each.communicate() for each in both]
    assert [each.returncode for each in both] == [0, 0], told
    assert sum(int(said.split()[0]) for said, _ in told) >= 1
    assert tree(tmp_path / "documents") == tree(tmp_path / "alone")


def test_a_lock_is_let_go_of_with_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), renew(tmp_path / "out"):
        raise ZeroDivisionError
    with renew(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- killed anywhere

KILL = """
import os, signal, sys
from pathlib import Path
from ratoon import records
from ratoon.corpus import edition
from test_edition_faults import prepare
stage, kind, number = sys.argv[3].split(":")
def die(out, what):
    global number
    if f"/{stage}/" in f"{out}/" and kind == what:
        number = int(number) - 1
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
def place(self, name, of=edition.Edition.place):
    die(self.out, "file")
    return of(self, name)
def replace(self, target, of=Path.replace):
    die(target.parent if "ledger" not in str(target) else "", "move")
    return of(self, target)
def write(path, record, of=records.write):
    die(path, "ledger")
    of(path, record)
    die(path, "after")
edition.Edition.place, Path.replace, edition.records.write = place, replace, write
prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""
# Before the n-th file of a stage is begun, moved into place, and before and after its ledger is written. Of clean:
# verdicts, signatures, paragraphs, arrivals, the spill of bands, clusters, fates, parts.
MOMENTS = [
    "documents:file:2",
    *(f"clean:file:{n}" for n in (1, 3, 5, 7, 9, 11, 13, 15)),
    *(f"rows:file:{n}" for n in (2, 4)),
    *(f"{stage}:{kind}:1" for stage in ("documents", "clean", "rows") for kind in ("ledger", "after")),
    *("documents:move:2", "clean:move:7", "rows:move:3"),
]


@pytest.fixture(scope="module")
def states(tokenizer, tmp_path_factory):
    """Before the new batch, and after it in one unbroken run."""
    before, after = (tmp_path_factory.mktemp(name) for name in ("before", "after"))
    raw(before, first=True)
    prepare(before, tokenizer)
    shutil.copytree(before, after, dirs_exist_ok=True)
    raw(after, first=False)
    prepare(after, tokenizer)
    return before, {stage: tree(after / stage) for stage in ("documents", "clean", "rows")}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_step_and_run_again_the_bytes_are_those_of_an_unbroken_run(moment, tokenizer, states, tmp_path):
    before, unbroken = states
    shutil.copytree(before, tmp_path, dirs_exist_ok=True)
    raw(tmp_path, first=False)
    killed = run(KILL, tmp_path, tokenizer, moment)
    _, said = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, said
    prepare(tmp_path, tokenizer)
    for stage in ("documents", "clean", "rows"):
        assert tree(tmp_path / stage) == unbroken[stage], stage


# ---------------------------------------------------------------- what is read goes away


def before_it(name, act, monkeypatch):
    """Have `act` done right before the function of clean.py runs."""
    of = getattr(cleaning, name)

    def function(*arguments, **named):
        act()
        return of(*arguments, **named)

    monkeypatch.setattr(cleaning, name, function)


@pytest.mark.parametrize("step", ["judge", "decide", "settle", "write_parts"])
@pytest.mark.parametrize("fault", ["gone", "cut"])
def test_a_shard_that_vanishes_midway_is_told_of_and_the_earlier_edition_stays(step, fault, tmp_path, monkeypatch):
    for part in range(3):
        lines(tmp_path / "raw" / f"{part}.jsonl", [sentence(20 * part + i) * 3 for i in range(20)])
    documents, out = tmp_path / "documents" / "notes", tmp_path / "clean" / "notes"
    ingest(notes(), tmp_path, documents, processes=1)
    clean(notes(), CONFIG, documents, out, processes=1)
    for part in range(3):
        lines(tmp_path / "raw" / f"{part}.jsonl", [sentence(20 * part + i) * 3 for i in range(19)])
    ingest(notes(), tmp_path, documents, processes=1)
    before = tree(tmp_path / "clean")
    shards = sorted(documents.glob("*.parquet"))

    def act():
        for path in shards if fault == "cut" else ():
            path.write_bytes(path.read_bytes()[:600])
        for path in shards if fault == "gone" else ():
            path.unlink(missing_ok=True)

    before_it(step, act, monkeypatch)
    with pytest.raises(ConfigError, match=r"files-\w+-\w+\.parquet") as told:
        clean(notes(), CONFIG, documents, out, processes=1)
    assert "dvc checkout" in str(told.value)
    assert tree(tmp_path / "clean") == before
