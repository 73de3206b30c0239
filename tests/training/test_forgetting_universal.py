"""What every method against forgetting keeps, whatever it does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ratoon.config import ConfigError
from ratoon.config.forgetting import Forgetting
from ratoon.training import checkpoint
from ratoon.training.group import run_group
from ratoon.training.release import released as finished
from ratoon.training.run import Run, train
from ratoon.training.sweep import Group

STEP = 8 * 16
METHODS = {
    "anchor": {"anchor": {"epsilon": 0.3, "every": 3}},
    "average": {"average": {"decay": 0.8, "every": 2, "start": 3}},
    "parent": {"parent": {"beta": 0.5, "on": "general", "temperature": 2}},
    "kept_parent": {"parent": {"beta": 0.5, "on": "all", "top_k": 20}},
    "elastic": {"elastic": {"strength": 5000, "rows": 16}},
    "soft_mask": {"soft_mask": {"strength": 1, "rows": 16}},
    "interpolation": {"interpolation": 0.4},
    "all": {
        "anchor": {"epsilon": 0.5, "every": 4},
        "average": {"decay": 0.8},
        "parent": {"beta": 0.5, "top_k": 20},
        "elastic": {"strength": 500, "rows": 8},
        "soft_mask": {"strength": 0.5, "rows": 8},
        "interpolation": 0.7,
    },
}
each_method = pytest.mark.parametrize("name", METHODS)


def released(result):
    return load_file(Path(result.model) / "model.safetensors")


def trained(request):
    return load_file(checkpoint.whole(Path(request.out) / "checkpoints")[-1] / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def losses(observations, step):
    return {o.evaluated: o.loss_nats for o in observations if o.step == step}


def recipe_of(name, **more):
    return {"tokens": 12 * STEP, "checkpoints": 3, "forgetting": METHODS.get(name, {}), **more}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run of a method and the rows it read, made once."""
    made = {}

    def find(name, request_for):
        if name not in made:
            folder, read = tmp_path_factory.mktemp(name), []
            request = request_for(**recipe_of(name)).model_copy(update={"out": str(folder / "run")})
            batch_at = Run.batch_at
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Run, "batch_at", lambda self, step: read.append(batch_at(self, step)) or read[-1])
                made[name] = train(request), request, [batch.tokens for batch in read]
        return made[name]

    return find


@each_method
def test_a_method_changes_what_is_released_and_not_which_rows_are_read(name, whole, request_for):
    (plain, _, read), (asked, _, its) = whole("plain", request_for), whole(name, request_for)
    assert not same(released(plain), released(asked))
    assert np.array_equal(read, its)


@pytest.mark.parametrize(
    "neutral",
    [
        {"anchor": {"epsilon": 1, "every": 3}},
        {"average": {"decay": 0, "every": 2}},
        {"parent": {"beta": 0, "top_k": 5}},
        {"elastic": {"strength": 0, "rows": 3}},
        {"soft_mask": {"strength": 0, "rows": 3}},
        {"interpolation": 1},
    ],
)
def test_a_neutral_setting_is_plain_training_to_the_bit(neutral, whole, request_for):
    request = request_for(**recipe_of("plain", forgetting=neutral))
    assert not Run(request).state.methods
    assert same(released(train(request)), released(whole("plain", request_for)[0]))


@each_method
def test_a_run_cut_off_and_resumed_ends_where_an_unbroken_one_ends(name, whole, request_for, monkeypatch):
    save, done = checkpoint.save, []

    def save_then_die(*args, **kwargs):
        path = save(*args, **kwargs)
        if (writer := kwargs.get("writer")) is not None:
            writer.wait()
        done.append(path)
        if len(done) == 2:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(request_for("cut", **recipe_of(name)))
    monkeypatch.undo()
    resumed, unbroken = train(request_for("cut", **recipe_of(name))), whole(name, request_for)[0]
    assert same(released(unbroken), released(resumed))
    assert [o.loss_nats for o in unbroken.observations] == [o.loss_nats for o in resumed.observations]


@each_method
def test_the_result_does_not_depend_on_how_a_step_is_cut_up(name, request_for):
    cut, found = Run(request_for(**recipe_of(name, micro_rows=2))), Run(request_for(**recipe_of(name)))
    for run in (cut, found):
        run.advance(4, 12, None)
    for a, b in zip(cut.model.parameters(), found.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)  # Adam's first steps turn a last bit into some of these


@each_method
def test_a_branch_of_a_sweep_is_to_the_bit_the_whole_run_of_its_length(name, whole, request_for):
    request = request_for("trunk", **recipe_of(name))
    found = run_group(Group(request=request, horizons=(6 * STEP, 12 * STEP), target_tokens=12 * STEP))
    unbroken = whole(name, request_for)[0]
    assert losses([o for o in found if o.finished], 12) == losses(unbroken.observations, 12)
    if name == "all":
        short = train(request_for("short", **recipe_of(name, tokens=6 * STEP)))
        assert losses([o for o in found if o.finished], 6) == losses(short.observations, 6)


@each_method
def test_what_is_observed_of_a_finished_run_is_observed_of_the_released_weights(name, whole, request_for):
    result, request, _ = whole(name, request_for)
    recipe = request.recipe.model_copy(update={"forgetting": Forgetting()})
    run = Run(request.model_copy(update={"model": result.model, "recipe": recipe}))
    assert losses(run.evaluate(run="", group="", finished=False), 0) == losses(result.observations, 12)


def test_frozen_weights_stay_as_they_are(request_for, tiny):
    request = request_for(**recipe_of("all", optimizer={"freeze": ["*layers.0.*", "*embed_tokens*"]}))
    parent, result = load_file(tiny / "model" / "model.safetensors"), train(request)
    for found in (trained(request), released(result)):
        for key, value in found.items():
            frozen = "layers.0." in key or "embed_tokens" in key
            assert torch.equal(value, parent[key]) == frozen, key


def test_bf16_weights_are_held_too_and_rounded_by_the_step_alone(request_for):
    found = []
    for out in ("a", "b"):
        run = Run(request_for(out, **recipe_of("all", precision="bf16_pure")))
        run.advance(5, 12, None)
        found.append(dict(run.model.state_dict()))
    assert same(*found)
    assert all(value.dtype == torch.bfloat16 for value in found[0].values())


def test_small_steps_back_are_not_lost_in_bf16(request_for):
    run = Run(
        request_for(**recipe_of("plain", precision="bf16_pure", forgetting={"anchor": {"epsilon": 0.5, "every": 1}}))
    )
    (method,) = run.state.methods
    for anchor, (_, p) in zip(method.anchor.values(), run.model.named_parameters(), strict=True):
        anchor.fill_(1.0)
        with torch.no_grad():
            p.fill_(1.0 + 2**-7)  # the next number bf16 has: half of the way there is none
    method.after_update(run.state)
    moved = torch.cat([(p.detach().float() - 1).flatten() for p in run.model.parameters()])
    assert moved.mean().item() == pytest.approx(2**-8, rel=0.1)


@pytest.mark.parametrize(
    ("asked", "letter"),
    [
        ({"anchor": {"epsilon": 0.5}}, r"anchor\.every: comes to act at step 500 of a run of 12"),
        ({"average": {"decay": 0.5, "start": 12}}, r"average\.start: comes to act at step 13 of a run of 12"),
        ({"parent": {"beta": 1, "top_k": 512}}, r"parent\.top_k: 512 of 512 words; allowed: less"),
        ({"elastic": {"strength": 1, "rows": 10**6}}, r"elastic\.rows: 1000000 rows of \d+ in the general sources"),
    ],
)
def test_what_would_come_to_nothing_is_refused(asked, letter, request_for):
    with pytest.raises(ConfigError, match=letter):
        Run(request_for(tokens=12 * STEP, forgetting=asked))


def test_an_adapter_has_its_own_way_back_to_the_parent(request_for):
    lora = {"name": "lora", "rank": 2}
    with pytest.raises(ConfigError, match=r"interpolation: 0\.4 with an adapter, whose own release_scale is just that"):
        Run(request_for(forgetting={"interpolation": 0.4}, adapter=lora))
    with pytest.raises(ConfigError, match=r"soft_mask: no heads and feed-forward units are found in llama as it is"):
        Run(request_for(forgetting={"soft_mask": {"strength": 1, "rows": 4}}, adapter=lora))


@pytest.mark.parametrize("name", ["anchor", "average", "kept_parent", "elastic"])
def test_methods_act_on_what_an_adapter_trains(name, request_for):
    recipe = {"tokens": 12 * STEP, "adapter": {"name": "lora", "rank": 2}}
    found = [Run(request_for(forgetting=METHODS.get(one, {}), **recipe)) for one in ("plain", name)]
    for run in found:
        run.advance(6, 12, None)
    plain, asked = (dict(finished(run.state).state_dict()) for run in found)
    assert plain.keys() == asked.keys()
    assert not same(plain, asked)


def test_the_default_is_no_part_of_a_runs_identity(request_for):
    assert request_for().identity() == request_for(forgetting=Forgetting()).identity()
    assert request_for().identity() != request_for(forgetting={"interpolation": 0.5}).identity()


def test_measuring_what_would_be_released_leaves_the_weights_as_they_are(request_for):
    run = Run(request_for(**recipe_of("all")))
    run.advance(5, 12, None)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.evaluate(run="", group="", finished=True)
    assert same(before, dict(run.model.state_dict()))
    assert not same(before, dict(finished(run.state).state_dict()))


@pytest.mark.parametrize("name", ["average", "interpolation"])
def test_checkpoints_hold_the_trained_weights_and_the_release_beside_them_the_turned_ones(name, whole, request_for):
    (_, plain, _), (result, request, _) = whole("plain", request_for), whole(name, request_for)
    assert same(trained(plain), trained(request))
    assert not same(trained(request), released(result))
    assert AutoModelForCausalLM.from_pretrained(result.model).config.model_type == "llama"
