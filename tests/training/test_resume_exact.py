"""Resumed at any step, a run is the unbroken one to the bit: everything that decides it is in the checkpoint."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ratoon.stream.mixture import Batch
from ratoon.training import checkpoint, run
from ratoon.training.loop import accumulate, new_step, update
from ratoon.training.method import Method
from ratoon.training.run import Run, train
from ratoon.training.schedules import learning_rate

STEPS = 6
SHORT = {
    "tokens": STEPS * 8 * 16,
    "checkpoints": STEPS,
    "evaluations": 1,
    "schedule": {"warmup_steps": 2},
    "trunk": "none",
}


class Chance(Method):
    """Draws from torch's own generator, keeps a running mean of the weights, and lets it act on them."""

    name = "chance"

    def __init__(self, model):
        self.mean = {name: p.detach().clone() for name, p in model.named_parameters()}

    def term(self, part):
        return (torch.nn.functional.dropout(part.logits_BTV, 0.2) ** 2).mean()

    def after_update(self, state):
        for name, parameter in state.model.named_parameters():
            self.mean[name].lerp_(parameter.detach(), 0.1)
            parameter.data.lerp_(self.mean[name], 0.01)

    def tensors(self):
        return self.mean

    def restore(self, tensors):
        for name, value in tensors.items():
            self.mean[name].copy_(value)


@pytest.fixture(params=["plain", "with chance and memory"])
def kind(request, monkeypatch):
    if request.param != "plain":
        monkeypatch.setattr(run, "build", lambda setting: (Chance(setting.model),))
    return request.param


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def die_after_saves(monkeypatch, number):
    save, saves = checkpoint.save, []

    def save_then_die(*args, **kwargs):
        save(*args, **kwargs)
        saves.append(1)
        if len(saves) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)


def test_resumed_at_any_step_a_run_ends_equal_to_the_bit(kind, request_for):
    whole = train(request_for("whole", **SHORT))
    for step in range(1, STEPS):  # saved after every one
        request = request_for(f"cut-{step}", **SHORT)
        with pytest.MonkeyPatch.context() as patch:
            die_after_saves(patch, step)
            with pytest.raises(KeyboardInterrupt):
                train(request)
        torch.manual_seed(step)  # what a new process has drawn before is no matter
        assert same(weights(whole), weights(train(request)))


def test_seconds_are_those_of_all_tries_and_the_pace_is_the_last_one_s(request_for, monkeypatch):
    now, save, saves = [0.0], checkpoint.save, []

    def takes_its_time(*args, **kwargs):
        save(*args, **kwargs)
        saves.append(1)
        now[0] += 100
        if len(saves) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoint, "save", takes_its_time)
    request = request_for("cut", **SHORT)
    with pytest.raises(KeyboardInterrupt):
        train(request)
    now[0] += 10_000  # nobody tried
    result = train(request)
    assert result.seconds == 200 + 300  # of the third save there was no sign of life
    assert result.tokens_per_second == 3 * 8 * 16 / 300


def test_what_is_drawn_does_not_depend_on_what_the_process_drew_before(request_for, monkeypatch):
    monkeypatch.setattr(run, "build", lambda setting: (Chance(setting.model),))
    first = train(request_for("first", **SHORT))
    torch.rand(17)
    assert same(weights(first), weights(train(request_for("second", **SHORT))))


def test_without_its_random_state_a_run_with_chance_would_end_elsewhere(request_for, monkeypatch):
    """The trap: the test above must be able to fail."""
    monkeypatch.setattr(run, "build", lambda setting: (Chance(setting.model),))
    whole = train(request_for("whole", **SHORT))
    request = request_for("cut", **SHORT)
    with pytest.MonkeyPatch.context() as patch:
        die_after_saves(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(request)
    monkeypatch.setattr(checkpoint, "set_random_state", lambda device, tensors: tensors.pop("rng"))
    assert not same(weights(whole), weights(train(request)))


def test_a_run_goes_on_with_another_number_of_threads_equal_to_rounding(request_for, monkeypatch):
    whole, request = train(request_for("whole", **SHORT)), request_for("cut", **SHORT)
    with pytest.MonkeyPatch.context() as patch:
        die_after_saves(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(request)
    resumed = train(request_for("cut", **{**SHORT, "threads": 2}))
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(resumed)[name], atol=1e-4)


def test_a_run_goes_on_with_other_micro_rows_equal_to_rounding(request_for):
    whole, request = train(request_for("whole", **SHORT)), request_for("cut", **SHORT)
    with pytest.MonkeyPatch.context() as patch:
        die_after_saves(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(request)
    resumed = train(request_for("cut", **SHORT, micro_rows=2))
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(resumed)[name], atol=1e-4)


def slice_of(batch, rank, world):
    rows = slice(rank * len(batch.tokens) // world, (rank + 1) * len(batch.tokens) // world)
    return Batch(batch.tokens[rows], batch.valid[rows])


def go_on_over_ranks(found, until, world):
    """What `world` ranks do whose gradients are summed, one after the other."""
    request, state = found.request, found.state
    rate = learning_rate(request.recipe.schedule, request.recipe.learning_rate, request.steps, request.step_tokens)
    read = []
    while state.step < until:
        whole = found.batch_at(state.step)
        counted = new_step(whole, None).predicted
        for rank in range(world):
            mine = slice_of(whole, rank, world)
            accumulate(state.model, new_step(mine, None, state.step, lambda count: counted), request.recipe)  # noqa: B023
            read.append(mine.tokens)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), request.recipe.max_norm)
        update(state, rate(state.step))
        state.step += 1
    return np.concatenate(read)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (4, 2), (2, 8)])
def test_another_world_size_goes_on_with_the_same_rows_to_the_same_end(before, after, request_for, tmp_path):
    request = request_for(**SHORT)
    alone = Run(request)
    expected = go_on_over_ranks(alone, STEPS, 1)
    first = Run(request)
    rows = go_on_over_ranks(first, 3, before)
    saved = checkpoint.save(first.state, tmp_path / "saved", tokenizer=None, identity="x", tokens=0)
    second = Run(request)
    progress = checkpoint.restore(second.state, saved, "x")
    # The place in the stream is the step: nothing of ranks, workers or rows read is kept.
    assert set(progress) == {"step", "tokens", "identity"}
    rows = np.concatenate([rows, go_on_over_ranks(second, STEPS, after)])
    assert (rows == expected).all()
    for one, other in zip(alone.model.parameters(), second.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_line_cut_short_by_a_full_disk_is_dropped_and_the_rest_kept(request_for):
    request = request_for("cut", **SHORT)
    with pytest.MonkeyPatch.context() as patch:
        die_after_saves(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(request)
    path = Path(request.out) / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 3, "tok\xff\n7\n')
    train(request)
    found = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert found == sorted(found)
    assert {0, 6} <= set(found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's random state needs a GPU")
def test_a_gpus_random_state_is_in_the_checkpoint(request_for, tmp_path):
    found = Run(request_for(device="cuda", **SHORT))
    torch.cuda.manual_seed(5)
    torch.rand(3, device="cuda")
    saved = checkpoint.save(found.state, tmp_path, tokenizer=None, identity="x", tokens=0)
    expected = torch.rand(5, device="cuda")
    checkpoint.restore(found.state, saved, "x")
    assert torch.equal(torch.rand(5, device="cuda"), expected)
