"""Asked to end by a scheduler: the step is finished, the state saved, and the run goes on later as if nothing were."""

import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from forked import end_of, needs_fork, start
from safetensors.torch import load_file

from ratoon import records
from ratoon.config import ConfigError
from ratoon.config.faults import Faults
from ratoon.training import __main__, checkpoint, supervise
from ratoon.training.asked import Asked
from ratoon.training.faults import ENDED, GAVE_UP, Ended, GaveUp
from ratoon.training.run import train

LONG = {"tokens": 120 * 8 * 16, "checkpoints": 1, "evaluations": 1, "device": "cpu", "trunk": "none"}


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def process(request):
    """Starts `python -m ratoon.training run` but for the start of the interpreter; returns its id."""
    out = Path(request.out)
    out.mkdir(exist_ok=True)
    (out / "request.json").write_text(request.model_dump_json())
    return start(lambda: __main__.main(["run", str(out / "request.json")]))


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@needs_fork
def test_a_run_asked_to_end_saves_and_goes_on_later_to_the_same_end(request_for, capfd):
    whole, request = train(request_for("whole", **LONG)), request_for("asked", **LONG)
    child = process(request)
    wait_for(lambda: (Path(request.out) / "observations.csv").exists())
    os.kill(child, signal.SIGTERM)
    assert end_of(child) == ENDED
    assert "ratoon: tiny-run was asked to end and did, at step" in capfd.readouterr().err
    saved = checkpoint.whole(Path(request.out) / "checkpoints")
    assert len(saved) <= 1  # none where it was asked before its first step
    resumed = train(request)
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]


@needs_fork
def test_a_second_signal_ends_a_run_at_once(request_for, monkeypatch):
    request = request_for("twice", **LONG)
    marker, saved = Path(request.out) / "saving", Path(request.out) / "saved"

    def slow(*args):
        marker.touch()
        time.sleep(60)
        saved.touch()

    monkeypatch.setattr(checkpoint, "write_model", slow)
    child = process(request)
    wait_for(lambda: len(lines(request)) > 0)
    os.kill(child, signal.SIGTERM)
    wait_for(marker.exists)
    os.kill(child, signal.SIGTERM)
    assert end_of(child) == ENDED
    assert not saved.exists()
    assert checkpoint.whole(Path(request.out) / "checkpoints") == []


def lines(request):
    path = Path(request.out) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@needs_fork
def test_a_save_that_outlasts_the_grace_is_given_up(request_for, monkeypatch):
    request = request_for("slow", **LONG, faults=Faults(grace_seconds=0.2))
    monkeypatch.setattr(checkpoint, "write_model", lambda *args: time.sleep(60))
    child = process(request)
    wait_for(lambda: len(lines(request)) > 0)
    os.kill(child, signal.SIGTERM)
    assert end_of(child) == ENDED


def test_asked_before_every_step_a_run_still_ends_where_an_unbroken_one_does(request_for):
    recipe = {"tokens": 12 * 8 * 16, "trunk": "none"}
    whole, request = train(request_for("whole", **recipe)), request_for("asked", **recipe)
    ends, at = [], []
    while not (Path(request.out) / "result.json").exists():
        answers = itertools.chain([False, False], itertools.repeat(True))
        try:
            result = train(request, answers.__next__)
        except Ended as letter:
            ends.append(str(letter))
            at.append(int(checkpoint.whole(Path(request.out) / "checkpoints")[-1].name[5:]))
    assert all(f"did, at step {step} of 12; its state is saved" in said for said, step in zip(ends, at, strict=True))
    assert at == sorted(set(at))
    assert len(ends) >= 4
    assert same(weights(whole), weights(result))
    assert [(o.step, o.loss_nats) for o in whole.observations] == [(o.step, o.loss_nats) for o in result.observations]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_every_signal_that_asks_is_heard_and_handlers_are_put_back_as_they_were(sign):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with Asked(60) as asked:
        assert not asked()
        os.kill(os.getpid(), sign)
        assert asked()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    assert not [thread for thread in threading.enumerate() if thread is asked.timer and not thread.finished.is_set()]


@pytest.mark.parametrize(
    ("code", "error"),
    [(2, ConfigError), (3, OSError), (GAVE_UP, GaveUp), (ENDED, Ended), (-signal.SIGTERM, Ended), (1, RuntimeError)],
)
def test_the_supervisor_understands_every_exit_code_and_repeats_none(code, error, request_for, monkeypatch):
    tries = []
    monkeypatch.setattr(supervise, "once", lambda *args: tries.append(1) or (code, "the letter"))
    request = request_for()
    with pytest.raises(error) as caught:
        supervise.supervise("run", request, Path(request.out))
    assert type(caught.value) is error
    assert tries == [1]
    assert ("run again to go on" if code == -signal.SIGTERM else "the letter") in str(caught.value)


@pytest.mark.slow
def test_the_supervisor_passes_on_that_a_run_ended_by_request(request_for):
    request = request_for("asked", **LONG)
    out = Path(request.out)
    asked = []

    def ask(line):
        if not asked:
            asked.append(int((out / "pid").read_text()))
            os.kill(asked[0], signal.SIGTERM)

    request = request.model_copy(update={"recipe": request.recipe.model_copy(update={"tokens": 10**6 * 8 * 16})})
    with pytest.raises(Ended, match=r"was asked to end and did, at step \d+ of 1000000; its state is saved"):
        supervise.supervise("run", request, out, on_line=ask)
    assert asked


def test_a_clock_that_jumps_back_changes_nothing_but_the_stamps(request_for, monkeypatch):
    whole = train(request_for("whole"))
    now = itertools.count(2_000_000_000, -86_400)
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    save, saves = checkpoint.save, []

    def die_once(*args, **kwargs):
        save(*args, **kwargs)
        saves.append(1)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", die_once)
    request = request_for("jumps")
    with pytest.raises(KeyboardInterrupt):
        train(request)
    resumed = train(request)
    assert same(weights(whole), weights(resumed))
    assert resumed.seconds > 0
    assert resumed.tokens_per_second > 0
    steps = [line["step"] for line in lines(request)]
    assert steps == sorted(steps)
    stamps = [line["time"] for line in lines(request)]
    assert stamps == sorted(stamps, reverse=True)
    assert records.read_observations(Path(request.out) / "observations.csv") == list(resumed.observations)
