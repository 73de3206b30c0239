"""Each method against forgetting, held against its formula."""

import pytest
import torch

from ratoon.config.forgetting import Anchor as AnchorRecipe
from ratoon.config.forgetting import Average as AverageRecipe
from ratoon.lm.load import load_model
from ratoon.training.methods.anchor import Anchor
from ratoon.training.methods.average import Average
from ratoon.training.release import released
from ratoon.training.run import Run


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def advanced(request, steps):
    run = Run(request)
    run.advance(steps, request.steps, None)
    return run


# ---------------------------------------------------------------- anchor


def test_epsilon_1_is_plain_training_and_epsilon_0_stays_where_it_began(request_for, tiny):
    plain = weights(advanced(request_for(), 6).model)
    for epsilon, wanted in ((1, plain), (0, weights(load_model(tiny / "model")))):
        run = Run(request_for())
        run.state.methods = (Anchor(AnchorRecipe(epsilon=epsilon, every=3), run.model),)
        run.advance(6, 20, None)
        assert same(weights(run.model), wanted)


def test_weights_go_back_part_of_the_way_and_the_anchor_with_them(request_for, tiny):
    forgetting = {"anchor": {"epsilon": 0.25, "every": 4}}
    parent, before = weights(load_model(tiny / "model")), weights(advanced(request_for(), 4).model)
    run = advanced(request_for(forgetting=forgetting), 4)
    after, (method,) = weights(run.model), run.state.methods
    for name in parent:
        assert torch.allclose(after[name], parent[name] + 0.25 * (before[name] - parent[name]), atol=1e-7)
        assert torch.equal(method.anchor[name], after[name])
    run.advance(7, 20, None)
    assert same({k: method.anchor[k] for k in after}, after)


class Mastered(torch.optim.SGD):
    """The trap: an optimizer that goes on from float32 copies of its own and overwrites the weights with them."""

    def __init__(self, model):
        super().__init__(model.parameters(), lr=0.01)
        self.masters = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def step(self):
        for master, p in zip(self.masters, self.param_groups[0]["params"], strict=True):
            master.sub_(0.01 * p.grad)
            p.copy_(master)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"precision": "bf16_pure"},
        {"optimizer": {"name": "muon"}},
        {"optimizer": {"name": "galore", "galore": {"rank": 4}}},
        {"optimizer": {"moments": "8bit"}},
        Mastered,
    ],
)
def test_the_optimizer_goes_on_from_the_weights_it_was_given(asked, request_for):
    trap = asked is Mastered
    more = {"weight_decay": 0.0, **({} if trap else asked)}
    back, alone = Run(request_for(forgetting={"anchor": {"epsilon": 0, "every": 1}}, **more)), Run(request_for(**more))
    began = weights(back.model)
    for run in (back, alone):
        run.state.optimizer = Mastered(run.model) if trap else run.state.optimizer
    back.advance(3, 20, None)
    assert same(weights(back.model), began)
    back.state.methods, alone.state.step = (), 3
    for run in (back, alone):
        run.advance(4, 20, None)
    moved, once = (max((p - began[n]).abs().max() for n, p in run.model.named_parameters()) for run in (back, alone))
    assert (moved > 2 * once) == trap


# ---------------------------------------------------------------- average


def test_the_average_follows_torchs_own(request_for):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    run = Run(request_for(forgetting={"average": {"decay": 0.7}}))
    reference = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    for step in range(1, 7):
        run.advance(step, 20, None)
        reference.update_parameters(run.model)
    found, wanted = weights(released(run.state)), weights(reference.module)
    assert all(torch.allclose(found[name], wanted[name], atol=3e-8) for name in wanted)


def test_it_is_updated_every_so_often_from_a_step_on(request_for):
    run = Run(request_for(forgetting={"average": {"decay": 0.5, "every": 2, "start": 3}}))
    seen = []
    for step in range(1, 9):
        run.advance(step, 20, None)
        seen.append(weights(run.model))
        if step <= 3:
            assert same(weights(released(run.state)), seen[-1])
    for name, found in weights(released(run.state)).items():
        wanted = 0.5 * (0.5 * seen[3][name] + 0.5 * seen[5][name]) + 0.5 * seen[7][name]
        assert torch.allclose(found, wanted, atol=1e-6)


def test_decay_0_is_the_trained_weights(request_for):
    run = Run(request_for())
    run.state.methods = (Average(AverageRecipe(decay=0)),)
    run.advance(5, 20, None)
    assert same(weights(released(run.state)), weights(run.model))


# ---------------------------------------------------------------- interpolation


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8])
def test_what_is_released_lies_between_the_parent_and_the_trained_weights(part, request_for, tiny):
    run = advanced(request_for(forgetting={"interpolation": part}), 6)
    parent, last, found = (weights(model) for model in (load_model(tiny / "model"), run.model, released(run.state)))
    for name in parent:
        assert torch.allclose(found[name], parent[name] + part * (last[name] - parent[name]), atol=1e-7)
    assert same(found, parent) == (part == 0)
    assert same(last, weights(advanced(request_for(), 6).model))


def test_the_average_is_what_lies_between(request_for, tiny):
    both = {"average": {"decay": 0.8}, "interpolation": 0.5}
    run = advanced(request_for(forgetting=both), 6)
    average, parent = run.state.methods[0].average, weights(load_model(tiny / "model"))
    for name, found in weights(released(run.state)).items():
        assert torch.allclose(found, (parent[name] + average[name]) / 2, atol=1e-7)
