"""Killed while saving, a full disk, saving beside the training: a whole checkpoint is always there to go on from."""

import errno
import json
import os
import resource
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from forked import die_at_file_operation, end_of, needs_fork, run, start
from safetensors.torch import load_file

from ratoon.config.faults import Faults
from ratoon.training import __main__, attempt, checkpoint
from ratoon.training.disk import tidy
from ratoon.training.run import Run, train
from ratoon.training.staging import Staging, Writer

SHORT = {"tokens": 8 * 8 * 16, "schedule": {"warmup_steps": 2}, "trunk": "none"}
KEPT = {"tokenizer": None, "identity": "x", "tokens": 0}


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def files_of(saved):
    return {str(p.relative_to(saved)): p.read_bytes() for p in saved.rglob("*.safetensors")}


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


@pytest.fixture
def under_way(request_for):
    """A run at step 2, and a function that takes it further."""
    request = request_for("under-way", device="cpu")
    found = Run(request)
    found.advance(2, request.steps, None)
    return found


@needs_fork
def test_killed_at_any_operation_of_a_save_an_earlier_checkpoint_or_this_one_is_whole(under_way, tmp_path):
    folder = tmp_path / "checkpoints"
    earlier = []
    for step in (1, 2):
        under_way.state.step = step
        earlier.append(files_of(checkpoint.save(under_way.state, folder, **KEPT)))
    under_way.advance(3, 20, None)
    new = files_of(checkpoint.save(under_way.state, tmp_path / "apart", **KEPT))
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    number, code, newest = 0, -signal.SIGKILL, []

    def save():
        die_at_file_operation(number)
        checkpoint.save(under_way.state, folder, **KEPT)

    while code == -signal.SIGKILL:
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        code = run(save)
        whole = checkpoint.whole(folder)
        assert whole[-1].name in ("step-00000002", "step-00000003")
        newest.append(whole[-1].name)
        assert files_of(whole[-1]) == (new if whole[-1].name.endswith("3") else earlier[1])
        tidy(folder)
        assert leftovers(folder) == []
        assert len(checkpoint.whole(folder)) >= 1
        number += 1
    assert code == 0
    assert number > 10  # operations of a save, a kill before each
    assert newest == sorted(newest)
    assert len(set(newest)) == 2


@needs_fork
def test_killed_at_any_time_of_saves_one_after_the_other_a_checkpoint_is_whole_and_loads(under_way, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint.save(under_way.state, folder, **KEPT)

    def save_on():
        writer = Writer()
        while True:
            under_way.state.step += 1
            checkpoint.save(under_way.state, folder, writer=writer, **KEPT)

    for tenth in range(12):
        child = start(save_on)
        time.sleep(0.01 + 0.013 * tenth)
        os.kill(child, signal.SIGKILL)
        assert end_of(child) == -signal.SIGKILL
        tidy(folder)
        newest = checkpoint.whole(folder)[-1]
        checkpoint.restore(under_way.state, newest, "x")
        assert under_way.state.step == int(newest.name[5:])


@needs_fork
@pytest.mark.parametrize("saving", ["beside", "waiting"])
def test_a_run_killed_at_operations_of_its_saves_ends_where_an_unbroken_one_ends(saving, request_for):
    recipe = {"checkpoints": 4, "device": "cpu", **SHORT}
    whole = train(request_for("whole", **recipe))
    request = request_for("killed", faults=Faults(saving=saving), **recipe)

    def killed(number):
        die_at_file_operation(number)
        train(request)  # from where the last one was killed

    codes = [run(partial(killed, number)) for number in (9, 16, 23, 30, 37)]
    assert codes.count(-signal.SIGKILL) >= 3
    (Path(request.out) / "result.json").unlink(missing_ok=True)
    resumed = train(request)
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]
    steps = [json.loads(line)["step"] for line in (Path(request.out) / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@needs_fork
@pytest.mark.parametrize(("kib", "saving"), [(2, "waiting"), (40, "beside"), (100, "waiting"), (100, "beside")])
def test_a_real_limit_on_file_size_ends_in_a_letter_and_leaves_no_half_checkpoint(kib, saving, request_for, capfd):
    """2 KiB: too little for the configuration; 40: for the weights; 100: for the optimizer."""
    request = request_for("full", device="cpu", faults=Faults(saving=saving), **SHORT)
    out = Path(request.out)
    out.mkdir()
    (out / "request.json").write_text(request.model_dump_json())

    def limited():
        train_until(request, 4)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10))
        return __main__.main(["run", str(out / "request.json")])

    assert run(limited) == 3
    said = capfd.readouterr().err
    assert f"ratoon: could not save {out}/checkpoints/step-00000006: {os.strerror(errno.EFBIG)}; free space" in said
    assert leftovers(out / "checkpoints") == []
    assert leftovers(out) == []
    assert checkpoint.whole(out / "checkpoints")[-1].name == "step-00000004"
    whole = train(request_for("whole", **SHORT))
    assert same(weights(train(request)), weights(whole))


def train_until(request, step):
    save = checkpoint.save

    def then_end(state, *args, **kwargs):
        save(state, *args, **kwargs)
        if state.step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", then_end)
        with pytest.raises(KeyboardInterrupt):
            train(request)


def test_a_disk_without_room_is_refused_before_a_byte_is_written(under_way, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    checkpoint.save(under_way.state, folder, **KEPT)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 1 << 30, 100 << 10))
    under_way.advance(3, 20, None)
    with pytest.raises(
        OSError, match=r"could not save .*step-00000003: No space left on device for .* MiB, 0 free; free"
    ) as e:
        checkpoint.save(under_way.state, folder, **KEPT)
    assert e.value.errno == errno.ENOSPC
    assert [p.name for p in folder.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("call", range(1, 6))
def test_a_disk_that_fills_up_at_any_write_leaves_the_earlier_checkpoint_and_no_leftover(
    call, under_way, tmp_path, monkeypatch
):
    folder = tmp_path / "checkpoints"
    before = files_of(checkpoint.save(under_way.state, folder, **KEPT))
    under_way.advance(3, 20, None)
    calls = 0

    def failing(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args, **kwargs)

        return wrapped

    for owner, name in ((checkpoint, "write_model"), (checkpoint, "save_file"), (Path, "write_text"), (os, "fsync")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    with pytest.raises(OSError, match="No space left on device; free space"):
        checkpoint.save(under_way.state, folder, **KEPT)
    monkeypatch.undo()
    assert calls == call
    assert [p.name for p in folder.iterdir()] == ["step-00000002"]
    assert files_of(folder / "step-00000002") == before


def test_what_is_written_beside_is_the_state_at_the_save_whatever_steps_follow(under_way, tmp_path, monkeypatch):
    expected = files_of(checkpoint.save(under_way.state, tmp_path / "waiting", **KEPT))
    writer, go_on = Writer(), threading.Event()
    write_model = checkpoint.write_model

    def held_up(*args):
        assert go_on.wait(60)
        write_model(*args)

    monkeypatch.setattr(checkpoint, "write_model", held_up)
    path = checkpoint.save(under_way.state, tmp_path / "beside", writer=writer, **KEPT)
    under_way.advance(5, 20, None)
    assert not path.exists()
    go_on.set()
    writer.wait()
    assert files_of(path) == expected


def test_both_ways_of_saving_leave_the_same_files_and_the_same_run(request_for):
    beside = train(request_for("beside", faults=Faults(saving="beside")))
    waiting = train(request_for("waiting", faults=Faults(saving="waiting")))
    assert files_of(Path(beside.model)) == files_of(Path(waiting.model))


@pytest.mark.parametrize(
    ("saving", "device", "beside"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("beside", "cpu", True),
        ("waiting", "cuda", False),
    ],
)
def test_a_gpu_is_saved_beside_its_training_and_a_cpu_waits_unless_told(
    saving, device, beside, request_for, monkeypatch
):
    monkeypatch.setattr(attempt, "pick_device", lambda wanted: torch.device(device))
    request = request_for(faults=Faults(saving=saving), device="cpu")
    Path(request.out).mkdir()
    made = attempt.Attempt(request, Run, evaluate_at=[20], save_at=[20], asked=bool)
    assert (made.writer is not None) == beside


def test_an_error_beside_the_training_reaches_it_at_the_next_save_and_at_the_end():
    writer = Writer()

    def fails():
        raise OSError(errno.ENOSPC, "could not save it")

    writer.begin(fails)
    with pytest.raises(OSError, match="could not save it"):
        writer.begin(lambda: None)
    writer.begin(fails)
    with pytest.raises(OSError, match="could not save it"):
        writer.wait()
    writer.wait()


def test_one_checkpoint_is_written_at_a_time():
    writer, under_way, most = Writer(), 0, 0

    def job():
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.02)
        under_way -= 1

    for _ in range(4):
        writer.begin(job)
    writer.wait()
    assert most == 1


def test_tied_weights_stay_tied_in_a_copy_and_memory_is_used_again():
    staging, tied = Staging(), torch.randn(4, 3)
    first = staging.copy({"embedding": tied, "head": tied, "turned": tied.T})
    assert first["embedding"] is first["head"]
    assert torch.equal(first["turned"], tied.T)
    second = staging.copy({"embedding": tied + 1, "head": tied + 1})
    assert second["embedding"].data_ptr() == first["embedding"].data_ptr()
    assert torch.equal(second["embedding"], tied + 1)


def test_without_memory_for_a_copy_the_checkpoint_is_written_while_training_waits(under_way, tmp_path, monkeypatch):
    def full(self, name, tensor):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(Staging, "room", full)
    path = checkpoint.save(under_way.state, tmp_path / "checkpoints", writer=Writer(), **KEPT)
    assert checkpoint.is_whole(path)
