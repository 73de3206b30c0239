"""Divergence from the parent, live and from what is kept of it."""

import errno
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import end_of, needs_fork, start

from ratoon.lm.load import load_model
from ratoon.training.loop import accumulate, forward, new_step
from ratoon.training.methods import divergence, shelf
from ratoon.training.methods.shelf import Shelf
from ratoon.training.run import Run

WORDS = 30


@pytest.fixture
def apart():
    """Logits of a parent and of a model."""
    random = torch.Generator().manual_seed(3)
    return torch.randn(7, WORDS, generator=random), torch.randn(7, WORDS, generator=random)


def by_hand(parent, model, temperature=1.0):
    p, q = torch.softmax(parent / temperature, -1), torch.softmax(model / temperature, -1)
    return (p * (p / q).log()).sum(-1)


def test_it_is_the_divergence_from_the_parent_to_the_model(apart):
    parent, model = apart
    for temperature in (1.0, 2.5):
        assert torch.allclose(
            divergence.full(parent, model, temperature), by_hand(parent, model, temperature), atol=1e-6
        )
    assert not torch.allclose(divergence.full(parent, model, 1.0), by_hand(model, parent), atol=1e-2)


def test_it_is_0_with_slope_0_at_the_parent_in_both_forms(apart):
    parent, _ = apart
    own = parent.clone().requires_grad_()
    exact = divergence.full(parent, own, 1.5)
    assert (exact == 0).all()
    kept = divergence.rest(divergence.top_of(parent, 4, 1.5), own, 1.5)
    assert kept.abs().max() < 1e-6
    (exact.sum() + kept.sum()).backward()
    assert own.grad.abs().max() < 1e-6


def test_the_kept_words_and_one_rest_never_say_more_than_all_words_and_all_but_one_say_the_same(apart):
    parent, model = apart
    exact = divergence.full(parent, model, 1.0)
    found = [divergence.rest(divergence.top_of(parent, k, 1.0), model, 1.0) for k in range(1, WORDS)]
    for fewer, more in pairwise(found):
        assert (fewer <= more + 1e-6).all()
    assert (found[0] >= 0).all()
    assert torch.allclose(found[-1], exact, atol=1e-6)


def test_scaling_the_kept_words_to_1_would_pull_the_parent_away_from_itself(apart):
    parent, _ = apart
    own = parent.clone().requires_grad_()
    logs, words = torch.log_softmax(parent, -1).topk(4)
    scaled = torch.log_softmax(logs, -1)
    (scaled.exp() * (scaled - torch.log_softmax(own, -1).gather(-1, words))).sum().backward()
    assert own.grad.abs().max() > 0.1


def test_mass_moved_among_the_others_is_free_and_mass_moved_to_them_is_not(apart):
    parent, _ = apart
    top = divergence.top_of(parent, 5, 1.0)
    others = torch.ones(7, WORDS, dtype=torch.bool).scatter(-1, top.words_NK, False)
    logs = torch.log_softmax(parent, -1)
    shuffled = logs.clone()
    shuffled[others] = logs[others].reshape(7, -1).flip(-1).flatten()
    assert divergence.rest(top, shuffled, 1.0).abs().max() < 1e-5
    assert divergence.rest(top, torch.where(others, logs + 1, logs), 1.0).min() > 0.01


def test_a_certain_parent_gives_no_nan():
    parent = torch.zeros(1, WORDS)
    parent[0, 2] = 200.0
    own = torch.zeros(1, WORDS, requires_grad=True)
    found = divergence.rest(divergence.top_of(parent, 1, 1.0), own, 1.0)
    assert found.item() == pytest.approx(np.log(WORDS), abs=1e-5)
    found.sum().backward()
    assert torch.isfinite(own.grad).all()


# ---------------------------------------------------------------- in training


def run_of(request_for, out="run", recipe=None, **asked):
    return Run(request_for(out, forgetting={"parent": {"beta": 0.5, **asked}}, **(recipe or {})))


def term(run, number=0):
    step = new_step(run.batch_at(number), None, number)
    part = forward(run.model, step, slice(None))
    found = run.state.methods[0].term(part)
    return part, found


def test_at_the_first_step_the_loss_is_the_plain_one_to_the_bit(request_for):
    run = run_of(request_for, on="all")
    assert term(run)[1].item() == 0
    assert abs(term(run_of(request_for, on="all", top_k=8))[1].item()) < 1e-3


def test_only_general_rows_are_held_to_the_parent_unless_all_are_asked_for(request_for, tiny):
    parent = load_model(tiny / "model")
    for on in ("general", "all"):
        run = run_of(request_for, on=on, temperature=2.0)
        with torch.no_grad():
            for p in run.model.parameters():
                p.mul_(1.3)
        part, found = term(run)
        rows = (
            np.ones(8, bool)
            if on == "all"
            else run.batch_at(0).place.source == run.mixture.order.names.index("general")
        )
        assert rows.any()
        assert rows.all() == (on == "all")
        with torch.no_grad():
            wanted = by_hand(parent(input_ids=part.tokens_BT).logits[:, :-1], part.logits_BTV, 2.0)[rows].sum()
        assert found.item() == pytest.approx(0.5 * 4 * wanted.item(), rel=1e-4)


def test_padding_and_the_first_tokens_of_documents_are_no_part_of_it(request_for):
    run = run_of(request_for, on="all", recipe={"attention": "document"})
    with torch.no_grad():
        for p in run.model.parameters():
            p.mul_(1.3)
    batch = run.batch_at(0)
    batch.valid[2] = 5
    step = new_step(batch, 0)
    found = []
    for filling in (0, 9):
        batch.tokens[2, 5:] = filling
        found.append(run.state.methods[0].term(forward(run.model, step, slice(None))).item())
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_no_gradient_reaches_the_parent_and_it_stays_in_evaluation(request_for):
    run = run_of(request_for, on="all")
    run.advance(2, 20, None)
    parent = run.state.methods[0].model
    assert not parent.training
    assert all(p.grad is None and not p.requires_grad for p in parent.parameters())


def test_a_pull_to_the_parent_keeps_the_model_nearer_to_it(request_for):
    def away(beta):
        run = Run(request_for(forgetting={"parent": {"beta": beta, "on": "all"}}) if beta else request_for())
        run.advance(20, 20, None)
        probe = run_of(request_for, on="all")
        probe.model.load_state_dict(run.model.state_dict())
        return term(probe)[1].item()

    assert away(2.0) < 0.5 * away(0.0)


# ---------------------------------------------------------------- kept on disk


def test_the_parent_is_asked_once_for_each_row_and_never_by_a_run_that_goes_on(request_for, monkeypatch):
    asked = []
    answer = type(run_of(request_for, top_k=8).state.methods[0]).answer
    monkeypatch.setattr(
        "ratoon.training.methods.parent.Parent.answer",
        lambda self, step, rows: asked.append(step.batch.tokens[rows].tobytes()) or answer(self, step, rows),
    )
    run = run_of(request_for, top_k=8, recipe={"micro_rows": 4}, on="all")
    run.advance(4, 20, None)
    assert len(asked) == len(set(asked)) == 32
    again = run_of(request_for, top_k=8, on="all")
    again.advance(4, 20, None)
    assert len(asked) == 32
    assert "model" not in vars(again.state.methods[0])  # never opened


def test_another_question_has_answers_of_its_own(request_for):
    folders = {
        run_of(request_for, **asked).state.methods[0].folder
        for asked in (
            {"top_k": 8},
            {"top_k": 9},
            {"top_k": 8, "temperature": 2},
            {"top_k": 8, "recipe": {"attention": "document"}},
        )
    }
    assert len(folders) == 4
    assert run_of(request_for, top_k=8, beta=0.1).state.methods[0].folder in folders


def test_what_is_kept_pulls_as_the_whole_does_where_the_rest_is_one_word(request_for):
    found = {}
    for k in (None, 511):
        run = run_of(request_for, f"k{k}", on="all", top_k=k)
        with torch.no_grad():
            for p in run.model.parameters():
                p.mul_(1.2)
        accumulate(run.model, new_step(run.batch_at(0), None), run.request.recipe, run.state.methods)
        found[k] = [p.grad.clone() for p in run.model.parameters()]
    for exact, kept in zip(*found.values(), strict=True):
        assert torch.allclose(exact, kept, atol=1e-4 * float(exact.abs().max()))


FIELDS = [("words", "<u2", (3,))]
KEYS = [bytes([n]) * 16 for n in range(4)]


def test_records_cut_short_or_damaged_are_written_again_and_others_stay(tmp_path):
    path = tmp_path / "a.bin"
    first = Shelf(path, FIELDS)
    for n, key in enumerate(KEYS[:3]):
        first.put(key, words=np.array([n, n + 1, n + 2]))
    size = path.stat().st_size // 3
    data = bytearray(path.read_bytes())
    data[size + 25] ^= 1  # the second is damaged
    path.write_bytes(data[:-4])  # the third is torn
    again = Shelf(path, FIELDS)
    assert [again.get(key) is not None for key in KEYS] == [True, False, False, False]
    for n, key in enumerate(KEYS):
        if again.get(key) is None:
            again.put(key, words=np.array([n, n + 1, n + 2]))
    for found in (again, Shelf(path, FIELDS)):
        assert [found.get(key)["words"].tolist() for key in KEYS] == [[n, n + 1, n + 2] for n in range(4)]


def test_a_full_disk_is_told_and_leaves_the_file_whole(tmp_path):
    class Full:
        name = "a.bin"

        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[:7])

        def __getattr__(self, name):
            return getattr(self.file, name)

    kept = Shelf(tmp_path / "a.bin", FIELDS)
    kept.put(KEYS[0], words=np.array([1, 2, 3]))
    kept.file = Full(kept.file)
    with pytest.raises(OSError, match="no space left; free some and start again") as caught:
        kept.put(KEYS[1], words=np.array([4, 5, 6]))
    assert caught.value.errno == errno.ENOSPC
    assert Shelf(tmp_path / "a.bin", FIELDS).get(KEYS[0])["words"].tolist() == [1, 2, 3]
    assert shelf.KEY_BYTES == 16


@needs_fork
def test_runs_that_fill_one_file_at_once_lose_nothing_to_each_other(tmp_path):
    path, fields, most = tmp_path / "a.bin", [("losses", "<f4", (2047,))], 40

    def fill(run):
        for turn in range(20):
            opened = Shelf(path, fields)
            keys = [b"%04d%04d%08d" % (run, turn, n) for n in range(most)]
            for n, key in enumerate(keys):
                opened.put(key, losses=np.full(2047, n, np.float32))
            if any(opened.get(key) is None for key in keys):
                return 2
        return 0

    children = [start(partial(fill, run)) for run in range(3)]
    assert [end_of(child) for child in children] == [0, 0, 0]
    assert len(Shelf(path, fields).places) == 3 * 20 * most


def test_a_record_that_another_run_cut_off_is_asked_for_again(tmp_path):
    path = tmp_path / "a.bin"
    kept = Shelf(path, FIELDS)
    kept.put(KEYS[0], words=np.array([1, 2, 3]))
    path.write_bytes(path.read_bytes()[:-1])
    assert kept.get(KEYS[0]) is None


def test_what_is_to_be_kept_is_held_against_the_room_there_is(request_for, monkeypatch):
    run = Run(request_for(forgetting={"parent": {"beta": 0.5, "on": "all", "top_k": 8}}))
    rows = run.state.methods[0].rows_to_keep(15)
    assert rows == run.request.steps * run.request.recipe.rows_per_step
    monkeypatch.setattr(shelf.shutil, "disk_usage", lambda path: SimpleNamespace(free=rows * 10))
    with pytest.raises(OSError, match=rf"parent\.top_k: what it keeps of {rows} rows takes .* free space, or lower it"):
        run.advance(1, 20, None)
