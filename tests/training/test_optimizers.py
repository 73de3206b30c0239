"""train.optimizer: equal to its references, exact on resume, small in memory, right about what moves."""

from pathlib import Path

import pytest
import torch
from cut_off import train_in_two
from pydantic import ValidationError
from safetensors.torch import load_file

from ratoon.config import ConfigError, TrainConfig
from ratoon.lm.head import plain_head
from ratoon.lm.load import load_model
from ratoon.training.alone import put_back, snapshot
from ratoon.training.group import Group, run_group
from ratoon.training.loop import accumulate, new_step
from ratoon.training.optimizers import new_optimizer
from ratoon.training.optimizers.rounding import PIECE
from ratoon.training.optimizers.rules import RuledOptimizer, directions, orthogonal
from ratoon.training.run import Run, train

STEP = 8 * 16
GALORE = {"name": "galore", "galore": {"rank": 4, "gap": 7}}
OPTIONS = {
    "muon": {"optimizer": {"name": "muon"}},
    "muon in 8 bits": {"optimizer": {"name": "muon", "moments": "8bit"}},
    "galore": {"optimizer": GALORE},
    "adamw in 8 bits": {"optimizer": {"moments": "8bit"}},
    "adamw in bf16": {"optimizer": {"moments": "bf16"}},
    "pure bf16": {"precision": "bf16_pure"},
    "pure bf16, 8 bits": {"precision": "bf16_pure", "optimizer": {"moments": "8bit"}},
    "frozen and rated": {"optimizer": {"freeze": ["*embed_tokens*"], "rates": {"*.mlp.*": 0.5}}},
}
each_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def recipe(**settings):
    return TrainConfig(tokens=1, learning_rate=1e-2, rows_per_step=1, **settings)


def ruled(shape, rule, kind="fp32", weight=None, **settings):
    """A weight and the optimizer that moves it."""
    weight = torch.nn.Parameter(torch.randn(shape) if weight is None else weight)
    group = {"params": [weight], "rule": rule, "kind": kind, "betas": (0.9, 0.95), "lr": 1e-2, **settings}
    return weight, RuledOptimizer([group], seed=3)


def move(weight, optimizer, gradients):
    for gradient in gradients:
        weight.grad = gradient.to(weight.dtype)
        optimizer.step()
    return weight.detach().float().clone()


def test_adam_by_rule_is_torchs_adamw():
    gradients = [torch.randn(6, 5) for _ in range(20)]
    weight, optimizer = ruled((6, 5), "adam", weight_decay=0.1)
    other = torch.nn.Parameter(weight.detach().clone())
    reference = torch.optim.AdamW([other], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    assert torch.allclose(move(weight, optimizer, gradients), move(other, reference, gradients), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_muon_by_rule_is_torchs_muon(shape):
    gradients = [torch.randn(shape) for _ in range(10)]
    weight, optimizer = ruled(shape, "muon", weight_decay=0.1, momentum=0.95)
    other = torch.nn.Parameter(weight.detach().clone())
    reference = torch.optim.Muon([other], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    assert torch.allclose(move(weight, optimizer, gradients), move(other, reference, gradients), atol=1e-6)


def test_muons_step_has_singular_values_near_1_and_the_size_of_adamws():
    step = orthogonal(torch.randn(32, 96)).float()
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.4
    assert values.max() < 1.6
    weight, optimizer = ruled((32, 96), "muon", momentum=0.95, weight=torch.zeros(32, 96))
    moved = move(weight, optimizer, [torch.randn(32, 96)])
    assert moved.square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.25)


def test_embeddings_head_and_vectors_are_moved_by_adamw_under_muon_and_galore(tiny):
    model = load_model(tiny / "model")
    by_name = dict(model.named_parameters())
    for asked in ({"name": "muon"}, GALORE):
        groups = new_optimizer(model, recipe(optimizer=asked)).param_groups
        made = {id(p): group["rule"] for group in groups for p in group["params"]}
        for name, parameter in by_name.items():
            outer = "embed" in name or parameter.ndim < 2
            assert made[id(parameter)] == ("adam" if outer else asked["name"]), name


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_galores_change_has_the_rank_of_its_subspaces(shape):
    weight, optimizer = ruled(shape, "galore", rank=4, gap=5, scale=0.25)
    before = weight.detach().clone()
    gradients = [torch.randn(shape) for _ in range(10)]
    assert torch.linalg.matrix_rank(move(weight, optimizer, gradients[:5]) - before, rtol=1e-4) == 4
    assert torch.linalg.matrix_rank(move(weight, optimizer, gradients[5:]) - before, rtol=1e-4) == 8


def test_galore_of_full_rank_is_adam_in_the_gradients_own_directions():
    gradient = torch.randn(6, 9)
    P = directions(gradient, 6)
    weight, optimizer = ruled((6, 9), "galore", rank=6, gap=100, scale=1.0, weight=torch.zeros(6, 9))
    turned, reference = ruled((6, 9), "adam", weight=torch.zeros(6, 9))
    gradients = [gradient, *(torch.randn(6, 9) for _ in range(5))]
    expected = P @ move(turned, reference, [P.T @ g for g in gradients])
    assert torch.allclose(move(weight, optimizer, gradients), expected, atol=1e-5)


def test_plain_bf16_stands_still_where_ours_moves_on_average():
    gradients = [torch.ones(4096)] * 200
    stuck = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    plain = torch.optim.AdamW([stuck], lr=1e-5, weight_decay=0.0)
    assert torch.equal(move(stuck, plain, gradients), torch.ones(4096))  # the trap
    weight, optimizer = ruled((4096,), "adam", "bf16", torch.ones(4096, dtype=torch.bfloat16), lr=1e-5)
    moved = move(weight, optimizer, gradients) - 1
    assert moved.mean() == pytest.approx(-200e-5, rel=0.1)
    assert moved.std() < 0.004  # steps of 1/256, each with a chance of its own: noise used again would make it 0.04


def test_pieces_change_nothing(monkeypatch):
    weight = torch.randn(70, 130)
    gradients = [torch.randn(70, 130) for _ in range(3)]
    found = []
    for size in (1 << 16, 512):
        monkeypatch.setitem(PIECE, "cpu", size)
        found.append(move(*ruled((), "adam", "8bit", weight.bfloat16()), gradients))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("asked", "pure", "expected"),
    [
        ({}, False, 8.0),
        ({"moments": "bf16"}, False, 4.0),
        ({"moments": "8bit"}, False, 2 * (1 + 4 / 256)),
        ({"name": "muon"}, False, 4.0),
        ({"name": "muon", "moments": "8bit"}, False, 1 + 4 / 256),
        ({"name": "galore", "galore": {"rank": 16}}, False, 4 * (64 * 16 + 2 * 16 * 256) / (64 * 256)),
        ({}, True, 4.0),
    ],
)
def test_the_memory_of_a_matrix_is_what_is_promised(asked, pure, expected):
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(64, 256, bias=False)})
    model.get_output_embeddings = lambda: None
    model.to(torch.bfloat16 if pure else torch.float32)
    optimizer = new_optimizer(model, recipe(optimizer=asked, precision="bf16_pure" if pure else "fp32"))
    weight = model["layer"].weight
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    held = sum(t.numel() * t.element_size() for k, t in optimizer.state[weight].items() if k != "step")
    assert held / weight.numel() == pytest.approx(expected)


def test_neutral_settings_are_plain_training_to_the_bit(request_for):
    rates = {"optimizer": {"rates": {"*": 1.0}}}
    assert same(weights(train(request_for("plain"))), weights(train(request_for("neutral", **rates))))
    # Lean layers, which are plain training by itself, equal what keeps or forgets all only to rounding.
    keeps, forgets = (request_for(str(kept), activation_checkpointing=kept) for kept in (False, True))
    assert same(weights(train(keeps)), weights(train(forgets)))


@each_option
def test_every_option_learns_and_resumes_where_it_was_cut_off(option, request_for, monkeypatch):
    whole = train(request_for("whole", evaluations=1, **option))
    resumed = train_in_two(request_for("cut", evaluations=1, **option), monkeypatch)
    assert same(weights(whole), weights(resumed))
    losses = [o.loss_nats for o in whole.observations]
    assert losses == [o.loss_nats for o in resumed.observations]
    assert losses[-1] < losses[0] - 0.01


@each_option
def test_a_branch_comes_back_to_its_trunk_under_every_option(option, request_for):
    run = Run(request_for(**option))
    run.advance(4, 20, None)
    kept = snapshot(run.state)
    run.advance(8, 20, None)
    once = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    kept_types = {k: v.dtype for entry in kept.optimizer["state"].values() for k, v in entry.items()}
    put_back(run.state, kept)
    found_types = {k: v.dtype for entry in run.state.optimizer.state.values() for k, v in entry.items()}
    assert found_types == kept_types
    run.advance(8, 20, None)
    assert all(torch.equal(once[name], p) for name, p in run.model.named_parameters())


def test_a_sweep_of_another_optimizer_branches_to_the_bit(request_for):
    option = OPTIONS["pure bf16, 8 bits"]
    request = request_for("trunk", tokens=20 * STEP, **option)
    found = run_group(Group(request=request, horizons=(10 * STEP, 20 * STEP), target_tokens=20 * STEP))
    whole = train(request_for("whole", tokens=10 * STEP, **option))
    branch = {o.evaluated: o.loss_nats for o in found if o.step == 10 and o.finished}
    assert branch == {o.evaluated: o.loss_nats for o in whole.observations if o.step == 10}


def test_what_is_frozen_neither_moves_nor_decays_and_all_else_does(request_for, tiny):
    frozen = ["*embed_tokens*", "model.layers.0.*"]
    after = weights(train(request_for(optimizer={"freeze": frozen}, weight_decay=0.5)))
    for name, before in load_file(tiny / "model" / "model.safetensors").items():
        still = "embed_tokens" in name or "layers.0." in name
        assert torch.equal(before, after[name]) == still, name


def test_a_rate_scales_the_step_and_those_of_two_patterns_multiply(request_for):
    start = Run(request_for()).model.state_dict()
    first = {}
    for rates in ({}, {"model.layers.1.*": 0.5, "*.mlp.*": 0.5}):
        run = Run(request_for(optimizer={"rates": rates}, weight_decay=0.0))
        run.advance(1, 20, None)
        first[bool(rates)] = {k: v - start[k] for k, v in run.model.state_dict().items()}
    for name, moved in first[True].items():
        factor = (0.5 if "layers.1." in name else 1) * (0.5 if ".mlp." in name else 1)
        assert torch.allclose(moved, first[False][name] * factor, atol=1e-6), name


def test_a_gradient_scaled_under_adam_changes_nothing_and_a_rate_does():
    gradients = [torch.randn(64) for _ in range(10)]
    whole, tenth = (move(*ruled((64,), "adam", weight=torch.zeros(64)), [s * g for g in gradients]) for s in (1, 0.1))
    assert torch.allclose(whole, tenth, atol=1e-5)  # the trap
    rated = move(*ruled((64,), "adam", weight=torch.zeros(64), lr=1e-3), gradients)
    assert torch.allclose(rated, 0.1 * whole, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"freeze": ["*embed_token"]}, r"optimizer.freeze: no parameter .* matches '\*embed_token'; names are such as"),
        ({"freeze": ["lm_head*"]}, r"lm_head.weight is tied to the input embedding: name that one"),
        ({"rates": {"*.attn.*": 0.5}}, r"optimizer.rates: no parameter of this model matches '\*.attn.\*'"),
        ({"freeze": ["*"]}, r"leave no weight to train; freeze fewer"),
        ({"name": "galore"}, r"galore.rank: 128 is not below the shorter side of any matrix"),
    ],
)
def test_what_fits_no_weight_is_told(asked, message, request_for):
    with pytest.raises(ConfigError, match=message):
        Run(request_for(optimizer=asked))


def test_settings_of_an_optimizer_that_is_not_taken_are_refused():
    with pytest.raises(ValueError, match="galore is set and would be ignored: name is 'muon'; set name: galore"):
        recipe(optimizer={"name": "muon", "galore": {"rank": 8}})


def test_activations_reckoned_twice_give_the_same_loss_and_gradients(request_for):
    found = []
    for twice in (False, True):
        run = Run(request_for(activation_checkpointing=twice, optimizer={"freeze": ["*embed_tokens*"]}))
        plain_head(run.model)  # asks the model itself, once
        run.model.train()
        counted = []
        layer = run.model.model.layers[0].mlp
        layer.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        loss = accumulate(run.model, new_step(run.batch_at(0), None), run.request.recipe)
        found.append((loss, [p.grad for p in run.model.parameters()], len(counted)))
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert [calls for _, _, calls in found] == [1, 2]


def test_a_run_goes_on_with_or_without_activation_checkpointing(request_for):
    assert request_for().identity() == request_for(activation_checkpointing=True).identity()
    assert request_for().identity() != request_for(optimizer={"name": "muon"}).identity()


@pytest.mark.parametrize("attention", ["row", "document"])
def test_pure_bf16_keeps_weights_in_2_bytes_and_positions_exact(attention, request_for):
    run = Run(request_for(precision="bf16_pure", attention=attention))
    run.advance(2, 20, None)
    assert {p.dtype for p in run.model.parameters()} == {torch.bfloat16}
    assert run.model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert run.state.optimizer.param_groups[0]["kind"] == "bf16"


@pytest.mark.parametrize("name", ["adamw in 8 bits", "galore", "muon"])
def test_micro_rows_change_nothing_but_rounding(name, request_for):
    found = []
    for micro in (None, 2):
        run = Run(request_for(micro_rows=micro, **OPTIONS[name]))
        run.advance(3, 20, None)
        found.append(run.evaluate(run="x", group="x", finished=False)[0].loss_nats)
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize(
    "asked", [{"beta1": 1.0}, {"beta2": 1.0}, {"optimizer": {"name": "muon", "muon": {"momentum": 1.0}}}]
)
def test_an_optimizer_that_would_never_take_a_gradient_in_is_refused(asked):
    with pytest.raises(ValidationError, match="less than 1"):
        TrainConfig(tokens=1, learning_rate=1, rows_per_step=1, **asked)
