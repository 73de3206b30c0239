"""What every method keeps, whatever it does: each promise is tested on each method there is."""

from pathlib import Path

import forked
import method_table
import numpy as np
import on_ranks
import pytest
import torch
from method_table import CASES
from safetensors.torch import load_file

from ratoon.config import ConfigError
from ratoon.config.loss import Loss
from ratoon.training import checkpoint
from ratoon.training.ranks import check
from ratoon.training.run import Run, train

STEP = 8 * 16
SHORT = {"tokens": 6 * STEP, "checkpoints": 3, "evaluations": 1, "schedule": {"warmup_steps": 1}, "trunk": "none"}
each_method = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def asked_for(prefixed_for):
    def make(out, asked):
        loss = Loss.model_validate(asked.get("loss", {}))
        return prefixed_for(out, loss, **SHORT, **{key: value for key, value in asked.items() if key != "loss"})

    return make


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_every_method_that_params_knows_is_in_the_table():
    assert set(CASES) | set(method_table.ELSEWHERE) == method_table.known()
    assert not set(CASES) & set(method_table.ELSEWHERE)


@each_method
def test_its_neutral_setting_is_plain_training_to_the_bit_and_its_own_is_not(name, asked_for):
    case, plain = CASES[name], weights(train(asked_for("plain", {})))
    assert not same(plain, weights(train(asked_for("asked", case.asked))))
    if case.neutral is not None:
        assert same(plain, weights(train(asked_for("neutral", case.neutral))))


@each_method
def test_a_run_cut_off_and_resumed_ends_where_an_unbroken_one_ends(name, asked_for, monkeypatch):
    whole = train(asked_for("whole", CASES[name].asked))
    save, saves = checkpoint.save, []

    def save_then_die(*args, **kwargs):
        saves.append(save(*args, **kwargs))
        if len(saves) == 2:
            raise KeyboardInterrupt
        return saves[-1]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            train(asked_for("cut", CASES[name].asked))
    resumed = train(asked_for("cut", CASES[name].asked))
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]


@each_method
def test_it_reads_the_rows_of_plain_training_and_leaves_alone_what_is_not_trained(name, asked_for):
    run, plain = Run(asked_for("asked", CASES[name].asked)), Run(asked_for("plain", {}))
    for name, parameter in run.model.named_parameters():
        if "layers.1." in name and not any(own in name for own in ("lora_", "osf_svd_params")):
            parameter.requires_grad_(False)
    held = {n: p.detach().clone() for n, p in run.model.named_parameters() if not p.requires_grad}
    batch_at, seen = run.batch_at, []
    run.batch_at = lambda step: (seen.append(batch_at(step)), seen[-1])[1]
    run.advance(3, 6, None)
    for step, batch in enumerate(seen):
        expected = plain.batch_at(step).place
        assert all(np.array_equal(getattr(batch.place, k), getattr(expected, k)) for k in ("source", "row", "epoch"))
    assert held
    now = dict(run.model.named_parameters())
    assert all(torch.equal(now[n], value) for n, value in held.items())


@forked.needs_fork
@each_method
def test_two_ranks_end_where_one_process_does_or_say_why_they_cannot(name, asked_for):
    case = CASES[name]
    one, two = asked_for("one", case.asked), asked_for("two", case.asked)
    if case.refused is not None:
        with pytest.raises(ConfigError, match=rf"^{case.refused}.* on 2 ranks is not supported"):
            check(two.recipe, 2)
        return
    check(two.recipe, 2)
    alone, shared = weights(train(one)), weights(on_ranks.trained(two))
    assert all(torch.allclose(alone[key], shared[key], atol=1e-4) for key in alone)
