"""Documents read behind what is known of them: text and its order stay, prefixes have no loss, then all is plain."""

from pathlib import Path

import numpy as np
import pytest
import torch
from prefixed_rows import by_hand
from safetensors.torch import load_file

from ratoon.config import Length, MixtureConfig
from ratoon.config.loss import Distill, Loss, Prefix, Reweight, Select
from ratoon.training import checkpoint
from ratoon.training.loop import IGNORE, accumulate, boundary, forward, mean_loss, new_step
from ratoon.training.rollback import without
from ratoon.training.run import Run, train

STEP = 8 * 16
UNTIL = Loss(prefix=Prefix(until_share=0.5))


def weights(result):
    return load_file(Path(result.model) / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def losing(run, batch):
    """(rows, T) whether each token has a loss."""
    part = forward(run.model, new_step(batch, boundary(run.request.recipe, run.state.separator)), slice(None))
    return np.pad((part.labels_BT != IGNORE).numpy(), ((0, 0), (1, 0)))


@pytest.mark.parametrize("attention", ["row", "document"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_row_is_what_the_rule_makes_of_it_token_by_token(prefixed_for, sources, attention, pieces):
    lengths = MixtureConfig(lengths=(Length(until=1.0, row_tokens=16 // pieces),)) if pieces > 1 else MixtureConfig()
    run = Run(prefixed_for(attention=attention, mixture=lengths))
    batch = run.batch_at(3)
    found, grown, cut = losing(run, batch), 0, 0
    for i, row in enumerate(batch.place.row):
        folder = sources[run.mixture.order.names[batch.place.source[i]]]
        tokens, lossy = by_hand(folder, int(row), attention == "document", 16 // pieces)
        assert batch.tokens[i, : batch.valid[i]].tolist() == tokens
        assert (batch.tokens[i, batch.valid[i] :] == 0).all()
        assert found[i, : batch.valid[i]].tolist() == lossy
        assert not found[i, batch.valid[i] :].any()
        grown, cut = grown + (len(tokens) > 16 // pieces), cut + bool(batch.silent[i, 0])
    assert grown > 4
    assert cut > 4
    assert new_step(batch, boundary(run.request.recipe, 0)).predicted == found.sum()


def test_no_token_of_text_is_lost_and_the_order_is_the_plain_one(prefixed_for, request_for):
    run, plain = Run(prefixed_for()), Run(request_for("plain"))
    for step in range(20):
        batch, expected = run.batch_at(step), plain.batch_at(step)
        assert all(np.array_equal(getattr(batch.place, k), getattr(expected.place, k)) for k in ("source", "row"))
        for i in range(8):
            row, source = int(batch.place.row[i]), run.mixture.order.names[batch.place.source[i]]
            more = run.reading.prefixed.sources[batch.place.source[i]].tokens_in(16)[row] if step < 10 else 0
            assert batch.valid[i] == expected.valid[i] + more, (source, row)


def test_the_last_row_of_a_source_is_as_short_as_its_text_and_its_prefixes(prefixed_for, sources):
    run = Run(prefixed_for())
    found, rows = run.reading.prefixed.sources[0], run.mixture.rows["domain"]
    last = rows.num_rows - 1
    text = rows.read(np.array([last]))[0][0, : rows.num_tokens - last * 16]
    assert found.put(text, last * 16)[0].tolist() == by_hand(sources["domain"], last, False)[0]
    assert len(found.tokens_in(16)) == rows.num_rows


def test_prefixes_of_no_tokens_are_plain_training_to_the_bit(prefixed_for, request_for, behind):
    empty = behind(lambda document: [])
    for attention in ("row", "document"):
        settings = {"attention": attention, "tokens": 6 * STEP}
        found = train(prefixed_for(f"empty-{attention}", Loss(prefix=Prefix(until_share=1)), empty, **settings))
        plain = train(request_for(f"plain-{attention}", **settings))
        assert same(weights(found), weights(plain))
        assert [o.loss_nats for o in found.observations] == [o.loss_nats for o in plain.observations]


def test_a_share_of_nothing_is_the_baseline_to_the_bit_and_asks_for_no_prefixes(request_for):
    none = Loss(prefix=Prefix(until_share=0))
    found, plain = (train(request_for(f"{loss.prefix}", loss=loss, tokens=6 * STEP)) for loss in (none, Loss()))
    assert same(weights(found), weights(plain))
    assert found.data == plain.data
    assert "prefix_tokens" not in found.model_dump_json()


def test_cooldown_reads_plain_rows_at_an_uninterrupted_rate_to_the_bit(prefixed_for, request_for):
    run, plain = Run(prefixed_for()), Run(request_for("plain"))
    for step in range(20):
        batch, expected = run.batch_at(step), plain.batch_at(step)
        assert (batch.silent is None) == (step >= 10)
        if step >= 10:
            assert np.array_equal(batch.tokens, expected.tokens)
            assert np.array_equal(batch.valid, expected.valid)
    rates = {}
    for name, each in (("prefixed", run), ("plain", plain)):
        each.advance(20, 20, lambda step, values, name=name: rates.setdefault(name, []).append(values["learning_rate"]))
    assert rates["prefixed"] == rates["plain"]
    plain.model.load_state_dict(run.model.state_dict())
    for each in (run, plain):
        step = new_step(each.batch_at(15), None, 15)
        each.found = accumulate(each.model.train(), step, each.request.recipe, each.state.methods)
    assert torch.equal(run.found, plain.found)


@pytest.mark.parametrize("killed_at", [1, 3])  # among prefixes, and after them
def test_a_run_cut_off_and_resumed_ends_where_an_unbroken_one_ends(prefixed_for, monkeypatch, killed_at):
    settings = {"tokens": 12 * STEP}
    whole = train(prefixed_for("whole", **settings))
    save, saves = checkpoint.save, []

    def save_then_die(*args, **kwargs):
        saves.append(save(*args, **kwargs))
        if len(saves) == killed_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            train(prefixed_for("cut", **settings))
    resumed = train(prefixed_for("cut", **settings))
    assert same(weights(whole), weights(resumed))
    assert [o.loss_nats for o in whole.observations] == [o.loss_nats for o in resumed.observations]
    assert whole.data == resumed.data


def others(name):
    found = {
        "plain": {},
        "smoothing": {"label_smoothing": 0.1},
        "reweight": {"reweight": Reweight(burn_in_steps=0)},
        "select": {"select": Select(keep=0.6, reference="parent")},
        "distill": {"distill": Distill(teacher="parent", temperature=2.0)},
        "noise": {"noise_alpha": 5.0},
    }[name]
    return Loss(prefix=Prefix(until_share=1), **found)


@pytest.mark.parametrize("name", ["plain", "smoothing", "reweight", "select", "distill", "noise"])
@pytest.mark.parametrize("attention", ["row", "document"])
def test_nothing_depends_on_how_a_step_is_cut_beside_other_losses_too(prefixed_for, name, attention):
    losses, gradients = [], []
    for micro_rows in (None, 1):
        run = Run(prefixed_for(f"by-{micro_rows}", others(name), micro_rows=micro_rows, attention=attention))
        with torch.no_grad():  # another than its parent, so that selection has something to choose by
            next(run.model.parameters()).mul_(1.5)
        step = new_step(run.batch_at(1), boundary(run.request.recipe, run.state.separator), 1)
        losses.append(accumulate(run.model.train(), step, run.request.recipe, run.state.methods).item())
        gradients.append([p.grad for p in run.model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "smoothing"])  # at the head, and by logits
def test_the_loss_is_the_mean_over_what_the_rule_gives_a_loss_and_another_with_labels_on_prefixes(prefixed_for, name):
    run = Run(prefixed_for(loss=others("plain")))
    batch, recipe = run.batch_at(0), prefixed_for(loss=others(name)).recipe
    run.model.eval()
    part = forward(run.model, new_step(batch, None), slice(None))
    log_BTV = torch.log_softmax(part.logits_BTV.double(), -1)
    smoothing = recipe.loss.label_smoothing
    total, count = 0.0, 0
    for b, t in zip(*np.nonzero(losing(run, batch)), strict=True):
        log_V = log_BTV[b, t - 1]
        total -= (1 - smoothing) * log_V[batch.tokens[b, t]].item() + smoothing * log_V.mean().item()
        count += 1
    found = accumulate(run.model, new_step(batch, None), recipe).item()
    assert found == pytest.approx(total / count, rel=1e-5)
    assert mean_loss(run.model, [batch], run.request.recipe) == pytest.approx(
        accumulate(run.model, new_step(batch, None), run.request.recipe).item(), rel=1e-5
    )
    trapped = accumulate(run.model, new_step(batch._replace(silent=None), None), recipe).item()
    assert abs(trapped - total / count) > 1e-4


def test_a_prefix_speaks_to_its_own_document_alone_where_documents_are_kept_apart(prefixed_for):
    seen = {}
    for attention in ("row", "document"):
        run = Run(prefixed_for(attention, attention=attention))
        run.model.eval()
        separator = boundary(run.request.recipe, run.state.separator)
        batch = next(b for b in map(run.batch_at, range(9)) if any(two_documents(b, i) for i in range(8)))
        i = next(i for i in range(8) if two_documents(batch, i))
        second = int(np.flatnonzero(batch.tokens[i] == 0)[0]) + 1
        other = batch.tokens.copy()
        other[i, 0] = (other[i, 0] + 1) % 400 + 1  # the prefix of the first
        logits = [
            forward(run.model, new_step(batch._replace(tokens=each), separator), slice(None)).logits_BTV[i]
            for each in (batch.tokens, other)
        ]
        seen[attention] = [not torch.equal(*(one[at] for one in logits)) for at in (second - 2, second)]
        assert batch.silent[i, 0]
    assert seen == {"row": [True, True], "document": [True, False]}


def two_documents(batch, i):
    ends = np.flatnonzero(batch.tokens[i, : batch.valid[i]] == 0)
    return batch.tokens[i, 0] >= 400 and len(ends) and 3 < ends[0] < batch.valid[i] - 3


@pytest.mark.parametrize("short", [(), (Length(until=0.3, row_tokens=8), Length(until=0.7, row_tokens=4))])
def test_what_prefixes_cost_is_counted_to_the_token(prefixed_for, request_for, short):
    mixture = MixtureConfig(lengths=short)
    run = Run(prefixed_for(mixture=mixture))
    plain = Run(request_for("plain", mixture=mixture))
    expected = {"general": 0, "domain": 0}
    for step in range(20):
        batch, own = run.batch_at(step), plain.batch_at(step)
        for i, source in enumerate(batch.place.source):
            expected[run.mixture.order.names[source]] += int(batch.valid[i] - own.valid[i])
    assert expected["domain"] > 0
    result = train(prefixed_for("trained", mixture=mixture))
    assert {name: read.prefix_tokens for name, read in result.data.items()} == expected
    own = plain.reading.account(20)
    assert {name: read.tokens for name, read in result.data.items()} == {name: own[name].tokens for name in own}


def test_only_the_sources_that_are_named_have_prefixes(prefixed_for):
    run = Run(prefixed_for(loss=Loss(prefix=Prefix(sources=("domain",)))))
    batch = run.batch_at(0)
    grown = batch.valid > 16
    assert {run.mixture.order.names[n] for n in batch.place.source[grown]} == {"domain"}
    assert run.reading.prefixed.tokens_before(20).keys() == {"domain"}


def test_rows_left_out_after_a_fault_take_what_is_silent_with_them(prefixed_for):
    batch = Run(prefixed_for()).batch_at(0)
    left = without(batch, (0, 3))
    kept = [1, 2, 4, 5, 6, 7]
    assert np.array_equal(left.silent, batch.silent[kept])
    assert np.array_equal(left.tokens, batch.tokens[kept])
    assert np.array_equal(left.place.row, batch.place.row[kept])


def test_training_behind_prefixes_learns_the_plain_text(prefixed_for):
    result = train(prefixed_for(loss=Loss(prefix=Prefix()), tokens=40 * STEP, evaluations=1))
    losses = {o.step: o.loss_nats for o in result.observations if o.evaluated == "general"}
    assert losses[40] < 0.7 * losses[0]
