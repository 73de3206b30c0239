"""train.adapter on a model: no change at first, the rest frozen, merged to what was trained."""

import copy
from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter
from transformers import GPT2Config, GPT2LMHeadModel

from ratoon.config import ConfigError, Scratch
from ratoon.config.adapter import Adapter
from ratoon.lm.adapters import (
    adapter_tensors,
    attach,
    is_adapted,
    is_adapter,
    keep_orthogonal,
    load_adapter,
    merge,
    wrapped,
)
from ratoon.lm.llama import new_llama
from ratoon.lm.load import non_embedding
from ratoon.lm.quantized import load_quantized, merge_into_parent

KINDS = {
    "lora": {"name": "lora", "rank": 4},
    "rslora": {"name": "rslora", "rank": 4},
    "dora": {"name": "dora", "rank": 4},
    "osf": {"name": "osf"},
}
each_kind = pytest.mark.parametrize("asked", KINDS.values(), ids=KINDS)
TOKENS = torch.arange(60).reshape(2, 30)
# Of the largest logit. OSF adds two products that cancel but for rounding.
AT_FIRST = {"lora": 0.0, "rslora": 0.0, "dora": 0.0, "osf": 1e-6}


def adapter(asked):
    return TypeAdapter(Adapter).validate_python(asked)


def plain(**more):
    shape = {"hidden": 32, "layers": 2, "heads": 2, "feed_forward": 48, "context": 64}
    return new_llama(Scratch(kind="scratch", tokens=1, learning_rate=1, rows_per_step=1, **shape, **more), 96, 0)


def adapted(asked, seed=0):
    model = plain()
    attach(model, adapter(asked), seed)
    return model


def trained(asked, steps=20, retract=True):
    """A few steps of AdamW, long enough for every factor to move."""
    model = adapted(asked)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if asked["name"] == "osf" and retract:
            keep_orthogonal(model)
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=TOKENS).logits


@each_kind
def test_an_adapter_changes_nothing_at_first(asked):
    before = logits(plain())
    assert (logits(adapted(asked)) - before).abs().max() <= AT_FIRST[asked["name"]] * before.abs().max()


@each_kind
def test_the_adapter_alone_is_trained_and_the_parents_weights_stay(asked):
    before = {name: p.clone() for name, p in plain().named_parameters()}
    model = trained(asked)
    assert all(is_adapter(name) == p.requires_grad for name, p in model.named_parameters())
    after = {n.replace(".base_layer", ""): p for n, p in model.named_parameters() if not is_adapter(n)}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], p) for name, p in after.items())
    assert non_embedding(model) == non_embedding(plain())


@each_kind
def test_the_merged_model_is_plain_and_says_the_same(asked, tmp_path):
    from transformers import AutoModelForCausalLM

    model = trained(asked)
    expected, parents = logits(model), logits(plain())
    assert (expected - parents).abs().max() > 0.1  # it has learned something
    merge(model)
    assert not is_adapted(model)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.state_dict().keys() == plain().state_dict().keys()
    assert (logits(again) - expected).abs().max() < 1e-5


@each_kind
def test_a_discounted_release_lies_between_the_parent_and_the_trained(asked):
    model = trained(asked)
    parent = dict(plain().named_parameters())
    found = {}
    for scale in (0.0, 0.5, 1.0):
        copied = copy.deepcopy(model)
        merge(copied, scale)
        found[scale] = dict(copied.named_parameters())
    for name, weight in parent.items():
        assert torch.equal(found[0.0][name], weight)
        assert torch.allclose(found[0.5][name], (weight + found[1.0][name]) / 2, atol=1e-6)


def test_a_lora_discounted_is_lora_with_a_smaller_scale():
    model = trained(KINDS["lora"])
    for _, layer in wrapped(other := copy.deepcopy(model)):
        layer.scale_layer(0.3)
    expected = logits(other)
    merge(model, 0.3)
    assert (logits(model) - expected).abs().max() < 1e-5


def leak(model):
    """How much of what OSF learned lies in the directions it is to leave alone, of all that it learned."""
    shares = []
    for name, layer in wrapped(model):
        U, _, V = torch.linalg.svd(plain().get_submodule(name).weight, full_matrices=False)
        kept = layer.effective_rank["default"]
        change = layer.get_delta_weight("default").detach()
        shares.append(max((U[:, :kept].T @ change).norm(), (change @ V[:kept].T).norm()) / change.norm())
    return max(shares)


def test_osf_leaves_the_largest_directions_alone_and_gradients_alone_do_not():
    assert leak(trained(KINDS["osf"], retract=False)) > 0.1  # the trap: Adam's step is not the projected gradient
    assert leak(trained(KINDS["osf"])) < 1e-4


@each_kind
def test_what_is_kept_of_an_adapter_brings_it_back_to_the_bit(asked):
    model = trained(asked)
    again = adapted(asked, seed=9)
    if asked["name"] == "osf":  # another machine may decompose otherwise
        for _, layer in wrapped(again):
            layer._osf_U_low_init["default"].neg_()
    load_adapter(again, {name: tensor.clone() for name, tensor in adapter_tensors(model).items()})
    assert torch.equal(logits(again), logits(model))


def test_an_adapter_of_another_rank_is_refused():
    tensors = adapter_tensors(adapted({"name": "lora", "rank": 8}))
    with pytest.raises(ConfigError, match=r"does not fit the model, as .*lora_A.* train.adapter must be as it was"):
        load_adapter(adapted(KINDS["lora"]), tensors)


def test_a_seed_draws_the_same_adapter_and_leaves_chance_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (adapter_tensors(adapted(KINDS["lora"], seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_every_linear_layer_but_the_head_is_a_target_by_default():
    names = {name for name, _ in wrapped(adapted(KINDS["lora"]))}
    assert names == {name for name, module in plain().named_modules() if name.endswith("_proj")}


def test_patterns_choose_the_targets():
    names = {name for name, _ in wrapped(adapted({**KINDS["lora"], "targets": ["*.q_proj", "*layers.1.mlp.*"]}))}
    assert len(names) == 5
    assert all(name.endswith("q_proj") or "layers.1.mlp" in name for name in names)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({**KINDS["lora"], "targets": ["*.query"]}, r"targets: no linear layer but the head matches '\*.query'; names"),
        ({**KINDS["lora"], "targets": ["lm_head"]}, r"no linear layer but the head matches 'lm_head'"),
        ({"name": "osf", "keep": 0.01}, r"adapter.keep: 0.01 of the 32 directions of .* is none; raise it"),
    ],
)
def test_targets_that_cannot_be_had_are_told(asked, message):
    with pytest.raises(ConfigError, match=message):
        adapted(asked)


@pytest.mark.parametrize("asked", [{"name": "osf", "rank": 8}, {"name": "lora", "keep": 0.5}, {"name": "moe"}])
def test_settings_of_another_adapter_are_refused(asked):
    with pytest.raises(ValueError, match=r"Extra inputs are not permitted|does not match any of the expected tags"):
        adapter(asked)


def test_qlora_without_a_gpu_is_told_what_it_needs_and_what_there_is_instead(tmp_path):
    with pytest.raises(ConfigError, match=r"qlora needs a GPU \(train.device\).*without, lora trains the same adapter"):
        load_quantized(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["lora", "dora", "osf"])
def test_an_adapter_over_bf16_weights_is_float32_and_released_so(kind):
    model = plain().bfloat16()
    attach(model, adapter(KINDS[kind]), 0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    merge(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_layers_of_gpt2_take_lora_and_osf_says_that_it_cannot():
    from transformers import GPT2Config, GPT2LMHeadModel

    def gpt2():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=2, n_positions=64)).eval()

    model = gpt2()
    attach(model, adapter(KINDS["lora"]), 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = logits(model)
    merge(model)
    assert (logits(model) - expected).abs().max() < 1e-5
    assert (expected - logits(gpt2())).abs().max() > 0.1
    with pytest.raises(ConfigError, match=r"osf cannot wrap .*c_attn \(Conv1D\); allowed here: lora"):
        attach(gpt2(), adapter(KINDS["osf"]), 0)


def test_what_was_learned_over_4_bits_is_merged_into_a_family_that_keeps_its_matrices_turned(tmp_path, monkeypatch):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=8, n_layer=1, n_head=2, n_positions=16))
    model.save_pretrained(tmp_path)
    name = "transformer.h.0.attn.c_attn"
    parent = model.get_submodule(name).weight.detach().clone()
    learned = torch.randn(24, 8)  # (out, in), as bitsandbytes keeps and peft answers
    layer = SimpleNamespace(get_delta_weight=lambda adapter: learned)
    monkeypatch.setattr("ratoon.lm.quantized.wrapped", lambda model: [(name, layer)])
    merge_into_parent(model, tmp_path, 0.5)
    assert torch.equal(model.get_submodule(name).weight, parent + 0.5 * learned.T)
