"""The loss taken at the head is the loss of the logits, in every family, and where it cannot be it is not taken."""

import numpy as np
import pytest
import torch
import transformers
from families import FAMILIES, GLU, build
from torch.nn.functional import cross_entropy

from ratoon.lm import head
from ratoon.lm.head import plain_head, summed_cross_entropy
from ratoon.training.loop import summed_loss

TOKENS = np.random.default_rng(0).integers(0, 64, (3, 20))
VALID = np.array([20, 7, 20])
CAPPED = {"gemma2"}  # squeezes its logits by a tanh


def by_logits(model):
    """Loss and gradients as transformers and torch give them."""
    tokens = torch.from_numpy(TOKENS)
    wanted = tokens[:, 1:].clone()
    wanted[1, VALID[1] - 1 :] = -100
    found = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    loss = cross_entropy(found.reshape(-1, 64), wanted.reshape(-1), reduction="sum")
    return loss.item(), gradients(model, loss)


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_every_gradient_are_those_of_the_logits(family):
    model = build(family)
    assert plain_head(model) == (family not in CAPPED)
    expected, slopes = by_logits(model)
    found = summed_loss(model, TOKENS, VALID)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    ours = gradients(model, found)
    assert ours.keys() == slopes.keys()
    for name, slope in slopes.items():
        assert torch.allclose(ours[name], slope, atol=1e-5 * float(slope.abs().max()) + 1e-7), name


def test_tied_and_untied_heads_both_get_their_gradient():
    for tied in (True, False):
        config = transformers.LlamaConfig(**GLU, tie_word_embeddings=tied)
        model = transformers.AutoModelForCausalLM.from_config(config)
        _, slopes = by_logits(model)
        assert ("lm_head.weight" in slopes) != tied
        ours = gradients(model, summed_loss(model, TOKENS, VALID))
        assert all(torch.allclose(ours[n], s, atol=1e-6 + 1e-5 * float(s.abs().max())) for n, s in slopes.items())


def test_heads_that_do_more_than_multiply_are_left_alone():
    llama = build("llama")
    llama.lm_head = torch.nn.Linear(32, 64)  # a bias
    assert not plain_head(llama)
    scaled = transformers.CohereConfig(**GLU, logit_scale=0.0625)
    assert not plain_head(transformers.AutoModelForCausalLM.from_config(scaled))


def test_a_head_that_is_wrapped_after_it_was_asked_is_asked_through_the_model():
    class Wrapped(torch.nn.Linear):
        pass

    llama = build("llama")
    assert plain_head(llama)
    llama.lm_head = Wrapped(32, 64, bias=False)
    assert not plain_head(llama)


@pytest.mark.parametrize("rows", [1, 5, 64, 1000])
def test_how_many_tokens_go_at_a_time_changes_nothing_but_rounding(monkeypatch, rows):
    monkeypatch.setattr(head, "LEAST_ROWS", rows)
    monkeypatch.setattr(head, "BUFFER", {"cpu": 1})
    torch.manual_seed(0)
    hidden, weight = torch.randn(130, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(50, (130,))
    found = torch.autograd.grad(2 * summed_cross_entropy(hidden, weight, labels), (hidden, weight))
    wanted = torch.autograd.grad(2 * cross_entropy(hidden @ weight.T, labels, reduction="sum"), (hidden, weight))
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_word_as_good_as_impossible_has_a_finite_loss():
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[300.0], [0.0], [-300.0]])
    assert summed_cross_entropy(hidden, weight, torch.tensor([2])).item() == 600.0
    assert summed_cross_entropy(hidden, weight, torch.tensor([0])).item() == 0.0


def test_no_gradient_is_worked_out_for_what_is_frozen_or_only_scored():
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(20, 8)
    labels = torch.arange(4)
    (slope,) = torch.autograd.grad(summed_cross_entropy(hidden, weight, labels), hidden)
    assert slope.shape == hidden.shape
    with torch.no_grad():
        assert not summed_cross_entropy(hidden, weight.requires_grad_(), labels).requires_grad


def test_under_autocast_the_loss_is_as_near_as_torch_s_own():
    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 32, requires_grad=True), torch.randn(100, 32, requires_grad=True)
    labels = torch.randint(100, (300,))
    exact = cross_entropy(hidden @ weight.T, labels, reduction="sum")
    wanted = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        ours = summed_cross_entropy(hidden, weight, labels)
        theirs = cross_entropy((hidden @ weight.T).float(), labels, reduction="sum")
    assert ours.dtype == torch.float32
    assert abs(ours - exact) <= 2 * abs(theirs - exact) + 1e-3 * exact
    for mine, slope in zip(torch.autograd.grad(ours, (hidden, weight)), wanted, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - slope).abs().max() < 0.02 * slope.abs().max()


def test_a_gradient_that_was_handed_on_is_not_handed_on_twice():
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)
    loss = summed_cross_entropy(hidden, weight, torch.arange(4))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed on once; take the loss again"):
        loss.backward()
