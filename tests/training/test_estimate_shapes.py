"""Runs that are not one process on whole rows: ranks, growing rows, trunks and stacks, each at its own price."""

import forked
import on_ranks
import pytest
from known_machine import GIB, line, machine

from ratoon.config import TrainConfig
from ratoon.config.mixture import Length, MixtureConfig
from ratoon.report import estimate as words
from ratoon.training import guard
from ratoon.training import probe as probe_module
from ratoon.training.estimate import estimate, estimate_sweep, group_steps
from ratoon.training.probe import Probe, Shorter, tried
from ratoon.training.proxies import Group, group_tokens
from ratoon.training.ranks import joined
from ratoon.training.stack_probe import StackProbe, try_stack
from ratoon.training.stacked import Stack
from tasks.estimate import one_process

STEP = 8 * 16


@pytest.fixture
def probe():
    """A machine where a row takes 1 s and 1 GiB over 2 GiB, an update 2 s; half as long cut in two, 1 s."""
    half = Shorter(parts=2, flops_per_token=5000, update_seconds=1, passes=(line(1, 0.5, 2.5), line(8, 4, 7)))
    return machine(1, 2, 8, shorter=(half,))


GROWING = MixtureConfig(lengths=(Length(until=0.25, row_tokens=8),))


def test_short_rows_are_counted_at_their_own_price(request_for, probe):
    found = estimate(request_for(mixture=GROWING), probe)  # 5 of 20 steps
    assert found.seconds.train == 5 * (4 + 1) + 15 * (8 + 2)
    assert found.flops == (5 * 5000 + 15 * 6000) * STEP
    assert found.memory.training == 10 * GIB  # of the longest
    plain = estimate(request_for(), probe)
    assert plain.seconds.train == 20 * (8 + 2)
    assert plain.flops == 20 * 6000 * STEP


def test_a_budget_that_growing_rows_fit_is_kept_to_where_whole_rows_do_not(request_for, probe):
    limits = {"budget": {"flops": 19.8 * 6000 * STEP}, "trunk": "none"}
    grown, plain = request_for(mixture=GROWING, **limits), request_for(**limits)
    assert not list(guard.excesses(estimate(grown, probe), probe, grown.recipe.budget))
    assert [one.field for one in guard.excesses(estimate(plain, probe), probe, plain.recipe.budget)] == ["flops"]


def test_a_step_is_shared_by_ranks_and_the_update_is_not(request_for, probe):
    two = probe.model_copy(update={"ranks": 2})
    found = estimate(request_for(processes=2), two)
    assert found.seconds.train == 20 * (8 + 2)  # 4 rows each, and between two sizes the larger is taken
    assert estimate(request_for(micro_rows=2, processes=2), two).seconds.train == 20 * (2 * 2 + 2)
    assert estimate(request_for(micro_rows=2), probe).seconds.train == 20 * (4 * 2 + 2)
    assert (found.processes, found.micro_rows) == (2, 4)
    assert "shared by 2 processes, memory is of each" in words.text(found)
    assert max(map(len, words.text(found).splitlines())) <= 80


@forked.needs_fork
def test_what_ranks_hold_and_take_is_measured_on_them(request_for, monkeypatch):
    monkeypatch.setattr(probe_module, "SECONDS", 0.05)
    request = request_for(processes=2, mixture=GROWING)

    def work(number):
        with joined(request.recipe) as ranks:
            return tried(request, ranks).model_dump(mode="json")

    first, second = (Probe(**one) for one in on_ranks.results(2, work))
    alone = tried(request_for("alone"))
    assert first.ranks == second.ranks == 2
    assert first.passes == second.passes  # both went by one clock
    assert first.passes[-1].rows <= 4
    assert first.weights_bytes + second.weights_bytes == alone.weights_bytes
    assert abs(first.checkpoint_bytes - alone.checkpoint_bytes) < 500
    assert [one.parts for one in first.shorter] == [2]
    assert first.shorter[0].flops_per_token < first.flops_per_token


def test_proxies_are_one_process_whatever_the_target_is(request_for):
    assert one_process(request_for(processes=4)).recipe.processes == 1


def group_of(request, *steps):
    return Group(request=request, horizons=tuple(n * STEP for n in steps), target_tokens=max(steps) * STEP)


@pytest.mark.parametrize("until", [6 * STEP, 0.25])
def test_the_tokens_of_a_trunk_count_once_at_any_length_of_rows(until, request_for):
    mixture = MixtureConfig(lengths=(Length(until=until, row_tokens=8),))
    group = group_of(request_for(tokens=40 * STEP, mixture=mixture), 10, 20, 40)
    found = group_steps(group)
    assert sum(found.values()) * STEP == group_tokens(group)
    # By tokens all branch off one trunk; by shares of a run each is a run, a quarter of which is short.
    assert found[2] == (6 if until > 1 else 2 + 5 + 10)


def test_a_stack_costs_its_own_steps_and_not_its_members(request_for, probe):
    groups = [group_of(request_for(f"{n}", tokens=40 * STEP), 20, 40) for n in range(3)]
    stack = StackProbe(members=2, start_seconds=11, step_seconds=3, peak_bytes=5 * GIB, state_bytes=GIB)
    together = [groups[:2], groups[2:]]
    found = estimate_sweep(groups, {"tiny": probe}, 1, together, {("tiny", 2): stack})
    steps = group_tokens(groups[0]) / STEP
    stacked = 11 + steps * 3 + 2 * 3 * 10
    assert found.seconds == pytest.approx(stacked + 10 + steps * 10 + 3 * 10)
    assert (found.groups, found.runs, found.stacked, found.workers) == (3, 6, 2, 1)
    assert found.tokens == 3 * group_tokens(groups[0])
    assert found.flops == 6000 * found.tokens
    assert found.memory_bytes == 10 * GIB + GIB  # of the one alone, with its trunk
    assert "2 in stacks" in " ".join(words.sweep_text(found).split())


def test_a_stack_of_growing_rows_is_measured_on_whole_ones_and_its_short_steps_cost_less(
    request_for, probe, monkeypatch
):
    mixture = MixtureConfig(lengths=(Length(until=6 * STEP, row_tokens=8),))
    seen, gradients = [], Stack.gradients

    def watched(self, number):
        seen.append(self.runs[0].batch_at(number).tokens.shape[1])
        return gradients(self, number)

    monkeypatch.setattr(Stack, "gradients", watched)
    requests = [request_for(f"{n}", tokens=40 * STEP, mixture=mixture) for n in range(2)]
    try_stack(tuple(requests))
    assert set(seen) == {16}
    groups = [group_of(request, 20, 40) for request in requests]
    stack = StackProbe(members=2, start_seconds=11, step_seconds=3, peak_bytes=5 * GIB, state_bytes=GIB)
    found = estimate_sweep(groups, {"tiny": probe}, 1, [groups], {("tiny", 2): stack})
    counts = group_steps(groups[0])
    assert counts[2] == 6
    assert found.seconds == pytest.approx(11 + (counts[1] + 6 * 5 / 10) * 3 + 2 * 3 * 10)
    assert found.flops == 2 * (counts[1] * 6000 + 6 * 5000) * STEP


def test_fewer_rows_that_are_named_divide_the_step_also_on_ranks(request_for, probe):
    three = probe.model_copy(update={"ranks": 3, "passes": tuple(line(n, n, 2 + n) for n in (1, 2, 3, 6))})
    request = request_for(processes=3, rows_per_step=16, tokens=2 * 256, budget={"memory": 5.5})  # 3 rows would fit
    (passed,) = guard.excesses(estimate(request, three), three, request.recipe.budget)
    assert passed.fits == "train.micro_rows 2 fits (now 6)"
    TrainConfig.model_validate({**request.recipe.model_dump(), "micro_rows": 2})


def test_a_stack_is_measured_on_steps_of_its_own(request_for):
    found = try_stack(tuple(request_for(f"{n}", share=n / 4) for n in (1, 2, 3)))
    weights = 4 * sum(p.numel() for p in probe_module.Run(request_for("one")).model.parameters())
    assert found.members == 3
    assert found.step_seconds > 0
    assert 9 * weights <= found.state_bytes < 9.1 * weights
