"""Nobody changes the text that a run reads: real locks of other processes, and real DVC."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from kept_project import job_of, new_project, write

from ratoon.config import ConfigError
from ratoon.layout import Layout
from tasks import texts, versions
from tasks.job import alone

READER = """
import sys
from pathlib import Path
from ratoon.layout import Layout
from tasks import texts
with texts.read(Layout(Path(sys.argv[1])), ["code"]):
    print("reads", flush=True)
    sys.stdin.read()
"""


@contextmanager
def read_by_another(root):
    command = [sys.executable, "-c", READER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "reads\n"
        yield other
        other.kill()


def bring_up_to_date(root):
    def is_stale(name):
        return bool(versions.status(root, ["--with-deps", f"make@{name}"]))

    return versions.repro(root, within=texts.change(Layout(root), ["words", "code"], is_stale))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = new_project(tmp_path_factory.mktemp("read") / "project")
    versions.repro(root)
    return root


def test_new_text_of_a_source_that_is_read_waits_and_that_of_another_does_not(made):
    before = versions.hashes(made)
    with read_by_another(made) as other:
        assert bring_up_to_date(made).ran == ()  # who finds nothing new need not wait
        write(made / "data" / "raw" / "words" / "text.txt", "three more words")
        assert bring_up_to_date(made).ran == ("make@words",)
        write(made / "data" / "raw" / "code" / "text.txt", "newer code")
        with pytest.raises(
            texts.BeingRead, match=rf"^code: its edition would be replaced, .*\(process {other.pid}\); nothing was"
        ):
            bring_up_to_date(made)
        assert {path: it for path, it in versions.hashes(made).items() if "code" in path} == {
            path: it for path, it in before.items() if "code" in path
        }
    assert bring_up_to_date(made).ran == ("make@code",)  # a reader that was killed reads no more


def test_several_read_at_once_and_each_waits_for_an_edition_that_is_being_made(made):
    layout, order = Layout(made), []

    def reader():
        with texts.read(layout, ["code"]), texts.read(layout, ["code", "words"]):
            order.append("read")

    with texts.change(layout, ["code"], lambda name: True):
        with (
            pytest.raises(ConfigError, match="code: a new edition of it is being made"),
            texts.read(layout, ["code"], 0),
        ):
            pass
        waiting = threading.Thread(target=reader)
        waiting.start()
        waiting.join(3 * texts.LOOK_SECONDS)
        order.append("made")
    waiting.join(30)
    assert order == ["made", "read"]


def test_a_run_whose_text_was_changed_before_it_had_it_does_nothing(made):
    job = job_of(made)
    with alone(job):
        pass
    write(made / "data" / "raw" / "code" / "text.txt", "newest code")
    bring_up_to_date(made)
    with (
        pytest.raises(ConfigError, match=r"data/.*code: another edition of it was made since this run began"),
        alone(job),
    ):
        pass
