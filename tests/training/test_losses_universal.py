"""What every loss promises: neutral is plain, a resumed run is the unbroken one, and no cut of a step is seen."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from ratoon.config.loss import Distill, Loss, Reweight, Select
from ratoon.lm.load import load_model
from ratoon.stream.lengths import cut
from ratoon.stream.mixture import Batch
from ratoon.training import checkpoint
from ratoon.training.loop import accumulate, boundary, new_step
from ratoon.training.methods.losses import build
from ratoon.training.run import Run, train

STEP = 8 * 16
LENGTHS = [16, 3, 16, 9, 2, 16, 12, 16]
NAMES = ("smoothing", "reweight", "select", "select_cached", "distill", "salt", "noise", "all")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny):
    """Another model of the same vocabulary."""
    folder = tmp_path_factory.mktemp("reference")
    model = load_model(tiny / "model")
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def loss_named(reference, tmp_path):
    found = {
        "smoothing": Loss(label_smoothing=0.1),
        "reweight": Loss(reweight=Reweight(burn_in_steps=3)),
        "select": Loss(select=Select(keep=0.6, reference=str(reference))),
        "select_cached": Loss(select=Select(keep=0.6, reference=str(reference), cache=str(tmp_path / "cache"))),
        "distill": Loss(distill=Distill(teacher=str(reference), temperature=2.0)),
        "salt": Loss(distill=Distill(teacher="parent", until_share=0.4, fade_share=0.3)),
        "noise": Loss(noise_alpha=5.0),
        "all": Loss(
            label_smoothing=0.1,
            select=Select(keep=0.6, reference="parent"),
            distill=Distill(teacher=str(reference)),
            noise_alpha=5.0,
        ),
    }
    assert set(found) == set(NAMES)
    return found.__getitem__


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_neutral_settings_are_the_baseline_to_the_bit(request_for, reference):
    neutral = Loss(
        select=Select(keep=1, reference=str(reference)),
        distill=Distill(teacher=str(reference), weight=0),
        noise_alpha=0,
        label_smoothing=0,
    )
    assert Run(request_for("built", loss=neutral)).state.methods == ()
    assert same(
        weights(train(request_for("plain", tokens=8 * STEP))),
        weights(train(request_for("neutral", loss=neutral, tokens=8 * STEP))),
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("select", "distill")])  # both are in all
def test_a_run_cut_off_and_resumed_ends_where_an_unbroken_one_ends(request_for, monkeypatch, loss_named, name):
    settings = {"loss": loss_named(name), "tokens": 12 * STEP}
    whole = train(request_for("whole", **settings))
    save, saves = checkpoint.save, []

    def save_then_die(*args, **kwargs):
        saves.append(save(*args, **kwargs))
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(request_for("cut", **settings))
    resumed = train(request_for("cut", **settings))
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]


@pytest.mark.parametrize(
    ("name", "attention", "pieces"),
    [(name, attention, 1) for name in NAMES for attention in ("row", "document")]
    + [(name, "row", 2) for name in ("reweight", "select", "noise")],
)
def test_no_loss_depends_on_how_a_step_is_cut(request_for, loss_named, name, attention, pieces):
    gradients, losses = [], []
    for micro_rows in (None, 1):
        run = Run(request_for(f"by-{micro_rows}", loss=loss_named(name), micro_rows=micro_rows, attention=attention))
        batch = cut(run.batch_at(0)._replace(valid=np.array(LENGTHS)), pieces)
        step = new_step(batch, boundary(run.request.recipe, run.state.separator), 4)
        losses.append(accumulate(run.model.train(), step, run.request.recipe, run.state.methods).item())
        gradients.append([p.grad for p in run.model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_loss_touches_the_order_of_the_data_nor_what_is_frozen(request_for, loss_named, name):
    run = Run(request_for(loss=loss_named(name)))
    batch_at, seen = run.batch_at, []
    run.batch_at = lambda step: (seen.append(batch_at(step)), seen[-1])[1]
    frozen = [p for n, p in run.model.named_parameters() if "layers.0" in n]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = digests(frozen)
    run.advance(2, 20, None)
    assert digests(frozen) == before
    plain = run.mixture.read(0, 16)
    assert np.array_equal(np.concatenate([batch.tokens for batch in seen]), plain.tokens)
    assert np.array_equal(np.concatenate([batch.valid for batch in seen]), plain.valid)


def digests(parameters):
    return [hashlib.sha256(p.detach().numpy().tobytes()).hexdigest() for p in parameters]


@pytest.mark.parametrize("name", ["reweight", "select", "noise", "distill"])
def test_two_ranks_together_have_the_gradient_of_one(request_for, loss_named, monkeypatch, name):
    request = request_for(loss=loss_named(name))
    whole = Run(request)
    whole.model.train()
    found = whole.batch_at(0)
    batch = Batch(found.tokens, np.array(LENGTHS), found.place)
    step = new_step(batch, None, 4)
    accumulate(whole.model, step, request.recipe, whole.state.methods)
    summed = [torch.zeros_like(p) for p in whole.model.parameters()]
    for rank in range(2):
        run, setting = with_setting(request, monkeypatch)
        others = part_of(batch, 1 - rank)
        methods = build(
            setting, lambda values, rank=rank, others=others: gathered(request, others, values, rank, monkeypatch)
        )
        accumulate(
            run.model, new_step(part_of(batch, rank), None, 4, lambda count: step.predicted), request.recipe, methods
        )
        for total, parameter in zip(summed, run.model.parameters(), strict=True):
            total += parameter.grad
    for total, parameter in zip(summed, whole.model.parameters(), strict=True):
        assert torch.allclose(total, parameter.grad, atol=1e-6)


def part_of(batch, rank):
    rows = slice(4 * rank, 4 * rank + 4)
    place = type(batch.place)(*(getattr(batch.place, name)[rows] for name in ("source", "row", "epoch")))
    return Batch(batch.tokens[rows], batch.valid[rows], place)


def with_setting(request, monkeypatch):
    """A run, and what its methods are built from."""
    caught = []
    with monkeypatch.context() as patch:
        patch.setattr("ratoon.training.run.build", lambda setting: (caught.append(setting), ())[1])
        run = Run(request)
    run.model.train()
    return run, caught[0]


def gathered(request, others, values, rank, monkeypatch):
    """What both ranks would lay end to end; the other's part is worked out here."""
    caught = []
    run, setting = with_setting(request, monkeypatch)
    methods = build(setting, lambda own: (caught.append(own), (own, 0))[1])
    accumulate(run.model, new_step(others, None, 4), request.recipe, methods)
    both = [values, caught[0]] if rank == 0 else [caught[0], values]
    return torch.cat(both), rank * len(caught[0])


def test_a_cache_of_losses_gives_what_the_reference_gives_and_asks_it_once(request_for, loss_named, monkeypatch):
    def cached():
        return Run(request_for("cached", loss=loss_named("select_cached"))).state.methods[0].reference

    step = new_step(Run(request_for("plain")).batch_at(0), None)
    found, first = Run(request_for("fresh", loss=loss_named("select"))).state.methods[0].reference, cached()
    expected = first.losses(step)
    assert torch.allclose(expected, found.losses(step), atol=1e-5)
    monkeypatch.setattr("ratoon.training.methods.reference.score", None)  # whoever asks the model again fails
    assert torch.equal(first.losses(step), expected)
    assert torch.equal(cached().losses(step), expected)


def test_a_row_scored_for_the_cache_is_the_same_to_the_bit_in_any_company(request_for, loss_named, tmp_path):
    batch, alike = Run(request_for("plain")).batch_at(0), []
    for rows in ([0, 1, 2, 3, 4, 5, 6, 7], [5, 2], [2]):
        loss = loss_named("select_cached")
        apart = loss.model_copy(
            update={"select": loss.select.model_copy(update={"cache": str(tmp_path / str(len(rows)))})}
        )
        reference = Run(request_for(f"{len(rows)}", loss=apart)).state.methods[0].reference
        found = reference.losses(new_step(Batch(batch.tokens[rows], batch.valid[rows]), None))
        alike.append(found[rows.index(2)])
    assert torch.equal(alike[0], alike[1])
    assert torch.equal(alike[0], alike[2])


def test_a_cache_never_answers_for_other_tokens_of_the_same_row(request_for, loss_named):
    reference = Run(request_for(loss=loss_named("select_cached"))).state.methods[0].reference
    batch = Run(request_for("plain")).batch_at(0)
    first = reference.losses(new_step(batch, None))
    other = batch.tokens.copy()
    other[2, 5] += 1  # packed anew, say
    again = reference.losses(new_step(batch._replace(tokens=other), None))
    assert not torch.equal(again[2], first[2])
    assert torch.equal(again[3], first[3])


@pytest.mark.parametrize(("name", "precision"), [("reweight", "bf16"), ("all", "bf16"), ("all", "bf16_pure")])
def test_every_loss_learns_in_bf16_too(request_for, loss_named, name, precision):
    result = train(request_for(loss=loss_named(name), precision=precision))
    first, last = (o.loss_nats for o in result.observations if o.evaluated == "general" and o.step in (0, 20))
    assert last < first


def test_what_is_looked_at_ahead_is_read_without_dropout(request_for, loss_named):
    run = Run(request_for(loss=loss_named("reweight"), micro_rows=4))
    run.model.train()
    seen = []
    run.model.get_input_embeddings().register_forward_hook(lambda module, inputs, found: seen.append(module.training))
    step = new_step(run.batch_at(0), None, 4)
    accumulate(run.model, step, run.request.recipe, run.state.methods)
    assert seen[:2] == [False, False]
    assert seen[-2:] == [True, True]


def test_opening_another_model_draws_nothing_from_the_runs_own_chance(request_for, loss_named, monkeypatch):
    def load_and_draw(*args, **kwargs):
        torch.rand(1)
        return load_model(*args, **kwargs)

    run = Run(request_for(loss=loss_named("distill")))
    monkeypatch.setattr("ratoon.training.methods.other_model.load_model", load_and_draw)
    before = torch.get_rng_state()
    run.state.methods[0].begin(run.model, new_step(run.batch_at(0), None))
    assert run.state.methods[0].teacher is not None
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_drops_out_is_weighed_by_what_it_loses_without(request_for, tmp_path):
    """Else what a row counts would depend on how the step is cut."""
    shape = {"vocab_size": 512, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**shape, resid_pdrop=0.5, bos_token_id=0, eos_token_id=0)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    found = []
    for micro_rows in (None, 2):
        request = request_for(loss=Loss(reweight=Reweight(burn_in_steps=0)), micro_rows=micro_rows)
        run = Run(request.model_copy(update={"model": str(tmp_path)}))
        run.model.train()
        method = run.state.methods[0]
        method.begin(run.model, new_step(run.batch_at(0), None, 0))
        found.append(method.factors_BT)
    assert torch.allclose(*found, atol=1e-5)
