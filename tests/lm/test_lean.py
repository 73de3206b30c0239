"""Lean halves of a layer: the same answer and the same gradients as transformers' modules, from less that is held."""

import copy

import pytest
import torch
from families import FAMILIES, build

from ratoon.lm.attention import logits
from ratoon.lm.lean import feed_forward, halved, paired, queries_keys_values
from ratoon.lm.lean_layers import attends, is_lean, leaned_to_score, make_lean, make_plain

KNOWN = ["llama", "mistral", "qwen2", "qwen3"]
TOKENS = torch.arange(40).reshape(2, 20) * 7 % 61 + 1
PLACES = torch.cat([torch.arange(8), torch.arange(12)]).expand(2, -1)


def answer(model, positions=None):
    """(logits, gradients by name) of one step in training."""
    model.zero_grad()
    torch.manual_seed(0)  # dropout's
    found = logits(model, TOKENS, positions)
    found.square().mean().backward()
    return found.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def close(a, b):
    return (a - b).abs().max() <= 1e-5 * a.abs().max()


def same(first, second, compare=torch.equal):
    assert first[1].keys() == second[1].keys()
    return compare(first[0], second[0]) and all(compare(first[1][name], second[1][name]) for name in first[1])


def layers(model):
    return [layer for layer in model.modules() if is_lean(layer)]


@pytest.mark.parametrize("positions", [None, PLACES], ids=["row", "document"])
@pytest.mark.parametrize("family", KNOWN)
def test_a_lean_model_answers_as_transformers_does_and_has_its_gradients(family, positions):
    model = build(family).train()
    expected = answer(model, positions)
    assert make_lean(model)
    assert len(layers(model)) == 2
    found = answer(model, positions)
    assert same(expected, found, close)
    assert not same(expected, found)  # it was another computation


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(KNOWN)))
def test_families_with_other_norms_or_activations_are_left_alone(family):
    model = build(family).train()
    expected = answer(model)
    assert not make_lean(model)
    assert same(expected, answer(model))


def test_attention_with_a_bias_or_normed_queries_stays_as_it_is():
    for family in KNOWN:
        model = build(family)
        make_lean(model)
        assert all(attends(layer) == (family in ("llama", "mistral")) for layer in layers(model))


def exact(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)


def test_slopes_of_the_feed_forward_half_are_those_of_its_formula():
    x, scale, gate, up, down = exact(2, 3, 4), exact(4), exact(5, 4), exact(5, 4), exact(4, 5)

    def formula(x, scale, gate, up, down):
        normed = scale * x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt()
        return x + (torch.nn.functional.silu(normed @ gate.T) * (normed @ up.T)) @ down.T

    assert torch.allclose(feed_forward(x, scale, 1e-3, gate, up, down), formula(x, scale, gate, up, down))
    assert torch.autograd.gradcheck(lambda x, s, *w: feed_forward(x, s, 1e-3, *w), (x, scale, gate, up, down))


@pytest.mark.parametrize("rows", [1, 2], ids=["places alike", "places of each row"])
def test_slopes_of_queries_keys_and_values_are_those_of_finite_differences(rows):
    x, scale, q, k, v = exact(2, 3, 4), exact(4), exact(8, 4), exact(4, 4), exact(4, 4)
    turn = torch.polar(torch.full((rows, 3, 2), 1.5, dtype=torch.float64), exact(rows, 3, 2).detach())
    assert torch.autograd.gradcheck(
        lambda x, s, *w: queries_keys_values(x, s, 1e-3, w, turn), (x, scale, q, k, v), atol=1e-5
    )


def test_pairs_of_a_head_go_side_by_side_and_back():
    weight = torch.arange(8.0)[:, None]
    assert paired(weight, 4)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    other = torch.randn(24, 5)
    assert torch.equal(halved(paired(other, 8), 8), other)


def test_a_frozen_matrix_gets_no_gradient_and_the_others_keep_theirs():
    model = build("llama").train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith(("embed_tokens.weight", "q_proj.weight", "up_proj.weight")))
    expected = answer(model)
    make_lean(model)
    assert same(expected, answer(model), close)


def test_evaluation_and_autocast_are_read_as_ever_to_the_bit():
    model = build("llama")
    plain = logits(model, TOKENS)
    make_lean(model)
    assert torch.equal(logits(model, TOKENS), plain)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        found = answer(model)
        make_plain(model)
        assert same(answer(model), found)


@pytest.mark.parametrize("family", KNOWN)
def test_lean_scoring_has_the_same_logits_and_leaves_training_as_it_is(family):
    model = build(family).train()
    expected = answer(model)
    model.eval()
    with torch.inference_mode():
        plain = logits(model, TOKENS)
        assert leaned_to_score(model)
        found = logits(model, TOKENS)
    assert close(plain, found)
    assert not torch.equal(plain, found)  # it was another computation
    assert torch.equal(logits(model, TOKENS), plain)  # gradients are wanted: somebody does something else with it
    assert same(expected, answer(model.train()))


def test_scoring_goes_on_as_ever_where_lean_layers_would_answer_otherwise():
    model = build("llama")
    model.model.layers[0].mlp.forward = lambda x: x  # nothing a class or a hook tells
    with torch.inference_mode():
        plain = logits(model, TOKENS)
        assert not leaned_to_score(model)
        assert torch.equal(logits(model, TOKENS), plain)
    assert not layers(model)


def test_who_listens_to_a_part_of_a_layer_hears_it_and_may_change_it():
    model = build("llama").train()
    handle = model.model.layers[0].mlp.down_proj.register_forward_hook(lambda _, given, found: found * 0.5)
    expected = answer(model)
    make_lean(model)
    assert same(expected, answer(model), close)
    handle.remove()
    assert not same(expected, answer(model), close)


def test_a_copy_of_a_lean_model_reads_its_own_weights():
    model = build("llama").train()
    make_lean(model)
    other = copy.deepcopy(model)
    assert len(layers(other)) == 2
    before = answer(other)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same(before, answer(other))


def test_made_plain_again_it_is_transformers_own_to_the_bit():
    model = build("llama").train()
    expected = answer(model)
    make_lean(model)
    make_plain(model)
    assert not layers(model)
    assert same(expected, answer(model))


def test_weights_and_their_names_are_untouched():
    model = build("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    make_lean(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
