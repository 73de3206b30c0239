"""Out of memory: the same rows in smaller parts, the result equal but for rounding."""

import resource
import signal
from pathlib import Path

import pytest
import torch
from forked import needs_fork, run
from safetensors.torch import load_file

from ratoon.config import ConfigError
from ratoon.training import loop, supervise
from ratoon.training.batch import BatchRequest
from ratoon.training.faults import Book, Fault, halved
from ratoon.training.run import Run, train
from ratoon.training.staging import short_of_memory


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def equal_to_rounding(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=2e-4) for k in a)


def too_much(monkeypatch, rows, error, from_step=0):
    """A machine that has no memory for a forward pass over more than so many rows."""
    rows_loss = loop.rows_loss

    def limited(model, step, part, recipe, methods):
        if len(step.batch.tokens[part]) > rows and step.number >= from_step:
            raise error
        return rows_loss(model, step, part, recipe, methods)

    monkeypatch.setattr(loop, "rows_loss", limited)


def test_out_of_memory_the_step_is_repeated_in_smaller_parts(request_for, monkeypatch):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    whole = train(request_for("whole"))
    request = request_for("scarce", evaluations=10)
    too_much(monkeypatch, 2, error, from_step=9)
    scarce = train(request)
    assert [(f.kind, f.step, f.micro_rows, f.left_out) for f in scarce.faults] == [
        ("memory", 9, 4, {}),
        ("memory", 9, 2, {}),
    ]
    assert equal_to_rounding(weights(whole), weights(scarce))
    last = [o.loss_nats for o in whole.observations[-2:]]
    assert [o.loss_nats for o in scarce.observations[-2:]] == pytest.approx(last, rel=1e-5)
    steps = [o.step for o in scarce.observations]
    assert steps == sorted(steps)
    assert len(steps) == 22


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_want_of_memory_is_known_by_its_words(error, short):
    assert short_of_memory(error) is short


def test_a_run_taken_up_again_keeps_the_smaller_parts(request_for, monkeypatch):
    request = request_for("scarce")
    too_much(monkeypatch, 4, MemoryError())
    first = train(request)
    (Path(request.out) / "result.json").unlink()
    again = train(request)
    assert again.faults == first.faults
    assert all(torch.equal(weights(first)[k], weights(again)[k]) for k in weights(first))


def test_held_out_rows_are_scored_in_smaller_parts_too(request_for, monkeypatch):
    request = request_for("scarce", micro_rows=8)
    mean_loss, sizes = loop.mean_loss, []

    def limited(model, batches, *others):
        batches = list(batches)
        sizes.append(max(len(batch.tokens) for batch in batches))
        if sizes[-1] > 4:
            raise MemoryError
        return mean_loss(model, batches, *others)

    monkeypatch.setattr("ratoon.training.run.mean_loss", limited)
    result = train(request)
    assert [f.micro_rows for f in result.faults] == [4]
    assert sizes[0] > 4
    assert set(sizes[1:]) == {4}


def test_one_row_that_does_not_fit_is_told_in_a_letter(request_for, monkeypatch):
    request = request_for("hopeless")
    too_much(monkeypatch, 0, MemoryError())
    with pytest.raises(
        ConfigError, match=r"train\.micro_rows: out of memory with one row per forward pass.*allowed: a"
    ):
        train(request)
    assert [f.micro_rows for f in Book(Path(request.out) / "faults.json", request.identity()).faults] == [4, 2, 1]


def test_parts_shrink_to_divisors_of_the_step_alone():
    found, micro_rows = [], 60
    while micro_rows > 1:
        micro_rows = halved(60, micro_rows)
        found.append(micro_rows)
    assert found == [30, 15, 6, 3, 1]
    with pytest.raises(ConfigError, match="fewer there are not"):
        halved(60, 1)


def test_other_errors_are_not_taken_for_want_of_memory(request_for, monkeypatch):
    too_much(monkeypatch, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(request_for())


@needs_fork
def test_a_real_allocation_that_fails_is_known_as_want_of_memory():
    def allocate():
        resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))
        try:
            torch.empty(128 << 30, dtype=torch.uint8)
        except RuntimeError as error:
            return 0 if short_of_memory(error) else 2
        return 3

    assert run(allocate) == 0


@pytest.mark.parametrize(("died_of", "kills", "expected"), [(9, (5, 6), [4]), (9, (5, 5), []), (11, (5, 6), [])])
def test_a_run_the_system_killed_for_its_memory_is_started_again_in_smaller_parts(
    died_of, kills, expected, request_for, monkeypatch, tmp_path
):
    request, codes, counter = request_for(), [-died_of, 0], tmp_path / "vmstat"
    counter.write_text(f"nr_free_pages 7\noom_kill {kills[0]}\n")

    def once(*args):
        counter.write_text(f"nr_free_pages 9\noom_kill {kills[1]}\n")
        return codes.pop(0), ""

    monkeypatch.setattr(supervise, "KILLS", counter)
    monkeypatch.setattr(supervise, "once", once)
    supervise.supervise("run", request, Path(request.out))
    found = Book(Path(request.out) / "faults.json", request.identity()).faults
    assert [fault.micro_rows for fault in found] == expected


def test_memory_kills_end_in_a_letter_at_one_row_and_other_kills_after_the_restarts(request_for, monkeypatch, tmp_path):
    request, counter, tries = request_for(), tmp_path / "vmstat", []

    def once(*args):
        tries.append(1)
        counter.write_text(f"oom_kill {len(tries)}\n")
        return -signal.SIGKILL, ""

    counter.write_text("oom_kill 0\n")
    monkeypatch.setattr(supervise, "KILLS", counter)
    monkeypatch.setattr(supervise, "once", once)
    with pytest.raises(ConfigError, match="out of memory with one row"):
        supervise.supervise("run", request, Path(request.out))
    assert len(tries) == 4  # 8, 4, 2, 1 rows
    monkeypatch.setattr(supervise, "KILLS", tmp_path / "nowhere")
    with pytest.raises(supervise.Killed, match=r"ended by SIGKILL 3 times; the machine may be out of memory"):
        supervise.supervise("run", request, Path(request.out))


def test_a_sweep_the_system_killed_for_its_memory_is_not_started_again(request_for, monkeypatch, tmp_path):
    request, counter, tries = request_for(), tmp_path / "vmstat", []
    batch = BatchRequest(requests=(request,), workers=2, out=str(tmp_path / "batch"))

    def once(*args):
        tries.append(1)
        counter.write_text("oom_kill 1\n")
        return -signal.SIGKILL, ""

    counter.write_text("oom_kill 0\n")
    monkeypatch.setattr(supervise, "KILLS", counter)
    monkeypatch.setattr(supervise, "once", once)
    with pytest.raises(supervise.Killed, match=r"memory was short; lower sweep\.workers"):
        supervise.supervise("batch", batch, Path(batch.out))
    assert len(tries) == 1


def test_smaller_parts_come_from_the_record_of_the_run_alone(request_for):
    request = request_for()
    Path(request.out).mkdir()
    book = Book(Path(request.out) / "faults.json", request.identity())
    book.add(Fault(kind="memory", step=0, why="x", micro_rows=2))
    seen = []
    advance = Run.advance

    def spy(self, *args):
        seen.append(self.request.recipe.micro_rows)
        return advance(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "advance", spy)
        train(request)
    assert set(seen) == {2}
