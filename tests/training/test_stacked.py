"""Several proxies as one stack of weights, against each of them alone."""

import pytest
import torch

from ratoon.config import ConfigError
from ratoon.training.group import Group, run_group
from ratoon.training.loop import accumulate, new_step
from ratoon.training.run import Run, train
from ratoon.training.stacked import Stack, bundles, pays, refusal, run_bundle
from ratoon.training.trunk import go_on

STEP = 8 * 16
SLOW = {"learning_rate": 0.002}  # AdamW makes as much of a gradient's rounding as the rate lets it


def group_of(request, *lengths):
    horizons = tuple(steps * STEP for steps in lengths)
    return Group(request=request, horizons=horizons, target_tokens=max(horizons))


def weights(run):
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


def apart(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def go(stack, until, steps):
    stack.advance(until, steps, [lambda step, values: None] * len(stack.runs))


def alone(request, steps=5):
    run = Run(request)
    run.advance(steps, 20, None)
    return weights(run)


def test_a_stack_of_one_is_the_loop(request_for):
    stack = Stack([Run(request_for("stacked", **SLOW))])
    go(stack, 5, 20)
    assert stack.runs[0].state.step == 5
    assert apart(weights(stack.runs[0]), alone(request_for("alone", **SLOW))) < 1e-6


def test_each_of_a_stack_is_itself_alone_whatever_its_share_and_rate(request_for):
    asked = [
        {"share": share, "learning_rate": rate, "max_norm": norm}
        for share, rate, norm in ((0.2, 0.002, 0.5), (0.5, 0.002, 0.5), (0.8, 0.0005, 0.5))
    ]
    stack = Stack([Run(request_for(f"stacked-{n}", **one)) for n, one in enumerate(asked)])
    go(stack, 5, 20)
    for n, one in enumerate(asked):
        assert apart(weights(stack.runs[n]), alone(request_for(f"alone-{n}", **one))) < 1e-6


def test_moments_are_held_once(request_for):
    stack = Stack([Run(request_for(f"{n}", share=n / 4)) for n in (1, 2)])
    held = [stack.optimizer, *(run.state.optimizer for run in stack.runs)]
    count = sum(value.numel() for one in held for kept in one.state.values() for value in kept.values() if value.ndim)
    assert count == 2 * sum(weight.numel() for weight in stack.weights.values())


def test_gradients_are_clipped_by_each_runs_own_norm(request_for):
    loud, calm = (Run(request_for(name, max_norm=1e-3)) for name in ("loud", "calm"))
    with torch.no_grad():
        for parameter in loud.model.parameters():
            parameter.mul_(3)
    stack = Stack([loud, calm])
    stack.gradients(0)
    before = stack.clip()
    after = torch.linalg.vector_norm(
        torch.stack([w.grad.flatten(1).norm(dim=1) for w in stack.weights.values()]), dim=0
    )
    assert before[0] > 2 * before[1] > 2e-3
    assert torch.allclose(after, torch.full((2,), 1e-3), rtol=1e-2)


def test_the_result_does_not_depend_on_how_a_step_is_cut_up(request_for):
    found = []
    for micro_rows in (None, 2):
        stack = Stack([Run(request_for(f"{micro_rows}-{n}", micro_rows=micro_rows, share=n / 4)) for n in (1, 2)])
        go(stack, 5, 20)
        found.append(weights(stack.runs[1]))
    assert apart(*found) < 1e-6


def test_a_branch_of_a_stack_comes_back_to_the_trunk_to_the_bit(request_for):
    plain, bent = (Stack([Run(request_for(f"{name}-{n}", share=n / 4)) for n in (1, 2)]) for name in "ab")
    go(plain, 15, 20)
    go(bent, 5, 20)
    kept = bent.snapshot()
    go(bent, 9, 9)
    bent.put_back(kept)
    go(bent, 15, 20)
    assert all(apart(weights(a), weights(b)) == 0 for a, b in zip(plain.runs, bent.runs, strict=True))


def test_a_stack_leaves_the_observations_of_its_groups_alone(request_for):
    shares = (0.2, 0.5, 0.8)
    single = [run_group(group_of(request_for(f"alone-{s}", share=s), 5, 10)) for s in shares]
    groups = [group_of(renamed(request_for(f"stacked-{s}", share=s), f"r{s}"), 5, 10) for s in shares]
    found = [o for table in run_bundle(groups) for o in table]
    for made, wanted in zip(found, [o for table in single for o in table], strict=True):
        assert (made.tokens, made.share, made.evaluated, made.finished) == (
            wanted.tokens,
            wanted.share,
            wanted.evaluated,
            wanted.finished,
        )
        assert made.loss_nats == pytest.approx(wanted.loss_nats, rel=1e-5)


def renamed(request, name):
    return request.model_copy(update={"name": name})


def test_an_interrupted_stack_runs_only_what_is_missing(request_for, monkeypatch):
    groups = [group_of(renamed(request_for(f"g{n}", share=n / 4), f"g{n}"), 5) for n in (1, 2, 3)]
    first = run_group(groups[0])
    made = []
    begin = Stack.__init__
    monkeypatch.setattr(Stack, "__init__", lambda self, runs: (made.extend(runs), begin(self, runs))[1])
    found = run_bundle(groups)
    assert found[0] == first
    assert [run.request.name for run in made] == ["g2", "g3"]


def test_only_what_is_alike_is_stacked(request_for):
    groups = [
        group_of(renamed(request_for(f"{n}", share=n / 10, learning_rate=rate, seed=seed), f"g{n}"), 5, 10)
        for n, rate, seed in ((1, 0.01, 0), (2, 0.02, 0), (3, 0.01, 1), (4, 0.01, 0))
    ]
    together = bundles(groups, "always", 1)
    assert [[g.request.name for g in bundle] for bundle in together] == [["g1", "g2", "g4"], ["g3"]]
    assert [len(bundle) for bundle in bundles(groups, "always", 2)] == [2, 1, 1]
    assert bundles(groups, "never", 2) == [[group] for group in groups]


def test_auto_stacks_only_where_calls_cost_more_than_arithmetic(request_for):
    small, large = request_for("small"), request_for("large", tokens=10_000 * STEP, rows_per_step=8000)
    assert pays(group_of(small, 5))
    assert not pays(group_of(large, 5))


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ({"attention": "document"}, "train.attention is not plain"),
        ({"loss": {"label_smoothing": 0.1}}, "train.loss is not plain"),
        ({"precision": "bf16_pure"}, "bf16_pure rounds by chance, each run by its own"),
        ({"optimizer": {"name": "muon"}}, "train.optimizer is not plain"),
    ],
)
def test_what_cannot_be_stacked_is_refused_with_the_reason_and_left_alone_by_auto(recipe, why, request_for):
    group = group_of(request_for(**recipe), 5)
    assert why in refusal(group)
    with pytest.raises(ConfigError, match=rf"sweep.stacked: always: tiny-run cannot be stacked: .*{why}; give auto"):
        bundles([group], "always", 1)
    assert bundles([group], "auto", 1) == [[group]]


def test_repeated_scarce_text_is_not_stacked(request_for):
    group = Group(request=request_for(share=0.5), horizons=(5 * STEP,), target_tokens=5000 * STEP)
    assert "a run of its own" in refusal(group)


def test_a_model_that_drops_out_is_not_stacked(request_for, tiny, tmp_path):
    run = Run(request_for())
    run.model.config.attention_dropout = 0.1
    with pytest.raises(ConfigError, match=r"it drops out \(attention_dropout\); set sweep\.stacked: never"):
        Stack([run])
    run.model.config.save_pretrained(tmp_path / "model")
    request = request_for().model_copy(update={"model": str(tmp_path / "model")})
    assert "it drops out" in refusal(group_of(request, 5))


@pytest.mark.parametrize("rates", [(0.01, 0.01), (0.01, 0.005)])
def test_a_stack_goes_on_from_a_trunk_with_its_moments(rates, request_for):
    trunk = train(request_for("parent")).trunk
    asked = []
    for n, rate in enumerate(rates):
        request = request_for(f"next-{n}", share=0.3 + 0.4 * n)
        recipe = go_on(request.recipe, trunk).model_copy(update={"learning_rate": rate / 10})
        asked.append(request.model_copy(update={"recipe": recipe, "trunk": trunk}))
    stack = Stack([Run(request) for request in asked])
    go(stack, 5, 20)
    for run, request in zip(stack.runs, asked, strict=True):
        assert apart(weights(run), alone(request)) < 1e-6


def test_a_stack_says_which_of_its_runs_diverged_and_takes_the_others_on(request_for):
    fine, broken = (Run(renamed(request_for(name), name)) for name in ("fine", "broken"))
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(float("nan"))
    stack = Stack([fine, broken])
    go(stack, 5, 20)
    assert stack.broken == {1: "gradient norm is nan at step 0, in a stack"}
    assert apart(weights(fine), alone(request_for("alone"))) < 1e-5


def test_frozen_tensors_stay_as_they_are(request_for):
    runs = [Run(request_for(f"{n}", share=n / 4)) for n in (1, 2)]
    for run in runs:
        run.model.model.embed_tokens.weight.requires_grad_(False)
        run.state.optimizer = torch.optim.AdamW([p for p in run.model.parameters() if p.requires_grad], fused=True)
    before = weights(runs[1])
    go(Stack(runs), 3, 20)
    after = weights(runs[1])
    name = "model.embed_tokens.weight"
    assert torch.equal(before.pop(name), after.pop(name))
    assert all(not torch.equal(before[key], after[key]) for key in before)


def test_a_stack_in_bf16_is_each_run_in_bf16_to_its_rounding(request_for):
    stack = Stack([Run(request_for(f"stacked-{n}", share=n / 4, precision="bf16")) for n in (1, 2)])
    losses = stack.gradients(0)
    for n, run in zip((1, 2), stack.runs, strict=True):
        one = Run(request_for(f"alone-{n}", share=n / 4, precision="bf16"))
        loss = accumulate(one.model, new_step(one.batch_at(0), None), one.request.recipe)
        assert float(losses[n - 1]) == pytest.approx(float(loss), rel=1e-2)
        assert run.model.lm_head.weight.dtype == torch.float32
