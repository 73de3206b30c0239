"""Rows of a context and its branches: every family gives what it gives each of them alone."""

import numpy as np
import pytest
import torch
from families import FAMILIES, build
from torch.utils._python_dispatch import TorchDispatchMode

from ratoon.evaluation.likelihood import Branch, Reader, Row, batches, split

BRANCHING = {"llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "gpt_neox", "gpt2"}


def rows_of(seed, count=7):
    draw = np.random.default_rng(seed)
    rows, owner = [], 0
    for _ in range(count):
        branches = []
        for _ in range(draw.integers(1, 5)):
            branches.append(Branch(owner, draw.integers(1, 64, draw.integers(1, 9)).tolist()))
            owner += 1
        rows.append(Row(draw.integers(1, 64, draw.integers(1, 20)).tolist(), tuple(branches)))
    return rows, owner


@torch.no_grad()
def alone(model, rows, requests):
    """Each branch read by itself, the logits of transformers, in float64 from there."""
    found = np.zeros(requests)
    for row in rows:
        for branch in row.branches:
            tokens = torch.tensor([[*row.context, *branch.tokens]])
            logs_TV = model(input_ids=tokens[:, :-1]).logits[0].double().log_softmax(-1)
            right_T = logs_TV.gather(1, tokens[0, 1:, None])[len(row.context) - 1 :]
            found[branch.owner] += right_T.sum().item()
    return found


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_branches_that_share_a_context_have_the_likelihood_each_has_alone(family):
    model = build(family)
    rows, requests = rows_of(3)
    expected = alone(model, rows, requests)
    reader = Reader(model, 64)
    assert reader.branching == (family in BRANCHING)
    assert reader.nats(rows, requests) == pytest.approx(expected, rel=1e-5)
    reader.branching = False
    assert reader.nats(rows, requests) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_in_bf16_contexts_are_shared_too_and_likelihoods_stay_near(family):
    model = build(family)
    rows, requests = rows_of(3)
    reader = Reader(model, 64, bf16=True)
    assert reader.branching
    assert reader.nats(rows, requests) == pytest.approx(alone(model, rows, requests), rel=0.05, abs=0.5)


def test_a_model_that_ignores_the_mask_is_given_each_branch_by_itself():
    model = build("llama")
    read = model.forward
    model.forward = lambda *args, attention_mask=None, **more: read(*args, **more)
    assert not Reader(model, 64).branching


def test_a_batch_size_changes_no_likelihood_beyond_rounding():
    model = build("qwen3")
    rows, requests = rows_of(5, count=20)
    small, large = (Reader(model, 64, batch_tokens=size).nats(rows, requests) for size in (1, 4096))
    assert small == pytest.approx(large, rel=1e-5)


def test_two_models_read_the_same_batches():
    rows, requests = rows_of(4, count=30)
    seen = []
    for family in ("llama", "gemma"):
        reader = Reader(build(family), 64, batch_tokens=100)
        read = reader.read
        reader.read = lambda batch, read=read, mine=seen: (mine.append(batch), read(batch))[1]
        reader.nats(rows, requests)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_batches_stay_under_their_tokens_and_waste_little():
    rows, _ = rows_of(6, count=2000)
    found = list(batches(rows, 512))
    assert sum(map(len, found)) == len(rows)
    for batch in found:
        assert len(batch) * max(row.length for row in batch) <= 512
    read = sum(len(batch) * max(row.length for row in batch) for batch in found)
    assert read <= 1.05 * sum(row.length for row in rows)


def test_many_choices_are_spread_over_rows_that_stay_short():
    row = Row([1, 2, 3], tuple(Branch(n, [4] * 11) for n in range(50)))
    parts = list(split(row, 64))
    assert [branch for part in parts for branch in part.branches] == list(row.branches)
    assert max(part.length for part in parts) <= 64


class Largest(TorchDispatchMode):
    """The most numbers one operation has made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # A view of weights or of a buffer takes no memory of its own.
        if isinstance(out, torch.Tensor) and not out._is_view() and "alias" not in func.name():
            self.numbers = max(self.numbers, out.numel())
        return out


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_memory_stays_under_a_small_limit_however_many_the_items(family):
    """llama: a plain head, chunk by chunk; gemma2: one with a soft cap, so that the model gives whole logits."""
    model = build(family)
    sizes = []
    for count in (40, 160):
        rows, requests = rows_of(7, count)
        reader = Reader(model, 64, batch_tokens=64)
        reader.logit_bytes = 1  # the least: 128 tokens at once
        with Largest() as largest:
            reader.nats(rows, requests)
        sizes.append(largest.numbers)
    assert max(sizes) <= max(64 * 64 * 2, 128 * 64)
    assert sizes[1] <= 1.2 * sizes[0]
