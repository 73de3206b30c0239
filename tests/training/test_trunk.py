"""The stable trunk of a run: kept where its decay starts, and gone on with by the next."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ratoon import records
from ratoon.config import ConfigError, Schedule
from ratoon.training import checkpoint
from ratoon.training.request import Result
from ratoon.training.run import Run, train
from ratoon.training.trunk import go_on, keep_at, trunk_of

STEP = 8 * 16
WSD = Schedule(name="wsd", warmup_steps=3, decay_share=0.25)


def weights(path):
    return load_file(Path(path) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def following(request, parent, **changes):
    """The next run after `parent`, on from its trunk."""
    recipe = go_on(request.recipe.model_copy(update=changes), parent.trunk)
    return request.model_copy(update={"recipe": recipe, "model": parent.model, "trunk": parent.trunk})


@pytest.fixture
def parent(request_for):
    """A run of 20 steps, its trunk kept at 15."""
    request = request_for("parent", schedule=WSD)
    result = train(request)
    records.write(Path(request.out) / "request.json", request)
    return result


def test_a_run_keeps_its_trunk_where_the_decay_starts_and_records_it(parent, request_for):
    trunk = parent.trunk
    assert (trunk.step, trunk.learning_rate, trunk.peak) == (15, 0.01, 0.01)
    assert trunk_of(Path(parent.model)) == trunk
    short = Run(request_for("short", schedule=WSD))
    short.advance(15, 20, None)
    kept = weights(trunk.folder)
    assert all(torch.equal(kept[name], p) for name, p in short.model.named_parameters() if name in kept)
    assert not same(kept, weights(parent.model))


def test_keeping_a_trunk_changes_no_weight_and_no_identity(parent, request_for):
    without = request_for("without", schedule=WSD, trunk="none")
    assert without.identity() == request_for("parent", schedule=WSD).identity()
    result = train(without)
    assert result.trunk is None
    assert same(weights(result.model), weights(parent.model))


def test_a_trunk_gone_on_with_is_to_the_bit_the_longer_run(parent, request_for):
    long = Run(request_for("long", tokens=50 * STEP, schedule={"name": "wsd", "warmup_steps": 3, "decay_share": 0.2}))
    long.advance(50, 50, None)
    # 15 steps of the trunk, and 35 of its continuation, of which 10 are the decay.
    asked = request_for("next", tokens=35 * STEP, schedule={"name": "wsd", "warmup_steps": 3, "decay_share": 10 / 35})
    run = Run(following(asked, parent))
    read = long.batch_at
    run.batch_at = lambda step: read(step + 15)
    run.advance(35, 35, None)
    for a, b in zip(long.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_trunk_without_its_optimizer_is_another_run(parent, request_for, monkeypatch):
    with_it, without = (Run(following(request_for(name, schedule=WSD), parent)) for name in ("with", "without"))
    without.state.optimizer.state.clear()
    for run in (with_it, without):
        run.advance(2, 20, None)
    assert not torch.equal(with_it.model.lm_head.weight, without.model.lm_head.weight)


def test_a_run_that_goes_on_from_a_trunk_is_measured_against_the_released_parent(parent, request_for):
    result = train(following(request_for("next", schedule=WSD), parent))
    start = {o.evaluated: o.loss_nats for o in result.observations if o.step == 0}
    released = {o.evaluated: o.loss_nats for o in parent.observations if o.step == 20}
    assert start == released
    assert result.trunk.parent == parent.trunk.hash
    assert (result.trunk.peak, result.trunk.learning_rate) == (0.01, 0.01)


def test_a_continued_run_cut_off_and_resumed_ends_where_an_unbroken_one_ends(parent, request_for, monkeypatch):
    whole = train(following(request_for("whole", schedule=WSD), parent))
    save, calls = checkpoint.save, []

    def save_then_die(*args, **kwargs):
        found = save(*args, **kwargs)
        calls.append(found)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(following(request_for("cut", schedule=WSD), parent))
    resumed = train(following(request_for("cut", schedule=WSD), parent))
    assert same(weights(whole.model), weights(resumed.model))
    assert resumed.trunk.hash == whole.trunk.hash


def test_a_trunk_that_was_changed_since_is_refused(parent, request_for):
    request = following(request_for("next"), parent)
    file = Path(parent.trunk.folder) / "state" / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"the parent's record says .*it was changed since"):
        Run(request)


def test_a_trunk_that_is_gone_is_told(parent, request_for):
    request = following(request_for("next"), parent)
    (Path(parent.trunk.folder) / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"gone or cut short; set train\.trunk: keep"):
        Run(request)


def test_a_trunk_names_the_run_that_continues_it(parent, request_for):
    request = following(request_for("next"), parent)
    other = request.model_copy(update={"trunk": request.trunk.model_copy(update={"hash": "0" * 12})})
    moved = request.model_copy(update={"trunk": request.trunk.model_copy(update={"folder": "elsewhere"})})
    assert request.identity() != request.model_copy(update={"trunk": None}).identity() != other.identity()
    assert moved.identity() == request.identity()


def test_an_infinite_schedule_goes_on_at_its_level_and_down_as_before(parent, request_for):
    shape = {"name": "infinite", "warmup_steps": 3, "cooldown_steps": 4, "level": 0.5, "floor": 0.1, "decay_share": 0.2}
    trunk = parent.trunk.model_copy(update={"learning_rate": 0.005})
    kind = go_on(request_for(schedule=shape).recipe, trunk)
    assert kind.learning_rate == 0.005
    assert kind.schedule.root.floor * kind.learning_rate == pytest.approx(0.1 * 0.01)
    assert (kind.schedule.name, kind.schedule.warmup_steps, kind.schedule.root.tail) == ("anneal", 0, "exponential")


def test_another_learning_rate_than_the_trunks_is_refused(parent, request_for):
    with pytest.raises(ConfigError, match=r"train\.learning_rate: 0\.02, and the trunk in .* was trained at 0\.01"):
        go_on(request_for(learning_rate=0.02).recipe, parent.trunk)


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": {"name": "muon"}},
        {"optimizer": {"name": "galore", "galore": {"rank": 4}}},
        {"optimizer": {"moments": "8bit"}},
        {"precision": "bf16_pure"},
    ],
)
def test_another_optimizer_than_the_trunks_is_refused(other, parent, request_for):
    with pytest.raises(ConfigError, match=r"train\.optimizer: .*remembers is of adamw, moments in fp32"):
        go_on(request_for(**other).recipe, parent.trunk)
    old = parent.trunk.model_copy(update={"memory": None})
    assert go_on(request_for().recipe, parent.trunk) == go_on(request_for().recipe, old)


@pytest.mark.parametrize("schedule", [{"name": "cosine"}, {"name": "power_steps"}, {"name": "power_tokens"}])
def test_a_schedule_without_a_constant_rate_keeps_no_trunk_and_continues_none(schedule, parent, request_for):
    request = request_for(schedule={**schedule, "warmup_steps": 3})
    assert keep_at(request) is None
    with pytest.raises(ConfigError, match="has no constant rate to go on at"):
        go_on(request.recipe, parent.trunk)


def test_a_model_no_run_made_has_no_trunk(tiny):
    assert trunk_of(tiny / "model") is None


def test_a_record_from_before_trunks_were_kept_is_read(parent):
    old = parent.model_dump(mode="json")
    del old["trunk"]
    assert Result.model_validate(old).trunk is None
