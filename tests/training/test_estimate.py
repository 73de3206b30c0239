from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from known_machine import GIB, line, machine
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from ratoon.config import ConfigError, TrainConfig
from ratoon.config.budget import Budget
from ratoon.report import estimate as words
from ratoon.training import guard, loop
from ratoon.training import probe as probe_module
from ratoon.training.estimate import estimate, estimate_sweep, makespan
from ratoon.training.meter import ascend, at_rows
from ratoon.training.probe import measure
from ratoon.training.proxies import Group, branches, group_tokens
from ratoon.training.request import Portion, Request
from ratoon.training.run import Run, train


@pytest.fixture
def request_for(request_for):
    """Runs of 20 steps of 8 rows that keep no trunk unless asked to."""
    return lambda **recipe: request_for(**{"trunk": "none", **recipe})


@pytest.fixture
def probe():
    """A machine where a row takes 1 s and 1 GiB over 2 GiB, an update 2 s, a held-out row 0.25 s, a checkpoint 5 s."""
    return machine(1, 2, 4)


def test_every_second_of_a_run_is_counted_once(request_for, probe):
    request = request_for(tokens=20 * 8 * 16, evaluations=2, checkpoints=4)  # 20 steps of 8 rows
    found = estimate(request, probe)
    assert found.seconds.train == 20 * (8 + 2)
    assert found.seconds.evaluate == pytest.approx(3 * 10)  # the start too
    assert found.seconds.save == 4 * 5
    assert found.seconds.total == pytest.approx(200 + 30 + 20 + 10)
    assert found.flops == 6000 * 20 * 8 * 16
    assert found.tokens_per_second == pytest.approx(20 * 8 * 16 / 200)


def test_the_trunk_that_is_kept_is_a_checkpoint_more_and_stays(request_for, probe):
    without, kept = (estimate(request_for(trunk=trunk), probe) for trunk in ("none", "keep"))
    assert kept.seconds.save - without.seconds.save == 5
    assert kept.disk_bytes - without.disk_bytes == 2 * GIB


def test_the_model_that_an_adapter_releases_needs_its_place_on_the_disk(request_for, probe):
    small = probe.model_copy(update={"checkpoint_bytes": GIB // 100, "weights_bytes": 10 * GIB})
    assert estimate(request_for(adapter={"name": "lora"}), small).disk_bytes >= 10 * GIB
    assert estimate(request_for(), probe).disk_bytes == 3 * 2 * GIB


def test_an_evaluation_needs_the_memory_of_one_pass_and_the_time_of_all(request_for, probe):
    more = probe.model_copy(update={"held_out_rows": 400})  # of ten sources, 40 rows of one at once
    few, many = (estimate(request_for(), one) for one in (probe, more))
    assert many.memory.evaluation == few.memory.evaluation
    assert many.seconds.evaluate == pytest.approx(10 * few.seconds.evaluate)


def test_early_evaluations_cost_what_they_cost(request_for, probe):
    plain, early = (estimate(request_for(early_evaluations=n, early_share=1.0), probe) for n in (0, 4))
    assert early.seconds.evaluate == pytest.approx(plain.seconds.evaluate + 3 * 10)  # steps 1, 3, 7; 20 was there


def test_fewer_rows_per_pass_cost_memory_of_these_alone_and_the_update_once(request_for, probe):
    found = estimate(request_for(micro_rows=2), probe)
    assert found.seconds.train == 20 * (4 * 2 + 2)
    assert found.memory.training == 4 * GIB
    assert found.memory.activations == 2 * GIB
    assert found.memory.peak == 4 * GIB
    assert not found.extrapolated


def test_more_rows_than_were_tried_lie_on_the_line_through_the_last_two(request_for, probe):
    found = estimate(request_for(), probe)
    assert found.extrapolated
    assert found.memory.training == 10 * GIB
    assert at_rows(probe.passes, 3).rows == 4  # between two: the larger, never less than it takes


def test_a_peak_while_evaluating_is_the_runs_peak(request_for, probe):
    high = probe.model_copy(update={"evaluations": (line(1, 1, 2), line(40, 40, 30))})
    found = estimate(request_for(), high)
    assert (found.memory.peak, found.memory.highest) == (30 * GIB, "evaluation")


def test_money_is_hours_times_price_times_devices_and_unknown_without_a_price(request_for, probe):
    paid = estimate(request_for(budget={"price": 2.0, "devices": 4}), probe)
    assert paid.money == pytest.approx(paid.seconds.total / 3600 * 8)
    assert estimate(request_for(), probe).money is None


def test_money_limited_without_a_price_is_refused_at_the_door():
    with pytest.raises(ValueError, match="money is limited, and price"):
        TrainConfig(tokens=1, learning_rate=1, rows_per_step=1, budget={"money": 3})


def checked(request, probe):
    guard.check(estimate(request, probe), probe, request.recipe.budget)


@pytest.mark.parametrize("limits", [{}, {"hours": 1}, {"flops": 1e12}, {"memory": 11}, {"price": 1, "money": 1}])
def test_a_run_within_its_budget_is_begun(request_for, probe, limits):
    checked(request_for(budget=limits), probe)


def test_a_run_too_long_is_refused_with_the_tokens_that_fit_and_these_do(request_for, probe):
    limits = {"hours": 200 / 3600}  # 260 s are needed, 60 of them whatever the tokens: 14 steps of 10 s
    with pytest.raises(
        ConfigError, match=r"train\.budget\.hours: 0\.0722 h, allowed 0\.0555556 h; train\.tokens 1,792"
    ):
        checked(request_for(budget=limits), probe)
    checked(request_for(tokens=1792, budget=limits), probe)
    with pytest.raises(ConfigError):
        checked(request_for(tokens=1792 + 128, budget=limits), probe)


def test_a_run_too_dear_or_too_large_is_refused_with_what_fits(request_for, probe):
    with pytest.raises(ConfigError, match=r"train\.budget\.money: 0\.07222, allowed 0\.05; train\.tokens 1,536 fits"):
        checked(request_for(budget={"price": 1, "money": 0.05}), probe)
    with pytest.raises(
        ConfigError, match=r"train\.budget\.flops: 1\.54e\+07, allowed 8e\+06; train\.tokens 1,280 fits"
    ):
        checked(request_for(budget={"flops": 8e6}), probe)
    with pytest.raises(ConfigError, match=r"memory: 10 GiB while in training, allowed 7 GiB; train\.micro_rows 4 fits"):
        checked(request_for(budget={"memory": 7}), probe)
    with pytest.raises(ConfigError, match="not even one row fits"):
        checked(request_for(budget={"memory": 2.9}), probe.model_copy(update={"evaluations": (line(40, 1, 1),)}))
    high = probe.model_copy(update={"evaluations": (line(1, 1, 2), line(40, 40, 30))})
    with pytest.raises(ConfigError, match=r"evaluation needs this whatever train\.micro_rows"):
        checked(request_for(budget={"memory": 20}), high)


def test_every_limit_that_is_passed_is_in_one_letter(request_for, probe):
    limits = {"hours": 0.01, "flops": 1.0, "memory": 7}
    with pytest.raises(ConfigError) as refused:
        checked(request_for(budget=limits), probe)
    said = str(refused.value)
    assert "budget.hours: 0.0722 h, allowed 0.01 h; no run fits: start, evaluations and checkpoints" in said
    assert "budget.flops" in said
    assert "not one step of 128 tokens fits" in said
    assert "budget.memory" in said


def test_workers_take_the_next_group_when_they_are_free():
    assert makespan([5, 4, 3, 3], 2) == 8
    assert makespan([5, 4, 3, 3], 1) == 15
    assert makespan([5.0], 3) == 5


def test_a_sweep_costs_its_trunks_and_branches_once(request_for, probe):
    request = request_for(tokens=64 * 8 * 16)
    step = request.step_tokens
    group = Group(request=request, horizons=(16 * step, 64 * step), target_tokens=64 * step)
    assert branches(group)
    found = estimate_sweep([group] * 3, {"tiny": probe}, 2)
    steps = group_tokens(group) // step
    assert found.tokens == 3 * group_tokens(group)
    assert found.seconds == pytest.approx(2 * (10 + steps * 10 + 3 * 10))  # two at once, then one: two in a row
    assert found.flops == 6000 * found.tokens
    # the training step of two workers, and the state of the trunk that each keeps while a branch runs
    assert found.memory_bytes == 2 * (10 * GIB + GIB)
    assert (found.groups, found.runs, found.branched) == (3, 6, 3)


def test_sizes_double_until_time_is_up_and_two_are_always_read():
    def slow(rows):
        return line(rows, 100.0, rows)

    assert [one.rows for one in ascend(64, 0.0, slow)] == [1, 2]
    assert [one.rows for one in ascend(6, 60.0, lambda rows: line(rows, 0.0, rows))] == [1, 2, 4, 6]
    assert [one.rows for one in ascend(1, 0.0, slow)] == [1]


def test_the_text_is_plain_and_fits_a_terminal(request_for, probe):
    request = request_for(budget={"hours": 0.01, "memory": 7})
    found = estimate(request, probe)
    with pytest.raises(ConfigError) as refused:
        checked(request, probe)
    said = words.text(found, str(refused.value))
    assert max(map(len, said.splitlines())) <= 80
    assert said.isascii()
    group = Group(request=request, horizons=(8 * 16 * 10, 8 * 16 * 20), target_tokens=8 * 16 * 20)
    sweep = estimate_sweep([group] * 2, {"tiny": probe}, 2)
    said = words.sweep_text(sweep, sweep)
    assert max(map(len, said.splitlines())) <= 80
    assert "to begin with" in said


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """A probe of a real run, in a process of its own."""
    schedule = {"name": "constant", "warmup_steps": 2}
    settings = {"rows_per_step": 8, "threads": 1, "block_rows": 10, "schedule": schedule}
    recipe = TrainConfig(tokens=20 * 8 * 16, learning_rate=0.01, **settings)
    out = tmp_path_factory.mktemp("measured")
    request = Request(
        name="tiny-run",
        label="tiny",
        model=str(tiny / "model"),
        portions={name: Portion(rows=str(tiny / name), role=name, share=0.5) for name in ("general", "domain")},
        row_tokens=16,
        recipe=recipe,
        held_out_tokens=400,
        out=str(out / "run"),
    )
    return request, measure(request)


def test_what_is_measured_is_what_a_run_holds(measured, tiny):
    _, probe = measured
    weights = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny / "model").parameters()) * 4
    assert probe.weights_bytes == probe.gradients_bytes == weights
    assert probe.optimizer_bytes >= 2 * weights  # two moments, and a few counts of steps
    assert probe.optimizer_bytes < 2.01 * weights
    assert [one.rows for one in probe.passes] == [1, 2, 4, 8]
    assert all(one.seconds > 0 and one.peak_bytes > weights for one in (*probe.passes, *probe.evaluations))
    assert (probe.held_out_rows, probe.held_out_at_once) == (2 * (400 // 16), 400 // 16)


def test_estimated_operations_and_disk_are_those_of_the_run(measured, monkeypatch):
    monkeypatch.setattr(loop, "plain_head", lambda model: False)  # the head in pieces is not one torch can count

    request, probe = measured
    found = estimate(request, probe)
    run = Run(request)
    run.model.set_attn_implementation("eager")  # of which torch counts every product
    with FlopCounterMode(display=False) as counter:
        run.advance(2, request.steps, None)
    assert found.flops == counter.get_total_flops() / 2 * request.steps
    result = train(request)
    saved = sum(file.stat().st_size for file in Path(result.model).rglob("*") if file.is_file())
    tokenizer_and_numbers = 500
    assert abs(saved - found.checkpoint_bytes) < tokenizer_and_numbers


def test_a_probe_leaves_nothing_behind(measured):
    request, _ = measured
    left = {path.name for path in Path(request.out).parent.iterdir()}
    assert left <= {"run"}  # of the run itself, where another test has made it


def test_a_probe_leaves_nothing_of_what_methods_keep_beside_a_run(request_for):
    request = request_for(forgetting={"parent": {"beta": 0.1, "top_k": 8}})
    probe_module.probe(request)
    assert not Path(request.out).exists()
    assert not [*Path(request.out).parent.glob(".probe-*")]


def test_a_process_killed_while_it_tries_is_told_as_memory(request_for, monkeypatch):
    def killed(*_):
        raise BrokenProcessPool

    monkeypatch.setattr(probe_module, "map_processes", killed)
    with pytest.raises(ConfigError, match=r"was killed.*lower train\.micro_rows \(now 8\)"):
        measure(request_for())


def test_a_budget_without_limits_is_not_asked_about():
    assert not Budget(price=3.0, devices=2).limited
    assert Budget(hours=1).limited
