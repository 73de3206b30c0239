"""A proxy that breaks is a failure of its own, on the record; a sweep and a batch that are asked to end keep what is
finished, and the same command goes on."""

import math
import os
import signal
import time
from pathlib import Path

import pytest
from forked import end_of, needs_fork, start

from ratoon import records
from ratoon.config.faults import Spike
from ratoon.training import __main__, checkpoint, group, pool
from ratoon.training.batch import BatchRequest, BatchResult
from ratoon.training.faults import ENDED, Ended, GaveUp
from ratoon.training.group import run_group
from ratoon.training.proxies import Group, stopped, table_of, tokens_run
from ratoon.training.run import Run
from ratoon.training.stacked import run_bundle
from ratoon.training.sweep import SweepRequest, run_sweep
from ratoon.training.swept import check_measured

STEP = 8 * 16


def group_of(request, *lengths, name="g", **more):
    horizons = tuple(steps * STEP for steps in lengths)
    return Group(
        request=request.model_copy(update={"name": name}), horizons=horizons, target_tokens=max(horizons), **more
    )


def three(request_for, folder):
    """The middle one at a rate that no weight bears."""
    rates = {"first": 0.01, "broken": 1e30, "last": 0.005}
    return [
        group_of(request_for(f"{folder}-{name}", share=0.5, learning_rate=rate), 5, 10, name=name)
        for name, rate in rates.items()
    ]


def numbers(observations):
    return all(math.isfinite(one.loss_nats) for one in observations)


@pytest.mark.parametrize("together", [True, False])
def test_a_proxy_that_breaks_is_recorded_and_those_beside_it_end_as_ever(together, request_for):
    groups = three(request_for, "a")
    found = run_bundle(groups) if together else [run_group(one) for one in groups]
    assert all(numbers(table) for table in found)
    assert [len({o.tokens for o in table if o.finished}) for table in found] == [2, 0, 2]
    halted = stopped(groups[1])
    assert (halted.group, halted.tokens, halted.left_out) == ("broken", 0, (5 * STEP, 10 * STEP))
    assert "gradient norm is" in halted.said
    assert "its 640, 1,280 tokens are missing" in halted.said
    assert tokens_run(groups[1]) == halted.spent < tokens_run(groups[0])
    assert [stopped(one) for one in (groups[0], groups[2])] == [None, None]
    alone = [run_group(one) for one in three(request_for, "b")]
    for table, expected in zip(found, alone, strict=True):
        assert [o.loss_nats for o in table] == pytest.approx([o.loss_nats for o in expected], rel=1e-5)
    # Finished too, in its way: what broke is not run again.
    assert run_group(groups[1]) == found[1]


@pytest.mark.parametrize("together", [True, False])
def test_a_loss_that_is_no_number_never_comes_into_the_table(together, request_for, monkeypatch):
    evaluate = Run.evaluate

    def broken(self, **asked):
        found = evaluate(self, **asked)
        if self.request.name == "broken" and self.state.step == 10:
            found[0] = found[0].model_copy(update={"loss_nats": math.nan})
        return found

    monkeypatch.setattr(Run, "evaluate", broken)
    groups = [group_of(request_for(name), 5, 10, name=name) for name in ("broken", "whole")]
    found = run_bundle(groups) if together else [run_group(one) for one in groups]
    assert all(numbers(table) for table in found)
    assert [max(o.tokens for o in table) for table in found] == [5 * STEP, 10 * STEP]
    assert "its loss on domain at the end of 1,280 tokens is no number" in stopped(groups[0]).said


@pytest.mark.parametrize("together", [True, False])
def test_a_spike_is_the_proxys_own_failure_where_the_rule_is_set(together, request_for):
    faults = {"spike": Spike(window=8, deviations=0.01)}
    asked = {"learning_rate": 1.0, "faults": faults}  # a rate at which losses rise
    groups = [group_of(request_for(f"{n}", **asked), 20, name=f"g{n}") for n in range(2)]
    found = run_bundle(groups) if together else [run_group(one) for one in groups]
    assert not any(o.finished for table in found for o in table)
    assert all(" after a median of " in stopped(one).reason for one in groups)


def test_a_proxy_that_spiked_by_one_rule_is_run_again_by_another(request_for):
    def by(spike):
        return group_of(request_for("a", learning_rate=1.0, faults={"spike": spike}), 20)

    strict = by(Spike(window=8, deviations=0.01))
    assert not any(one.finished for one in run_group(strict))
    for other in (by(Spike(window=8, deviations=1e9)), by(None)):
        assert any(one.finished for one in run_group(other))
        assert stopped(other) is None
    assert stopped(strict) is not None


def test_a_branch_says_nothing_of_what_the_trunk_is_measured_by(request_for):
    walk = group.Walk(group_of(request_for(faults={"spike": Spike(window=8)}), 20))
    for loss in (3.0, 2.9):
        walk.report(0, 20)(1, {"loss_nats": loss})
        walk.report(0, 20, aside=True)(1, {"loss_nats": 1.0})
    assert list(walk.watch.losses) == [3.0, 2.9]


def test_the_record_of_a_sweep_names_what_broke_and_only_where_nothing_is_left_it_gives_up(request_for, tmp_path):
    groups = three(request_for, "a")
    for one in groups:
        run_group(one)
    asked = SweepRequest(groups=tuple(groups), workers=1, out=str(tmp_path / "sweep"), stacked="never")
    result = run_sweep(asked)
    assert [one.group for one in result.stopped] == ["broken"]
    assert result.tokens == sum(tokens_run(one) for one in groups)
    alone = asked.model_copy(update={"groups": (groups[1],), "out": str(tmp_path / "alone")})
    with pytest.raises(GaveUp, match=r"^broken: gradient norm is .*before they were measured: lower train\.learning_r"):
        run_sweep(alone)
    # A round of a sweep that grows may break whole: others were measured.
    lost = run_sweep(alone.model_copy(update={"is_round": True}))
    with pytest.raises(GaveUp):
        check_measured(lost)


def test_a_group_that_is_asked_to_end_leaves_no_table_and_is_run_again(request_for, monkeypatch):
    whole = run_group(group_of(request_for("whole"), 5, 10))
    calls = iter([False] * 8 + [True])
    monkeypatch.setattr(group, "asked", lambda: next(calls))
    cut = group_of(request_for("cut"), 5, 10)
    with pytest.raises(Ended):
        run_group(cut)
    assert not table_of(cut).exists()
    monkeypatch.undo()
    assert [o.loss_nats for o in run_group(cut)] == [o.loss_nats for o in whole]


def started(kind, request):
    """`python -m ratoon.training` in a process group of its own, but for the start of the interpreter."""
    out = Path(request.out)
    out.mkdir()
    (out / "request.json").write_text(request.model_dump_json())

    def work():
        os.setsid()
        return __main__.main([kind, str(out / "request.json")])

    return start(work)


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@needs_fork
def test_a_sweep_asked_to_end_keeps_its_groups_and_the_same_command_goes_on(request_for, tmp_path, capfd):
    short = group_of(request_for("short"), 5, name="short")
    long = group_of(request_for("long", tokens=4000 * STEP), 4000, name="long")
    asked = SweepRequest(groups=(short, long), workers=1, out=str(tmp_path / "sweep"), stacked="never")
    child = started("sweep", asked)
    wait_for(lambda: (Path(long.request.out) / "metrics.jsonl").exists())
    os.killpg(child, signal.SIGTERM)  # as a scheduler does, to all of it
    assert end_of(child) == ENDED
    assert "1 of 2 groups finished and kept" in capfd.readouterr().err
    assert table_of(short).exists()
    assert not table_of(long).exists()
    kept = table_of(short).stat().st_mtime_ns
    fewer = asked.model_copy(update={"groups": (short,)})
    assert run_sweep(fewer).observations == tuple(run_group(short))
    assert table_of(short).stat().st_mtime_ns == kept


@needs_fork
def test_a_batch_asked_to_end_saves_its_runs_and_the_same_command_goes_on(request_for, tmp_path, capfd):
    settings = {"tokens": 800 * STEP, "checkpoints": 1, "evaluations": 1, "trunk": "none"}
    request = request_for("run", **settings)
    asked = BatchRequest(requests=(request,), workers=1, out=str(tmp_path / "batch"))
    child = started("batch", asked)
    wait_for(lambda: (Path(request.out) / "observations.csv").exists())
    os.killpg(child, signal.SIGTERM)
    assert end_of(child) == ENDED
    assert "its state is saved: run again to go on" in capfd.readouterr().err
    saved = checkpoint.read_progress(checkpoint.whole(Path(request.out) / "checkpoints")[-1])["step"]
    assert 0 < saved < 800
    assert __main__.main(["batch", str(tmp_path / "batch" / "request.json")]) == 0
    (result,) = records.read(tmp_path / "batch" / "result.json", BatchResult).results
    assert result.steps == 800


def test_outside_of_a_pool_nobody_is_asked():
    assert not pool.asked()
