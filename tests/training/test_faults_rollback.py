"""A gradient that is no number, a spike of the loss: back to the last good state, without the rows that did it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ratoon import records
from ratoon.config.faults import Faults, Spike
from ratoon.training import checkpoint, loop
from ratoon.training.faults import Book, Fault, GaveUp
from ratoon.training.rollback import Spiked, Watch
from ratoon.training.run import Run, train


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def losses(result):
    return [(o.step, o.evaluated, o.loss_nats) for o in result.observations]


def steps_written(request):
    lines = [json.loads(line) for line in (Path(request.out) / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines]


def poison(monkeypatch, rows, factor=float("nan"), times=None):
    """Multiplies the loss of every forward pass that holds one of `rows`, token rows, by `factor`."""
    rows_loss, left = loop.rows_loss, [times]

    def poisoned(model, step, part, recipe, methods):
        loss = rows_loss(model, step, part, recipe, methods)
        held = {bytes(row) for row in step.batch.tokens[part]}
        if held & {bytes(row) for row in rows} and left[0] != 0:
            left[0] = None if left[0] is None else left[0] - 1
            return loss * factor
        return loss

    monkeypatch.setattr(loop, "rows_loss", poisoned)


def known_beforehand(request, *faults):
    """The record of a run that went back, for one that never has to."""
    book = Book(Path(request.out) / "faults.json", request.identity())
    for fault in faults:
        book.add(fault)


def rows_of(request, step, *numbers):
    batch = Run(request).batch_at(step)
    return [batch.tokens[number] for number in numbers]


def test_rows_without_a_gradient_are_left_out_as_if_they_had_never_been_there(request_for, monkeypatch):
    request = request_for("broken", checkpoints=5, evaluations=5)
    poison(monkeypatch, rows_of(request, 7, 2, 5))
    broken = train(request)
    monkeypatch.undo()
    assert [(f.kind, f.step, f.left_out) for f in broken.faults] == [("gradient", 7, {7: (2, 5)})]
    assert broken.faults[0].sources == named(request, 7, 2, 5)
    spared = request_for("spared", checkpoints=5, evaluations=5)
    known_beforehand(spared, *broken.faults)
    assert same(weights(broken), weights(train(spared)))
    assert losses(broken) == losses(records.read(Path(spared.out) / "result.json", type(broken)))
    assert not same(weights(broken), weights(train(request_for("plain", checkpoints=5, evaluations=5))))


def named(request, step, *numbers):
    run = Run(request)
    place, found = run.batch_at(step).place, {}
    for number in numbers:
        name = run.mixture.order.names[place.source[number]]
        found[name] = (*found.get(name, ()), int(place.row[number]))
    return found


def test_the_order_of_all_other_rows_is_untouched(request_for, monkeypatch):
    request = request_for("broken")
    expected = [Run(request).batch_at(step).tokens.copy() for step in range(20)]
    read = {}
    accumulate = loop.accumulate

    def seen(model, step, *others):
        read[step.number] = step.batch.tokens.copy()
        return accumulate(model, step, *others)

    poison(monkeypatch, [expected[7][2]])
    monkeypatch.setattr(loop, "accumulate", seen)
    train(request)
    for step, tokens in enumerate(expected):
        kept = [row for number, row in enumerate(tokens) if (step, number) != (7, 2)]
        assert (read[step] == kept).all()


def test_a_step_without_any_good_row_is_passed_over_and_the_rate_of_the_others_stays(request_for, monkeypatch):
    request = request_for("broken")
    poison(monkeypatch, rows_of(request, 12, *range(8)))
    result = train(request)
    assert result.faults[0].left_out == {12: tuple(range(8))}
    assert result.steps == 20
    assert {step for step, _, _ in losses(result)} == {0, 10, 20}
    lines = [json.loads(line) for line in (Path(request.out) / "metrics.jsonl").read_text().splitlines()]
    assert [line["metrics"]["faults/rows_left_out"] for line in lines if line["step"] == 13] == [8]


def test_journal_and_observations_tell_one_story_after_going_back(request_for, monkeypatch):
    request = request_for("broken", evaluations=10, checkpoints=2)
    poison(monkeypatch, rows_of(request, 17, 0))
    monkeypatch.setattr("ratoon.training.attempt.reporter", lambda *a: every_step(*a))
    result = train(request)
    steps = steps_written(request)
    assert steps == sorted(steps)
    assert set(range(1, 21)) <= set(steps)
    seen = [(o.step, o.evaluated) for o in result.observations]
    assert len(seen) == len(set(seen)) == 22
    assert records.read_observations(Path(request.out) / "observations.csv") == list(result.observations)


def every_step(journal, step_tokens, steps):
    def report(step, values):
        journal.write(step, step * step_tokens, {k: float(v) for k, v in values.items()})

    return report


def test_rows_left_out_are_left_out_again_after_a_kill_at_any_save(request_for, monkeypatch):
    request = request_for("whole", checkpoints=5, trunk="none")
    poison(monkeypatch, rows_of(request, 7, 2))
    whole = train(request)
    save = checkpoint.save

    def save_then_die(*args, **kwargs):
        save(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    cut = request_for("cut", checkpoints=5, trunk="none")
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    monkeypatch.undo()  # nothing is broken any more: what was left out once stays left out
    resumed = train(cut)
    assert same(weights(whole), weights(resumed))
    assert [f.left_out for f in resumed.faults] == [{7: (2,)}]
    assert checkpoint.read_progress(Path(resumed.model))["left_out"] == {"7": [2]}


def test_a_checkpoint_that_saw_a_row_left_out_since_is_not_gone_on_from(request_for):
    request = request_for("run")
    train(request)
    (Path(request.out) / "result.json").unlink()
    fault = Fault(kind="gradient", step=3, why="found later", left_out={3: (1,)})
    known_beforehand(request, fault)
    spared = request_for("spared")
    known_beforehand(spared, fault)
    assert same(weights(train(request)), weights(train(spared)))


def test_a_run_that_breaks_too_often_gives_up_with_a_letter_and_whole_checkpoints(request_for, monkeypatch):
    request = request_for("hopeless", faults=Faults(rollbacks=2))
    run = Run(request)
    poison(monkeypatch, [row for step in range(11, 20) for row in run.batch_at(step).tokens])
    letter = (
        r"tiny-run: step 13: gradient norm is nan .*gone back 2 times.*train\.faults\.rollbacks allows no more: lower"
    )
    with pytest.raises(GaveUp, match=letter):
        train(request)
    assert [path.name for path in checkpoint.whole(Path(request.out) / "checkpoints")] == [
        "step-00000005",
        "step-00000010",
    ]
    assert max(o.step for o in records.read_observations(Path(request.out) / "observations.csv")) == 10


def test_with_no_rollback_allowed_the_first_fault_ends_the_run(request_for, monkeypatch):
    request = request_for("strict", faults=Faults(rollbacks=0))
    poison(monkeypatch, rows_of(request, 7, 2))
    with pytest.raises(GaveUp, match="gone back 0 times"):
        train(request)


def test_weights_that_are_no_numbers_are_never_saved(request_for, monkeypatch):
    request = request_for("burst")
    update, bad = loop.update, [4]

    def burst(state, rate):
        update(state, rate)
        if state.step in bad:  # the last before a save
            bad.remove(state.step)
            next(state.model.parameters()).data[0, 0] = float("inf")

    monkeypatch.setattr(loop, "update", burst)
    result = train(request)
    assert [(f.kind, f.left_out) for f in result.faults] == [("weights", {4: tuple(range(8))})]
    assert all(value.isfinite().all() for value in weights(result).values())


def test_a_spike_goes_back_before_the_steps_that_led_to_it(request_for, monkeypatch):
    rule = Spike(window=8, deviations=20, steps=2)
    request = request_for("spiked", tokens=30 * 8 * 16, faults=Faults(spike=rule))
    poison(monkeypatch, rows_of(request, 20, 3), factor=100.0)
    spiked = train(request)
    monkeypatch.undo()
    assert [(f.kind, f.step) for f in spiked.faults] == [("spike", 20)]
    assert spiked.faults[0].left_out == {19: tuple(range(8)), 20: tuple(range(8))}
    spared = request_for("spared", tokens=30 * 8 * 16)
    known_beforehand(spared, *spiked.faults)
    assert same(weights(spiked), weights(train(spared)))


def test_without_the_rule_a_spike_is_trained_on(request_for, monkeypatch):
    request = request_for("spiked")
    poison(monkeypatch, rows_of(request, 15, 3), factor=100.0)
    assert train(request).faults == ()


def test_a_watch_that_sees_no_spike_changes_no_number(request_for):
    watched = train(request_for("watched", faults=Faults(spike=Spike(window=8, deviations=50))))
    assert same(weights(watched), weights(train(request_for("plain"))))


def test_what_a_spike_is_measured_by_survives_a_kill(request_for, monkeypatch):
    rule = Spike(window=12, deviations=20)
    settings = {"checkpoints": 10, "faults": Faults(spike=rule)}
    whole_request, cut = request_for("whole", **settings), request_for("cut", **settings)
    poison(monkeypatch, rows_of(cut, 16, 3), factor=100.0)
    whole = train(whole_request)
    assert [f.step for f in whole.faults] == [16]
    save, saves = checkpoint.save, []

    def die_once(*args, **kwargs):
        save(*args, **kwargs)
        saves.append(1)
        if len(saves) == 7:  # step 14: a window that began anew would not be full at 16
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", die_once)
    with pytest.raises(KeyboardInterrupt):
        train(cut)
    assert same(weights(whole), weights(train(cut)))


def test_a_spike_is_told_by_robust_deviations_from_the_median_of_the_window():
    watch = Watch(Spike(window=9, deviations=5))
    for loss in (2.0, 2.1, 1.9, 2.0, 2.2, 1.8, 2.0, 2.1, 1.9):
        watch.see(loss)
    # median 2.0, median distance 0.1: 5 * 0.14826
    watch.see(2.74)
    assert watch.losses[-1] == 2.74
    again = Watch(Spike(window=9, deviations=5), [2.0, 2.1, 1.9, 2.0, 2.2, 1.8, 2.0, 2.1, 1.9])
    with pytest.raises(Spiked, match=r"loss 2\.7500, at most 2\.7413 after a median of 2\.0000"):
        again.see(2.75)
    assert list(again.losses)[-1] == 1.9


def test_losses_that_are_all_alike_make_no_spike_of_a_small_rise():
    watch = Watch(Spike(window=8, deviations=5), [2.0] * 8)
    watch.see(2.009)
    with pytest.raises(Spiked):
        watch.see(2.02)


def test_what_faults_may_do_is_no_part_of_a_runs_identity(request_for):
    assert request_for(faults=Faults(rollbacks=9, saving="waiting")).identity() == request_for().identity()


def test_the_faults_of_another_run_are_refused(request_for):
    request = request_for()
    known_beforehand(request_for(learning_rate=0.5), Fault(kind="spike", step=1, why="x", left_out={1: (0,)}))
    with pytest.raises(ValueError, match=r"faults\.json: written by another run"):
        train(request)
