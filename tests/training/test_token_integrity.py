"""Every token counts once and alike, however rows are cut into batches, micro-batches and ranks."""

import numpy as np
import pytest
import torch

from ratoon.config import ConfigError, Schedule, Scratch, TrainConfig
from ratoon.lm.llama import new_llama
from ratoon.lm.load import load_model
from ratoon.stream.mixture import Mixture
from ratoon.stream.order import Order
from ratoon.stream.rows import Rows, positions_in_documents
from ratoon.training import checkpoint
from ratoon.training.loop import (
    accumulate,
    advance,
    boundary,
    count_predicted,
    labels,
    mean_loss,
    new_state,
    new_step,
    summed_loss,
)

END = 0  # the separator
SIZES = {"hidden": 16, "layers": 2, "heads": 2, "feed_forward": 32, "context": 32}


@pytest.fixture
def llama():
    shape = Scratch(kind="scratch", vocabulary=512, **SIZES, tokens=1, learning_rate=1, rows_per_step=1)
    return new_llama(shape, 64, END)


def pack(*rows):
    """Rows of documents of the given lengths, separators included."""
    random = np.random.default_rng(3)
    return np.array([np.concatenate([[*random.integers(1, 64, n - 1), END] for n in row]) for row in rows])


ROWS = ((7, 1, 1, 9, 2), (20,), (1, 19), (3, 3, 14))
TOKENS = pack(*ROWS)
WHOLE = np.full(len(ROWS), 20)


def document(**recipe):
    return TrainConfig(tokens=1, learning_rate=0.01, rows_per_step=4, attention="document", **recipe)


def gradients(model):
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def largest_difference(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


# Which tokens have a loss, and how they are counted


def test_the_first_token_of_a_document_has_no_loss_and_its_separator_has():
    positions = torch.from_numpy(positions_in_documents(TOKENS, END))
    wanted = labels(torch.from_numpy(TOKENS), WHOLE, positions)
    first = {(row, sum(sizes[:n]) - 1) for row, sizes in enumerate(ROWS) for n in range(len(sizes))}
    for row, at in np.ndindex(*wanted.shape):
        assert wanted[row, at] == (-100 if (row, at) in first else TOKENS[row, at + 1])
    assert count_predicted(TOKENS, WHOLE, END) == int((wanted != -100).sum()) == 4 * 20 - sum(map(len, ROWS))


def test_what_fills_a_short_row_is_neither_learned_nor_seen(llama):
    tokens, valid = TOKENS.copy(), np.array([17, 20, 11, 1])
    for row, n in enumerate(valid):
        tokens[row, n:] = END
    before = summed_loss(llama, tokens, valid, END)
    count = count_predicted(tokens, valid, END)
    for row, n in enumerate(valid):
        tokens[row, n:] = 7
    assert torch.equal(before, summed_loss(llama, tokens, valid, END))
    assert count == count_predicted(tokens, valid, END)


@pytest.fixture
def uneven():
    """Eight rows with 1 to 19 tokens to predict: a mean of means weighs them wrongly."""
    tokens = pack(*[(20,)] * 4, *[(1,) * 18 + (2,)] * 3, (1, 1, 1, 17))
    valid = np.array([20, 3, 20, 9, 20, 20, 20, 20])
    return tokens, valid


def one_step(model, batch, recipe, over_ranks=None):
    return accumulate(model, new_step(batch, boundary(recipe, END), over_ranks=over_ranks), recipe)


@pytest.mark.parametrize("kind", ["row", "document"])
def test_how_a_step_is_cut_up_changes_no_gradient(llama, uneven, kind):
    whole = one_step(llama, uneven, document().model_copy(update={"attention": kind}))
    expected = gradients(llama)
    for micro in (1, 2, 4):
        recipe = document().model_copy(update={"attention": kind, "micro_rows": micro})
        loss = one_step(llama, uneven, recipe)
        assert float(loss) == pytest.approx(float(whole), rel=1e-6)
        assert largest_difference(gradients(llama), expected) < 1e-6
    tokens, valid = uneven
    for row in range(8):  # the trap: a mean of means
        one_step(llama, (tokens[row : row + 1], valid[row : row + 1]), document())
    assert largest_difference([g / 8 for g in gradients(llama)], expected) > 1e-3


@pytest.mark.parametrize("ranks", [2, 4])
def test_gradients_of_all_ranks_sum_to_those_of_one(llama, uneven, ranks):
    tokens, valid = uneven
    whole = one_step(llama, uneven, document())
    expected = gradients(llama)
    count = count_predicted(tokens, valid, END)
    mine = [slice(rank, None, ranks) for rank in range(ranks)]
    assert sum(count_predicted(tokens[part], valid[part], END) for part in mine) == count
    losses = [one_step(llama, (tokens[p], valid[p]), document(), lambda _: count) for p in mine]
    assert float(sum(losses)) == pytest.approx(float(whole), rel=1e-6)
    assert largest_difference(gradients(llama), expected) < 1e-6


def test_a_step_divides_by_the_count_of_all_ranks(llama, uneven):
    said = []

    def report(step, values):
        said.append(float(values["loss_nats"]))

    for over in (None, lambda count: 2 * count):
        state = new_state(llama, document(), separator=END)
        still = {"batch_at": lambda _: uneven, "lr_at": lambda _: 0.0, "recipe": document()}
        advance(state, 1, **still, report=report, over_ranks=over)
    assert said[1] == pytest.approx(said[0] / 2, rel=1e-6)


@pytest.mark.parametrize("kind", ["row", "document"])
def test_the_held_out_loss_does_not_depend_on_the_batches(llama, uneven, kind):
    recipe = document().model_copy(update={"attention": kind})
    cut = [[slice(0, 8)], [slice(n, n + 1) for n in range(8)], [slice(0, 5), slice(5, 8)]]
    losses = [mean_loss(llama, ((uneven[0][s], uneven[1][s]) for s in parts), recipe, END) for parts in cut]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)
    ends = END if kind == "document" else None
    assert losses[0] == pytest.approx(summed_loss(llama, *uneven, ends).item() / count_predicted(*uneven, ends))


def test_a_step_with_nothing_to_predict_is_refused(llama):
    with pytest.raises(ConfigError, match="a step without a token to predict"):
        one_step(llama, (pack((1,) * 5), np.array([5])), document())


# The packed stream


@pytest.mark.parametrize("row_tokens", [1, 7, 16, 61, 128])
def test_positions_are_those_of_the_packed_documents(tiny, row_tokens):
    rows = Rows.open(tiny / "general", row_tokens=row_tokens)
    tokens, _ = rows.read(np.arange(rows.num_rows))
    truth = np.concatenate([np.arange(len(d)) for d in rows.documents()])
    begin = np.arange(rows.num_tokens) // row_tokens * row_tokens
    truth = np.minimum(truth, np.arange(rows.num_tokens) - begin)  # a row starts anew
    found = positions_in_documents(tokens, rows.separator).reshape(-1)[: rows.num_tokens]
    assert found.tolist() == truth.tolist()


def test_an_epoch_predicts_every_token_but_the_first_of_rows_and_documents(tiny):
    rows = Rows.open(tiny / "general", row_tokens=16)
    tokens, valid = rows.read(np.arange(rows.num_rows))
    starts = np.cumsum([0, *(len(d) for d in rows.documents())])[:-1]
    unpredicted = {*starts.tolist(), *range(0, rows.num_tokens, 16)}
    assert count_predicted(tokens, valid, rows.separator) == rows.num_tokens - len(unpredicted)


# Resume


def test_document_attention_learns_and_resumes_to_the_bit(tiny, tmp_path):
    recipe = document(schedule=Schedule(name="constant", warmup_steps=2), micro_rows=2)
    rows = {name: Rows.open(tiny / name, row_tokens=32) for name in ("general", "domain")}
    order = Order({"general": 0.5, "domain": 0.5}, {n: r.num_rows for n, r in rows.items()}, block_rows=10, seed=0)
    mixture = Mixture(rows, order)

    def start():
        return new_state(load_model(tiny / "model"), recipe, separator=rows["general"].separator)

    def go(state, until):
        advance(state, until, batch_at=lambda n: mixture.read(4 * n, 4), lr_at=lambda _: 0.01, recipe=recipe)

    def held_out(state):
        return mean_loss(state.model, [rows["general"].read(np.arange(8))], recipe, state.separator)

    whole, half, again = start(), start(), start()
    before = held_out(whole)
    go(whole, 30)
    go(half, 11)
    saved = checkpoint.save(half, tmp_path, tokenizer=None, identity="x", tokens=0)
    checkpoint.restore(again, saved, "x")
    go(again, 30)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))
    assert held_out(whole) < before - 0.3
