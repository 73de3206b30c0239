"""Promises about an outage: a real MLflow server, killed while runs go on, and started again.

One outage, three runs through it: one that goes on past it, one that ends in it, one whose process is killed in it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest

from tasks import environment, reach, tracking
from tasks.tracking import spool

WRITER = """
import sys
from tasks import tracking
with tracking.run("line", "killed", kind="train") as run:
    for step in range(10):
        run.metrics({"loss_nats": step / 7}, step=step, tokens=64 * step)
    run.flush()
    print(run.id, flush=True)
    sys.stdin.readline()  # the server is killed meanwhile
    for step in range(10, 25):
        run.metrics({"loss_nats": step / 7}, step=step, tokens=64 * step)
    print("written", flush=True)
    sys.stdin.readline()
"""


class Server:
    def __init__(self, root):
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.root}/served.db"]
        command += ["--default-artifact-root", (self.root / "artifacts").as_uri()]
        with (self.root / "server.log").open("ab") as log:
            quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
        for _ in range(600):
            try:
                return urllib.request.urlopen(f"{self.address}/health", timeout=2).close()
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.root / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def history(run_id, key):
    return [(point.step, point.value) for point in tracking.client().get_metric_history(run_id, key)]


def losses(steps):
    return [(step, step / 7) for step in steps]


def write(run, steps):
    for step in steps:
        run.metrics({"loss_nats": step / 7}, step=step, tokens=64 * step)


def start_writer():
    """A process of its own, with ten points written; it waits for a word before it writes the others."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", WRITER], **pipes)
    return process, process.stdout.readline().strip()


def kill_writer(process):
    """Once it has written what it measured during the outage."""
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == "written"
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture(scope="module")
def outage(tmp_path_factory):
    """What was seen before, in and after it."""
    root = tmp_path_factory.mktemp("outage")
    server, before, seen = Server(root), dict(os.environ), {}
    server.start()
    environment.apply(root)
    os.environ |= {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with ExitStack() as ends, pytest.MonkeyPatch.context() as quick:
        quick.setattr(reach, "WAITS_SECONDS", (0.1,))
        quick.setattr(spool, "FLUSH_SECONDS", 0.1)
        quick.setattr(spool, "PAUSE_SECONDS", 0.1)
        ends.callback(server.kill)
        process, seen["killed"] = start_writer()
        with tracking.run("line", "goes on", kind="train") as on:
            with tracking.run("line", "ends in it", kind="train") as short:
                write(on, range(10))
                write(short, range(10))
                on.flush()
                short.flush()
                server.kill()
                write(on, range(10, 30))
                write(short, range(10, 15))
                short.tags({"model": "where the weights are"})
            kill_writer(process)
            seen["kept"] = {path.stem for path in tracking.left_behind()}
            kept = root / ".ratoon" / "unsent" / f"{short.id}.jsonl"
            shutil.copy(kept, root / "copy.jsonl")
            server.start()
            write(on, range(30, 40))
        seen["left"] = tracking.recover(patient=True)
        shutil.copy(root / "copy.jsonl", kept)  # as if killed between sending and crossing out
        seen["again"] = tracking.recover(patient=True)
        seen |= {"on": on.id, "short": short.id}
        yield seen
    os.environ.clear()
    os.environ.update(before)


def test_what_was_measured_in_an_outage_is_written_down(outage):
    assert outage["kept"] == {outage["on"], outage["short"], outage["killed"]}


def test_the_history_of_a_run_through_an_outage_is_that_of_an_unbroken_one(outage):
    assert history(outage["on"], "loss_nats") == losses(range(40))
    assert history(outage["on"], "tokens") == [(step, 64.0 * step) for step in range(40)]
    assert tracking.client().get_run(outage["on"]).info.status == "FINISHED"


def test_a_run_that_ended_in_an_outage_ends_with_all_it_measured(outage):
    kept = tracking.client().get_run(outage["short"])
    assert history(outage["short"], "loss_nats") == losses(range(15))
    assert kept.data.tags["model"] == "where the weights are"
    assert kept.info.status == "FINISHED"
    assert kept.info.end_time is not None


def test_a_process_killed_in_an_outage_loses_no_metric(outage):
    assert history(outage["killed"], "loss_nats") == losses(range(25))
    assert outage["left"].runs == 2
    assert outage["left"].points == 2 * (5 + 15)


def test_what_is_sent_twice_is_there_once(outage):
    assert outage["again"].points == 2 * 5
    assert history(outage["short"], "loss_nats") == losses(range(15))
    assert tracking.left_behind() == []


def test_records_of_a_run_this_store_does_not_know_are_kept_and_named(outage):
    stray = tracking.spool.folder() / f"{'0' * 32}.jsonl"
    stray.write_text('{"metrics": [["loss_nats", 1.0, 1, 1]]}\n{"metrics": [["lo', encoding="utf-8")
    left = tracking.recover(patient=True)
    assert left.points == 0
    assert f"{stray}: MLflow at http://127.0.0.1" in left.kept[0]
    assert stray.exists()
    stray.unlink()


def test_a_full_disk_does_not_stop_a_run_and_loses_no_metric(outage, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "FLUSH_SECONDS", 60.0)
    with tracking.run("line", "full", kind="train") as run:
        with monkeypatch.context() as broken:
            broken.setattr(spool.json, "dumps", full)
            write(run, range(3))
        write(run, range(3, 5))
    assert history(run.id, "loss_nats") == losses(range(5))


def test_what_mlflow_will_never_take_is_told_and_not_sent_for_ever(outage):
    def wrong():
        with tracking.run("line", "wrong", kind="train") as run:
            ids.append(run.id)
            run.metrics({"no such ? name!": 1.0})
            run.flush()

    ids = []
    with pytest.raises(Exception, match=r"no such \? name!"):
        wrong()
    assert tracking.client().get_run(ids[0]).info.status == "FAILED"
    assert "does not take it" in tracking.recover().kept[0]
    (spool.folder() / f"{ids[0]}.jsonl").unlink()
