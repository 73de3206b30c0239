"""train.adapter within a run: exact on resume, merged on release, the same rows as without."""

import hashlib
from pathlib import Path

import pytest
import torch
from cut_off import train_in_two
from safetensors.torch import load_file

from ratoon.config import ConfigError
from ratoon.evaluation.trajectory import KEPT, keep_weights
from ratoon.lm.adapters import adapter_tensors, is_adapter, wrapped
from ratoon.lm.load import load_model
from ratoon.training import checkpoint
from ratoon.training.alone import put_back, snapshot
from ratoon.training.group import Group, run_group
from ratoon.training.release import put_together
from ratoon.training.run import Run, train
from tasks.history import as_model

STEP = 8 * 16
KINDS = {
    "lora": {"adapter": {"name": "lora", "rank": 4}},
    "dora, muon": {"adapter": {"name": "dora", "rank": 4}, "optimizer": {"name": "muon"}},
    "osf, activations twice": {"adapter": {"name": "osf"}, "activation_checkpointing": True},
    "rslora, pure bf16": {"adapter": {"name": "rslora", "rank": 4}, "precision": "bf16_pure"},
}
each_kind = pytest.mark.parametrize("option", KINDS.values(), ids=KINDS)


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@each_kind
def test_an_adapted_run_resumes_to_the_bit_and_releases_a_plain_model(option, request_for, tiny, monkeypatch):
    parent = digest(tiny / "model")
    whole = train(request_for("whole", evaluations=1, **option))
    resumed = train_in_two(request_for("cut", evaluations=1, **option), monkeypatch)
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]
    assert digest(tiny / "model") == parent
    assert weights(whole).keys() == load_file(tiny / "model" / "model.safetensors").keys()
    losses = [o.loss_nats for o in whole.observations if o.evaluated == "general"]
    assert losses[-1] < losses[0]


@each_kind
def test_what_is_released_loses_what_was_measured(option, request_for):
    request = request_for(**option)
    result = train(request)
    again = Run(request_for("again").model_copy(update={"model": result.model}))
    measured = {o.evaluated: o.loss_nats for o in result.observations if o.step == request.steps}
    for found in again.evaluate(run="x", group="x", finished=True):
        assert found.loss_nats == pytest.approx(measured[found.evaluated], abs=1e-5)


def test_a_checkpoint_holds_the_adapter_alone(request_for):
    request = request_for(adapter={"name": "lora", "rank": 1, "targets": ["*.q_proj"]})
    train(request)
    last = checkpoint.whole(Path(request.out) / "checkpoints")[-1]
    assert all(is_adapter(name) for name in load_file(last / checkpoint.ADAPTER))
    assert not (last / "model.safetensors").exists()


@each_kind
def test_a_checkpoint_put_together_is_what_would_have_been_released(option, request_for, tmp_path):
    request = request_for(evaluations=1, **option)
    result = train(request)
    last = checkpoint.whole(Path(request.out) / "checkpoints")[-1]
    made = put_together(request, last, tmp_path / "made")
    assert same(load_file(made / "model.safetensors"), weights(result))
    assert checkpoint.is_whole(made)


def test_what_is_kept_of_an_adapted_run_is_a_model_while_it_is_looked_at(request_for, tiny):
    request = request_for(evaluations=1, **KINDS["lora"])
    train(request)
    kept = Path(request.out) / KEPT
    keep_weights(Path(request.out) / "checkpoints", kept)
    before, last = sorted(kept.iterdir())
    with as_model(before, request) as one, as_model(last, request) as other:
        early, late = (load_file(model / "model.safetensors") for model in (one, other))
        assert early.keys() == late.keys() == load_file(tiny / "model" / "model.safetensors").keys()
        assert not same(early, late)
    assert sorted(kept.iterdir()) == [before, last]  # whole models of an adapter are not kept


def test_a_release_of_scale_0_is_the_parent_to_the_bit(request_for, tiny):
    result = train(request_for(adapter={"name": "dora", "rank": 4, "release_scale": 0.0}))
    assert same(weights(result), load_file(tiny / "model" / "model.safetensors"))


def test_an_adapter_reads_the_same_rows(request_for):
    plain, adapted = Run(request_for("a")), Run(request_for("b", **KINDS["lora"]))
    for step in (0, 7):
        assert (plain.batch_at(step).tokens == adapted.batch_at(step).tokens).all()
    assert plain.params == adapted.params


def test_no_adapter_leaves_a_run_its_identity_and_one_changes_it(request_for):
    assert request_for(adapter=None).identity() == request_for().identity()
    assert request_for(**KINDS["lora"]).identity() != request_for().identity()


def test_a_sweep_of_adapters_branches_to_the_bit(request_for):
    option = KINDS["osf, activations twice"]
    request = request_for("trunk", tokens=20 * STEP, **option)
    found = run_group(Group(request=request, horizons=(10 * STEP, 20 * STEP), target_tokens=20 * STEP))
    whole = train(request_for("whole", tokens=10 * STEP, **option))
    branch = {o.evaluated: o.loss_nats for o in found if o.step == 10 and o.finished}
    assert branch == {o.evaluated: o.loss_nats for o in whole.observations if o.step == 10}


def test_osfs_factors_do_not_decay_towards_forgetting(request_for):
    run = Run(request_for(adapter={"name": "osf"}, weight_decay=0.5))
    assert {group["weight_decay"] for group in run.state.optimizer.param_groups} == {0.0}


def test_a_run_with_osf_leaves_the_largest_directions_alone(request_for, tiny):
    run = Run(request_for(adapter={"name": "osf"}))
    run.advance(20, 20, None)
    parent = load_model(tiny / "model")
    for name, layer in wrapped(run.model):
        U, _, V = torch.linalg.svd(parent.get_submodule(name).weight, full_matrices=False)
        kept, change = layer.effective_rank["default"], layer.get_delta_weight("default")
        assert change.norm() > 0.01
        assert (U[:, :kept].T @ change).norm() < 1e-3 * change.norm()
        assert (change @ V[:kept].T).norm() < 1e-3 * change.norm()


def test_an_average_of_adapted_weights_is_merged_too(request_for, tiny):
    asked = {"forgetting": {"average": {"decay": 0.9}}, **KINDS["lora"]}
    averaged, last = weights(train(request_for("a", **asked))), weights(train(request_for("b", **KINDS["lora"])))
    parent = dict(load_model(tiny / "model").named_parameters())
    for name, weight in parent.items():
        if "_proj" in name:
            assert 0 < (averaged[name] - weight).norm() < (last[name] - weight).norm()


def test_qlora_on_a_machine_without_gpu_is_refused_before_anything_is_loaded(request_for):
    with pytest.raises(ConfigError, match="qlora needs a GPU"):
        Run(request_for(adapter={"name": "qlora"}, device="cpu"))


@each_kind
def test_a_branch_keeps_what_an_adapter_learned_and_not_what_is_frozen(option, request_for):
    """Weights in 4 bits cannot be put back by torch, and need not be."""
    run = Run(request_for(**option))
    run.advance(5, 20, None)
    kept = snapshot(run.state)
    assert {*kept.weights} == {*adapter_tensors(run.model)}
    run.advance(8, 20, None)
    put_back(run.state, kept)
    assert run.state.step == 5
    assert all(torch.equal(tensor, kept.weights[name]) for name, tensor in adapter_tensors(run.model).items())
