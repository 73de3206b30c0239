"""train.activation_checkpointing: less memory, the same gradients; to the bit but for lean layers."""

import pytest
import torch
from families import FAMILIES, build

from ratoon.config import ConfigError, Scratch, TrainConfig
from ratoon.lm.lean_layers import is_lean, make_plain
from ratoon.lm.llama import new_llama
from ratoon.training.activations import WIDE, checkpoint_activations
from ratoon.training.loop import accumulate, new_state, new_step
from ratoon.training.run import Run


def llama(hidden=32):
    shape = {"hidden": hidden, "layers": 2, "heads": 2, "feed_forward": 64, "context": 32}
    return new_llama(Scratch(kind="scratch", tokens=1, learning_rate=1, rows_per_step=1, **shape), 512, 0)


def recipe(**settings):
    return TrainConfig(tokens=1, learning_rate=1e-2, rows_per_step=4, **settings)


def batch(rows=4, row_tokens=32):
    tokens = torch.arange(rows * row_tokens).reshape(rows, row_tokens).numpy() * 7 % 61 + 1
    tokens[:, 9] = 0
    return tokens, torch.full((rows,), row_tokens).numpy()


def gradients(model, wanted, **settings):
    """Of one step."""
    checkpoint_activations(model, wanted)
    asked = recipe(**settings)
    state = new_state(model, asked, separator=0)
    model.train()
    step = new_step(batch(), 0 if asked.attention == "document" else None)
    accumulate(model, step, asked, state.methods)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.activation_checkpointing_disable()
    make_plain(model)
    return found


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_reckoned_again_lightly_changes_no_bit_of_a_gradient():
    for settings in ({}, {"attention": "document"}, {"precision": "bf16"}, {"micro_rows": 2}):
        model = llama()
        assert same(gradients(model, False, **settings), gradients(model, "light", **settings)), settings


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_other_families_keep_their_gradients_too(family):
    model = build(family)
    torch.manual_seed(1)  # dropout's
    plain = gradients(model, False)
    torch.manual_seed(1)
    assert same(plain, gradients(model, "light"))


def test_light_reckons_no_product_of_matrices_again():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            self.count += operation.name().startswith(("aten::mm", "aten::_scaled_dot_product_flash"))
            return operation(*args, **(kwargs or {}))

    counts = {}
    for wanted in (False, "light", True):
        model = llama()
        checkpoint_activations(model, wanted)
        with Products() as products:
            model.train()
            model(torch.ones(2, 8, dtype=torch.int64)).logits.sum().backward()
        counts[wanted] = products.count
    assert counts["light"] == counts[False] < counts[True]


def held(model, wanted):
    """Bytes that a forward pass allocates and does not free: what is there for the way back."""
    checkpoint_activations(model, wanted)
    model.train()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss = model.base_model(torch.ones(4, 32, dtype=torch.int64), use_cache=False).last_hidden_state.sum()
    assert loss.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.key_averages())


def test_light_and_lean_hold_much_less_for_the_way_back():
    plain, light, lean, all_of_it = (held(llama(), wanted) for wanted in (False, "light", "lean", True))
    assert all_of_it < min(light, lean)
    assert max(light, lean) < 0.7 * plain


def is_leaned(model):
    return any(is_lean(module) for module in model.modules())


def test_auto_is_lean_where_layers_are_known():
    for model in (llama(WIDE), llama(32)):
        checkpoint_activations(model, "auto")
        assert is_leaned(model)
        assert not model.is_activation_checkpointing


def test_auto_is_light_for_other_wide_models_on_one_rank_and_leaves_narrow_ones_alone():
    wide, narrow, sharded = llama(WIDE), llama(32), llama(WIDE)
    for model in (wide, narrow):
        checkpoint_activations(model, "auto", "bf16")
    checkpoint_activations(sharded, "auto", "bf16", sharded=True)
    assert wide.is_activation_checkpointing
    assert not any(model.is_activation_checkpointing for model in (narrow, sharded))
    assert not any(is_leaned(model) for model in (wide, narrow, sharded))


def test_lean_keeps_the_gradients_to_rounding_whatever_is_asked_of_a_step():
    for settings in ({}, {"attention": "document"}, {"micro_rows": 2}):
        plain, lean = (gradients(llama(), wanted, **settings) for wanted in (False, "lean"))
        assert plain.keys() == lean.keys()
        for name, slope in plain.items():
            assert (slope - lean[name]).abs().max() <= 1e-5 * slope.abs().max(), (name, settings)


def test_lean_where_layers_are_not_known_is_refused_with_what_is_allowed():
    for model, precision in ((build("gemma"), "fp32"), (llama(), "bf16")):
        with pytest.raises(ConfigError, match=rf"lean: .* in {precision}, .* allowed for this model: auto, light, tr"):
            checkpoint_activations(model, "lean", precision)


def test_a_layer_that_answers_otherwise_than_its_family_is_read_as_ever():
    model = llama()
    mlp = model.model.layers[1].mlp
    mlp.forward = lambda x: 2 * type(mlp).forward(mlp, x)
    checkpoint_activations(model, "auto")
    assert not is_leaned(model)


class Rude(torch.nn.Module):
    """Changes what a product of matrices put out, where it lies."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).mul_(2.0)


def rude(hidden):
    model = llama(hidden)
    for layer in model.model.layers:
        layer.mlp.gate_proj = Rude(layer.mlp.gate_proj)
    return model


def test_a_model_whose_gradient_would_change_is_left_alone_or_refused_with_the_reason():
    model = rude(WIDE)
    checkpoint_activations(model, "auto")
    assert not model.is_activation_checkpointing
    with pytest.raises(
        ConfigError, match=r"light: llama gives another gradient .* allowed for this model: true, false"
    ):
        checkpoint_activations(rude(32), "light")


def test_asking_a_model_whether_it_keeps_its_gradients_draws_no_chance_and_leaves_none_behind():
    model = llama(WIDE)
    before = torch.get_rng_state()
    checkpoint_activations(model, "light")
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("wanted", [False, "light", "lean", "auto"])
def test_what_is_kept_for_the_way_back_is_no_part_of_a_run(wanted, request_for):
    assert request_for(activation_checkpointing=wanted).identity() == request_for().identity()


def test_an_optimizer_remembers_from_the_first_step_what_torch_would_begin_with(request_for):
    early, late = Run(request_for()), Run(request_for())
    assert early.state.optimizer.state
    late.state.optimizer.state.clear()
    for run in (early, late):
        run.advance(3, 20, None)
    for a, b in zip(early.model.parameters(), late.model.parameters(), strict=True):
        assert torch.equal(a, b)
        first, second = early.state.optimizer.state[a], late.state.optimizer.state[b]
        assert list(first) == list(second)
        assert all(torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in first)
