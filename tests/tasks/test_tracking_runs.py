"""Promises of the door to MLflow: runs."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from ratoon.config import ConfigError
from ratoon.records import Observation
from tasks import environment, reach, tracking
from tasks.tracking import TrackingUnavailable, runs, spool


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose store is made once for all tests here: making the tables takes seconds."""
    root = tmp_path_factory.mktemp("project")
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    environment.apply(root)
    yield root
    os.environ.clear()
    os.environ.update(before)


def stored(run_id: str):
    return tracking.client().get_run(run_id)


def test_a_run_keeps_what_was_asked_measured_read_and_made(root, tmp_path, capsys):
    (tmp_path / "report.txt").write_text("good", encoding="utf-8")
    with tracking.run("line", "train 40%", kind="train", parent_run_id="abc", tags={"question": "q"}) as run:
        run.params({"train": {"learning_rate": 0.001}, "seed": 3})
        run.dataset("docs", "d41d8cd98f00b204e9800998ecf8427e.dir", "data/rows/nano/docs", role="general")
        run.metrics({"loss_nats": 2.5, "bits_per_byte": None}, step=10, tokens=640)
        run.artifact(tmp_path / "report.txt", "papers")
        run.html("<p>page</p>")
    kept = stored(run.id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params == {"train.learning_rate": "0.001", "seed": "3"}
    assert kept.data.metrics == {"loss_nats": 2.5, "tokens": 640.0}
    assert kept.data.tags["mlflow.parentRunId"] == "abc"
    assert kept.data.tags["ratoon.kind"] == "train"
    data = kept.inputs.dataset_inputs[0]
    assert data.dataset.digest == "d41d8cd98f00b204e9800998ecf8427e.dir"
    assert {tag.key: tag.value for tag in data.tags}["mlflow.data.context"] == "training"
    files = root / ".ratoon" / "mlartifacts" / run.id / "artifacts"
    assert (files / "papers" / "report.txt").read_text(encoding="utf-8") == "good"
    assert (files / "report.html").exists()
    assert capsys.readouterr().out == ""
    assert tracking.link(run.id) is None


def test_a_failed_block_leaves_a_failed_run_with_its_reason_and_its_metrics(root):
    ids = []

    def diverges():
        with tracking.run("line", "bad", kind="train") as run:
            ids.append(run.id)
            run.metrics({"loss_nats": 9.0}, step=1)
            raise ValueError("diverged at step 2")

    with pytest.raises(ValueError, match="diverged"):
        diverges()
    kept = stored(ids[0])
    assert kept.info.status == "FAILED"
    assert kept.data.tags["error"] == "diverged at step 2"
    assert kept.data.metrics == {"loss_nats": 9.0}


def test_a_proxy_run_is_written_in_three_requests_whatever_it_measured(root, tmp_path, monkeypatch):
    (tmp_path / "observations.csv").write_text("run\n", encoding="utf-8")
    known = dict(group="g", commit=None, config="", model="nano", params_non_embedding=1000, learning_rate=0.001)
    known |= dict(finished=True, role="general", loss_nats=2.0, bits_per_byte=None)
    observations = [
        Observation(run=f"p{n}", tokens=step * 64, share=0.5, step=step, evaluated=source, **known)
        for n in range(60)
        for step in range(4)
        for source in ("docs", "code")
    ]
    asked, ask = [], runs.ask
    monkeypatch.setattr(runs, "ask", lambda method, *given, **more: asked.append(method) or ask(method, *given, **more))
    sweep = tracking.log_sweep("swept", "s1", observations, tmp_path, "parent")
    written = [method for method in asked if method in ("create_run", "log_batch", "set_terminated")]
    assert len(written) <= 3 * 60 + 6  # and those of the sweep above them
    experiment = tracking.client().get_experiment_by_name("swept").experiment_id
    children = tracking.client().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{sweep}'", max_results=100)
    assert len(children) == 60
    assert {run.info.status for run in children} == {"FINISHED"}
    history = tracking.client().get_metric_history(children[0].info.run_id, "held_out/docs/loss_nats")
    assert [(point.step, point.value) for point in history] == [(step, 2.0) for step in range(4)]
    assert "held_out/docs/bits_per_byte" not in children[0].data.metrics


def test_an_outage_while_a_run_goes_on_loses_no_metric_and_does_not_stop_it(root, monkeypatch):
    monkeypatch.setattr(spool, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(spool, "PAUSE_SECONDS", 0.01)
    client, away = tracking.client(), []

    def refused(*_, **__):
        away.append(1)
        raise ConnectionError("connection refused")

    with tracking.run("line", "outage", kind="train") as run:
        with monkeypatch.context() as broken:
            broken.setattr(client, "log_batch", refused)
            for step in range(5):
                run.metrics({"loss_nats": float(step)}, step=step)
                time.sleep(0.05)
        run.metrics({"loss_nats": 5.0}, step=5)
    assert len(away) >= 2
    assert [point.step for point in client.get_metric_history(run.id, "loss_nats")] == list(range(6))


def test_metrics_of_more_than_one_request_all_arrive(root):
    with tracking.run("line", "many", kind="train") as run:
        for step in range(1200):
            run.metrics({"a": float(step)}, step=step)
    assert len(tracking.client().get_metric_history(run.id, "a")) == 1200


@pytest.mark.slow
def test_two_who_make_a_new_store_at_once_both_succeed(tmp_path):
    code = "from tasks import tracking\nwith tracking.run('line', 'x', kind='train'): pass"
    environ = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/new/mlflow.db"}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environ, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said


def test_a_deleted_experiment_says_how_it_comes_back(root):
    with tracking.run("gone", "x", kind="train"):
        pass
    tracking.client().delete_experiment(tracking.client().get_experiment_by_name("gone").experiment_id)
    with (
        pytest.raises(ConfigError, match="experiment 'gone' was deleted; `mlflow experiments restore -x"),
        tracking.run("gone", "x", kind="train"),
    ):
        pass


# ---------------------------------------------------------------- a store that does not answer


@pytest.fixture
def pauses(monkeypatch):
    """Between one try and the next."""
    found = []
    monkeypatch.setattr(reach, "time", SimpleNamespace(sleep=found.append, monotonic=time.monotonic))
    return found


def test_a_dead_server_is_told_of_without_waiting_for_it(monkeypatch, pauses):
    with socket.socket() as taken:  # bound, not listening: refused
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:geheim@{address}")
        with pytest.raises(TrackingUnavailable) as raised, tracking.run("line", "x", kind="train"):
            pass
    assert pauses == []
    said = str(raised.value)
    assert f"MLflow at http://***@{address} does not answer: " in said
    assert "`ratoon status`" in said
    assert "geheim" not in said
    assert isinstance(raised.value, ConnectionError)


def test_a_store_that_cannot_be_opened_is_told_of_without_waiting_for_it(monkeypatch, tmp_path, pauses):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(TrackingUnavailable, match=r"does not answer: .*\n  see that its folder exists"):
        tracking.champion("line")
    assert pauses == []


def test_a_file_that_is_no_database_is_refused(monkeypatch, tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, and longer than a header of one is " * 40, encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(TrackingUnavailable, match="file is not a database"):
        tracking.champion("line")


def test_a_locked_store_is_waited_for_and_then_named(monkeypatch, tmp_path):
    monkeypatch.setattr(reach, "LOOK_SECONDS", 0.2)
    path = tmp_path / "mlflow.db"
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    with pytest.raises(TrackingUnavailable, match="database is locked"):
        tracking.champion("line")
    holder.close()


def test_a_folder_as_store_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    with pytest.raises(ConfigError, match=r"use sqlite:///path/mlflow.db or http"):
        tracking.champion("line")


def test_patience_ends_and_mistakes_are_not_repeated():
    calls = []

    def locked():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("refused")
        return "ok"

    assert reach.patiently("http://x", locked, waits=(0, 0)) == "ok"
    calls.clear()
    with pytest.raises(TrackingUnavailable):
        reach.patiently("http://x", locked, waits=(0,))
    with pytest.raises(ZeroDivisionError):
        reach.patiently("http://x", lambda: 1 / 0, waits=(0, 0))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://ratoon:secret@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("https://token@host/x?sig=secret", "https://***@host/x"),
        ("s3://bucket/path", "s3://bucket/path"),
        ("failed for http://a:b@h/ and sqlite:////x/y.db", "failed for http://***@h/ and sqlite:////x/y.db"),
    ],
)
def test_no_password_is_ever_shown(uri, said):
    assert reach.shown(uri) == said
