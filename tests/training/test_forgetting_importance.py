"""What general text leans on: how it is measured, and how it is held."""

import pytest
import torch

from ratoon.lm.load import load_model
from ratoon.training.loop import accumulate, new_step
from ratoon.training.methods.importance import fisher
from ratoon.training.run import Run


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def advanced(request, steps):
    run = Run(request)
    run.advance(steps, request.steps, None)
    return run


# ---------------------------------------------------------------- elastic


def elastic(request_for, strength=100.0, rows=6, **more):
    run = Run(request_for(forgetting={"elastic": {"strength": strength, "rows": rows}}, **more))
    return run, run.state.methods[0]


def test_importance_is_the_mean_square_of_each_rows_own_slope(request_for):
    run, method = elastic(request_for)
    found = fisher(run.model, method.rows, None)
    wanted = {name: torch.zeros_like(p) for name, p in run.model.named_parameters()}
    for row in method.rows:
        run.model.zero_grad()
        tokens = torch.from_numpy(row.tokens)
        run.model(input_ids=tokens, labels=tokens).loss.backward()
        for name, p in run.model.named_parameters():
            wanted[name] += p.grad**2 / len(method.rows)
    for name, value in found.items():
        assert (value >= 0).all()
        assert torch.allclose(value, wanted[name], rtol=1e-4, atol=1e-10)
    whole = torch.cat([torch.from_numpy(row.tokens) for row in method.rows])
    run.model.zero_grad()
    run.model(input_ids=whole, labels=whole).loss.backward()  # the trap: the square of a mean is no mean square
    assert not all(torch.allclose(found[n], p.grad**2, rtol=0.2) for n, p in run.model.named_parameters())


def test_the_penalty_has_the_slope_of_its_formula_and_none_at_the_parent(request_for):
    run, method = elastic(request_for)
    step = new_step(run.batch_at(0), None)
    method.begin(run.model, step)
    accumulate(run.model, step, run.request.recipe)
    plain = {name: p.grad.clone() for name, p in run.model.named_parameters()}
    method.after_gradients(run.state)
    assert same(plain, {name: p.grad for name, p in run.model.named_parameters()})
    with torch.no_grad():
        for p in run.model.parameters():
            p.add_(0.01)
    method.after_gradients(run.state)
    theta = {name: p.detach().clone().requires_grad_() for name, p in run.model.named_parameters()}
    penalty = sum((method.importance[n] * (theta[n] - method.parent[n]) ** 2).sum() for n in theta) * 100.0 / 2
    penalty.backward()
    for name, p in run.model.named_parameters():
        assert torch.allclose(p.grad - plain[name], theta[name].grad, atol=1e-6)


def test_a_strong_spring_holds_what_general_text_leans_on(request_for, tiny):
    parent = weights(load_model(tiny / "model"))

    def moved(request):
        model = advanced(request, 12).model
        return {name: (p.detach() - parent[name]).abs() for name, p in model.named_parameters()}

    held, free = (
        moved(elastic(request_for, strength=1e7, weight_decay=0.0)[0].request),
        moved(request_for(weight_decay=0.0)),
    )
    important = fisher(*(lambda run, method: (run.model, method.rows, None))(*elastic(request_for)))
    for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.1.self_attn.v_proj.weight"):
        top = important[name] > important[name].quantile(0.9)
        assert held[name][top].mean() < 0.5 * free[name][top].mean()


# ---------------------------------------------------------------- soft mask


def masked(request_for, importance, **more):
    """A run whose units have the importance given, by group."""
    run = Run(request_for(forgetting={"soft_mask": {"strength": 1, "rows": 2}}, **more))
    (method,) = run.state.methods
    sizes = {"heads": 2, "inner": 32, "outer": 16}
    method.importance = {
        layer.prefix + group: torch.as_tensor(importance.get(group, 0.0)).expand(size).clone()
        for layer in method.layers
        for group, size in sizes.items()
    }
    return run


def test_units_of_no_importance_move_as_if_nothing_were_there(request_for):
    run = masked(request_for, {})
    run.advance(6, 20, None)
    assert same(weights(run.model), weights(advanced(request_for(), 6).model))


def test_a_unit_of_importance_1_does_not_move_by_gradient_momentum_or_decay(request_for):
    heads, inner, outer = torch.tensor([1.0, 0.0]), torch.zeros(32), torch.zeros(16)
    inner[5] = outer[3] = 1.0
    run = masked(request_for, {"heads": heads, "inner": inner, "outer": outer}, weight_decay=0.5)
    began = weights(run.model)
    run.advance(8, 20, None)
    for name, p in run.model.named_parameters():
        still = p.detach() == began[name]
        if any(part in name for part in ("q_proj", "k_proj", "v_proj")):
            assert still[:8].all()
            assert not still[8:].any()
        elif "o_proj" in name:
            assert still[:, :8].all()
            assert not still[:, 8:].any()
        elif any(part in name for part in ("gate_proj", "up_proj")):
            assert still[5].all()
            assert not still[torch.arange(32) != 5].all(1).any()
        elif "down_proj" in name:
            assert still[3].all()
            assert not still[torch.arange(16) != 3].all(1).any()


def test_a_mask_halves_the_update_which_a_mask_on_the_gradient_would_not(request_for):
    name = "model.layers.0.mlp.up_proj.weight"

    def moved(run, hook=None):
        before = weights(run.model)[name]
        if hook:
            dict(run.model.named_parameters())[name].register_hook(hook)
        run.advance(1, 20, None)
        return weights(run.model)[name] - before

    plain = moved(Run(request_for()))
    assert torch.allclose(moved(masked(request_for, {"inner": 0.5})), plain / 2, atol=1e-7)
    lost = moved(Run(request_for()), lambda grad: grad / 2)
    assert float(lost.abs().sum() / plain.abs().sum()) == pytest.approx(1, abs=0.01)


def test_importance_is_the_slope_at_a_gate_scored_within_its_layer(request_for):
    run = Run(request_for(forgetting={"soft_mask": {"strength": 1, "rows": 5}}))
    (method,) = run.state.methods
    method.begin(run.model, new_step(run.batch_at(0), None))
    # A gate on an inner unit is a factor on its column of the projection out: the slope is sum_j W_j dL/dW_j.
    down = run.model.model.layers[1].mlp.down_proj.weight
    slope = torch.zeros(32)
    for row in method.rows:
        run.model.zero_grad()
        tokens = torch.from_numpy(row.tokens)
        run.model(input_ids=tokens, labels=tokens).loss.backward()
        slope += (down.detach() * down.grad).sum(0)
    wanted = torch.tanh((slope - slope.mean()) / slope.std(correction=0)).abs()
    assert torch.allclose(method.importance["model.layers.1.inner"], wanted, atol=1e-4)


def test_measuring_importance_leaves_no_trace(request_for):
    run = Run(request_for(forgetting={"soft_mask": {"strength": 1, "rows": 3}, "elastic": {"strength": 1, "rows": 3}}))
    before, chance = weights(run.model), torch.get_rng_state()
    run.model.train()
    for method in run.state.methods:
        method.begin(run.model, new_step(run.batch_at(0), None))
    assert same(before, weights(run.model))
    assert all(p.grad is None for p in run.model.parameters())
    assert torch.equal(chance, torch.get_rng_state())
    assert run.model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())


def test_general_rows_are_those_asked_for_also_where_the_mixture_reads_none(request_for):
    run = Run(request_for(share=1.0, forgetting={"elastic": {"strength": 1, "rows": 7}}))
    rows = run.state.methods[0].rows
    assert len(rows) == 7
    assert len({row.tokens.tobytes() for row in rows}) == 7
