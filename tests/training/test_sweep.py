import dataclasses
import os
import weakref
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ratoon.config import ConfigError, SweepConfig, TrainConfig
from ratoon.stream.rows import Rows
from ratoon.training.faults import GaveUp
from ratoon.training.group import run_group, table_of
from ratoon.training.run import Run, train
from ratoon.training.sweep import Corpus, Group, Plan, group_tokens, limited, portions, run_sweep

STEP = 8 * 16


def group_of(request, horizons, target=None):
    return Group(request=request, horizons=horizons, target_tokens=target or max(horizons))


def test_a_branch_is_to_the_bit_the_whole_run_of_its_length(request_for):
    found = run_group(group_of(request_for("trunk", tokens=40 * STEP), (10 * STEP, 20 * STEP, 40 * STEP)))
    for steps in (10, 20, 40):
        whole = train(request_for(f"whole-{steps}", tokens=steps * STEP))
        for source in ("general", "domain"):
            branch = [o for o in found if o.step == steps and o.evaluated == source]
            alone = [o for o in whole.observations if o.step == steps and o.evaluated == source]
            assert len(branch) == 1
            assert branch[0].loss_nats == alone[0].loss_nats
            assert branch[0].finished


def test_a_branch_that_drops_out_is_to_the_bit_the_whole_run_of_its_length(request_for, tmp_path):
    shape = {"vocab_size": 512, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "tokenizer_config.json").write_text("{}")

    def ends(name, *horizons):
        request = request_for(name, tokens=horizons[-1]).model_copy(update={"model": str(tmp_path / "gpt2")})
        return [o.loss_nats for o in run_group(group_of(request, horizons)) if o.tokens == 20 * STEP]

    assert ends("trunk", 10 * STEP, 20 * STEP) == ends("alone", 20 * STEP)


def test_a_trunk_costs_less_than_separate_runs(request_for):
    group = group_of(request_for(tokens=80 * STEP), (10 * STEP, 20 * STEP, 40 * STEP, 80 * STEP))
    assert group_tokens(group) < 0.8 * sum(group.horizons)


def test_scarce_text_is_repeated_as_often_as_the_target_will(request_for):
    request = request_for(tokens=400 * STEP, share=0.5)
    target = 2000 * STEP  # far more than the tiny domain holds
    group = group_of(request, (200 * STEP, 400 * STEP), target)
    available = Rows.open(Path(request.portions["domain"].rows)).num_rows
    target_epochs = target * 0.5 / (available * 16)
    for horizon in group.horizons:
        rows = limited(group, horizon)["domain"]
        assert horizon * 0.5 / (rows * 16) == pytest.approx(target_epochs, rel=0.1)
    assert group_tokens(group) == sum(group.horizons)
    found = run_group(group)
    unique = [o.unique_tokens["domain"] for o in found if o.finished and o.evaluated == "domain"]
    assert unique[0] < unique[1]


def test_a_source_with_share_zero_is_scored_but_not_read(request_for):
    found = run_group(group_of(request_for(tokens=10 * STEP, share=0.0), (10 * STEP,)))
    last = [o for o in found if o.finished]
    assert {o.evaluated for o in last} == {"general", "domain"}
    assert set(last[0].unique_tokens) == {"general"}


def test_a_finished_group_is_read_back_and_not_run_again(request_for, monkeypatch):
    group = group_of(request_for(tokens=10 * STEP), (10 * STEP,))
    found = run_group(group)
    monkeypatch.setattr("ratoon.training.group.Run", None)
    assert run_group(group) == found


def test_a_commit_made_meanwhile_has_no_finished_group_run_again(request_for, monkeypatch):
    group = group_of(request_for(tokens=10 * STEP), (10 * STEP,))
    found = run_group(group)
    monkeypatch.setattr("ratoon.training.group.Run", None)
    later = group.model_copy(update={"request": group.request.model_copy(update={"commit": "f" * 40})})
    assert run_group(later) == found


def plan_for(tiny, out, **sweep):
    return Plan(
        {"tiny": tiny / "model"},
        {role: Corpus(rows=str(tiny / role), role=role) for role in ("general", "domain")},
        SweepConfig(tokens=20 * STEP, **sweep),
        TrainConfig(tokens=40 * STEP, learning_rate=0.01, rows_per_step=8, schedule={"warmup_steps": 2}, block_rows=10),
        out,
        {"row_tokens": 16, "held_out_tokens": 400, "commit": None},
    )


def test_a_sweep_covers_every_size_and_ratio(tiny, tmp_path):
    ratios = (0.1, 0.3, 0.5, 0.7, 1.0)
    plan = plan_for(tiny, tmp_path / "sweep", ratios=ratios, horizons=2, workers=2)
    request = plan.request(plan.grid(), plan.out)
    seen = []
    result = run_sweep(request, lambda tokens, total: seen.append((tokens, total)))
    done = [o for o in result.observations if o.finished]
    assert {(o.share, o.tokens, o.evaluated) for o in done} == {
        (r, t * STEP, s) for r in ratios for t in (10, 20) for s in ("general", "domain")
    }
    assert seen[-1][0] <= seen[-1][1] == result.tokens
    assert (Path(request.out) / "observations.csv").exists()


def test_shares_within_one_percent_are_groups_of_their_own(tiny, tmp_path):
    ratios = (0.1, 0.301, 0.304, 0.7, 1.0)
    plan = plan_for(tiny, tmp_path / "sweep", ratios=ratios, horizons=1, workers=1)
    plan = dataclasses.replace(plan, recipe=plan.recipe.model_copy(update={"block_rows": 1000}))
    assert len({group.request.out for group in plan.grid()}) == len(ratios)
    result = run_sweep(plan.request(plan.grid(), plan.out))
    assert sorted(o.share for o in result.observations if o.finished and o.role == "domain") == list(ratios)


@pytest.mark.parametrize("stacked", ["never", "always"])
def test_a_sweep_whose_proxies_all_break_ends_with_a_letter_that_names_one(stacked, tiny, tmp_path):
    plan = plan_for(tiny, tmp_path / "sweep", ratios=(0.1, 0.3, 0.5, 0.7, 1.0), horizons=1, learning_rates=(1e30,))
    groups = [group for group in plan.grid() if "-r010" in group.request.name or "-r030" in group.request.name]
    request = plan.request(groups, plan.out).model_copy(update={"stacked": stacked, "workers": 1})
    with pytest.raises(GaveUp, match=r"^tiny-r0.0-lr1e\+30: gradient norm is .* all 2 proxies .*learning"):
        run_sweep(request)


def test_even_horizons_cost_less_than_half_of_separate_runs(tiny, tmp_path):
    plan = plan_for(tiny, tmp_path / "sweep", horizons=6, spacing="even")
    plan = dataclasses.replace(plan, sweep=plan.sweep.model_copy(update={"tokens": 60 * STEP}))
    group = plan.group("tiny", 0.5)
    assert group.horizons == tuple(n * 10 * STEP for n in range(1, 7))
    assert group_tokens(group) <= 0.45 * sum(group.horizons)


def test_an_even_branch_is_to_the_bit_the_whole_run_of_its_length(request_for):
    found = run_group(group_of(request_for("trunk", tokens=15 * STEP), (5 * STEP, 10 * STEP, 15 * STEP)))
    for steps in (5, 10, 15):
        whole = train(request_for(f"whole-{steps}", tokens=steps * STEP, trunk="none"))
        wanted = {o.evaluated: o.loss_nats for o in whole.observations if o.step == steps}
        assert {o.evaluated: o.loss_nats for o in found if o.step == steps} == wanted


@pytest.mark.parametrize(("device", "workers"), [("cpu", os.cpu_count()), ("cuda", 1)])
def test_proxies_share_a_gpu_one_after_the_other_and_cores_all_at_once(device, workers, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("ratoon.training.sweep.pick_device", lambda wanted: torch.device(device))
    plan = plan_for(tiny, tmp_path / "sweep", horizons=1)
    assert plan.request([plan.group("tiny", 0.5)], plan.out).workers == workers


def test_a_group_of_few_lengths_is_the_beginning_of_the_whole_one(tiny, tmp_path):
    plan = plan_for(tiny, tmp_path / "sweep", horizons=2)
    whole, short = plan.group("tiny", 0.5), plan.group("tiny", 0.5, 1)
    assert short.horizons == whole.horizons[:1]
    assert group_tokens(short) < group_tokens(whole)
    wanted = {o.loss_nats for o in run_group(whole) if o.tokens == 10 * STEP}
    assert {o.loss_nats for o in run_group(short) if o.finished} == wanted


def test_shares_within_a_role_follow_the_weights():
    corpora = {
        "a": Corpus(rows="a", role="general", weight=3),
        "b": Corpus(rows="b", role="general", weight=1),
        "c": Corpus(rows="c", role="domain"),
    }
    assert {name: p.share for name, p in portions(corpora, 0.2).items()} == pytest.approx(
        {"a": 0.6, "b": 0.2, "c": 0.2}
    )


@pytest.mark.parametrize("share", [-0.1, 1.2, 30])
def test_a_ratio_outside_0_to_1_is_refused(share):
    with pytest.raises(ConfigError, match=r"outside 0\.\.1; give a fraction, 0\.3 for 30%"):
        portions({}, share)


def test_a_mixture_without_general_text_is_refused():
    with pytest.raises(ConfigError, match="no general source among"):
        portions({"c": Corpus(rows="c", role="domain")}, 0.5)


def test_runs_of_several_lengths_do_not_lie_in_memory_together(request_for, monkeypatch):
    opened, alive = [], []

    class Watched(Run):
        def __init__(self, request):
            alive.append(sum(model() is not None for model in opened))
            super().__init__(request)
            opened.append(weakref.ref(self.model))

    monkeypatch.setattr("ratoon.training.group.Run", Watched)
    group = group_of(request_for(tokens=4 * STEP, schedule={"warmup_steps": 1}), (2 * STEP, 3 * STEP, 4 * STEP))
    run_group(group.model_copy(update={"separate": True}))
    assert alive == [0, 0, 0]


def test_a_finished_group_is_still_finished_when_a_budget_is_raised(request_for):
    group = group_of(request_for(budget={"hours": 1.0}), (10 * STEP,))
    raised = group_of(request_for(budget={"hours": 9.0}, faults={"rollbacks": 9}), (10 * STEP,))
    assert table_of(raised) == table_of(group)
    assert table_of(group_of(request_for(seed=1), (10 * STEP,))) != table_of(group)
