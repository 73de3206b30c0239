"""Heads and feed-forward units, found in every family that is known."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ratoon.config import ConfigError
from ratoon.stream.mixture import Batch
from ratoon.training.methods.importance import row_losses
from ratoon.training.methods.soft_mask import gated, slopes
from ratoon.training.methods.units import find_units

LLAMA_LIKE = {
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
}
FAMILIES = {
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": {**LLAMA_LIKE, "head_dim": 8},
    "gemma2": {**LLAMA_LIKE, "head_dim": 8},
    "olmo2": LLAMA_LIKE,
    "gpt_neox": {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 6},
    "gpt2": {"n_embd": 24, "n_inner": 20, "n_layer": 2, "n_head": 6},
}


def model_of(family, **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=50, max_position_embeddings=16, **FAMILIES[family], **more)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():  # biases begin at 0, which would hide a wrong one
            p.add_(0.1 * torch.randn_like(p))
    return model


TOKENS = torch.arange(24).reshape(2, 12) * 7 % 50


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_units_own_weights_the_model_is_as_with_its_gate_closed(family):
    model = model_of(family)
    layers = find_units(model, "key")
    assert [(layer.heads, layer.inner, layer.outer) for layer in layers] == [(6, 20, 24)] * 2
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group, unit in (("heads", 4), ("inner", 7), ("outer", 11)):
        with gated(layers) as gates, torch.no_grad():
            gates[f"{layers[1].prefix}{group}"][unit] = 0
            closed = model(input_ids=TOKENS).logits
        with torch.no_grad():
            for owned in layers[1].owned:
                # Of a head, what reads it out; keys and values that others share are not its own alone.
                if owned.group == group and (
                    group != "heads" or owned.name.endswith(("o_proj.weight", "dense.weight", "c_proj.weight"))
                ):
                    dict(model.named_parameters())[owned.name].movedim(owned.axis, 0)[owned.units == unit] = 0
            assert torch.allclose(model(input_ids=TOKENS).logits, closed, atol=1e-5)
            model.load_state_dict({**model.state_dict(), **kept})


# OLMo-2 divides query and key by their norm over all heads: there each moves all.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "olmo2"])
def test_a_heads_own_query_key_and_value_rows_move_its_gate_alone(family):
    model = model_of(family)
    layers = find_units(model, "key")
    reads = [owned for owned in layers[0].owned if owned.group == "heads" and owned.axis == rows_axis(owned, family)]
    seen = {}
    layers[0].out.register_forward_pre_hook(lambda _, given: seen.update(heads=given[0].unflatten(-1, (6, -1)).clone()))
    with torch.no_grad():
        model(input_ids=TOKENS)
        before = seen["heads"]
        for owned in (o for o in reads if not o.name.endswith(("o_proj.weight", "dense.weight", "c_proj.weight"))):
            parameter = dict(model.named_parameters())[owned.name]
            kept = parameter.clone()
            parameter.movedim(owned.axis, 0)[owned.units == 1] += 0.3
            model(input_ids=TOKENS)
            parameter.copy_(kept)
            moved = (seen["heads"] - before).abs().amax((0, 1, 3)) > 1e-6
            wanted = [unit // owned.shared == 1 for unit in range(6)]
            assert moved.tolist() == wanted or (owned.name.endswith("bias") and not moved[~torch.tensor(wanted)].any())


def rows_axis(owned, family):
    return 1 if family == "gpt2" and owned.name.endswith("weight") else 0


def test_every_weight_of_attention_and_feed_forward_belongs_to_units():
    for family in FAMILIES:
        model = model_of(family)
        known = {owned.name for layer in find_units(model, "key") for owned in layer.owned}
        for name, p in model.named_parameters():
            if p.ndim == 2 and not any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
                assert name in known, (family, name)
                owned = next(o for layer in find_units(model, "key") for o in layer.owned if o.name == name)
                assert len(owned.units) == p.shape[owned.axis]


def test_a_gates_slope_is_what_the_loss_changes_by():
    model = model_of("llama").double()
    layers, rows = find_units(model, "key"), [Batch(TOKENS[:1].numpy(), torch.tensor([12]).numpy())]
    found = slopes(model, layers, rows, None)[f"{layers[0].prefix}inner"][3].item()
    change = []
    for value in (1.01, 0.99):
        with gated(layers) as gates, torch.no_grad():
            gates[f"{layers[0].prefix}inner"][3] = value
            change.append(next(row_losses(model, rows, None)).item())
    assert found == pytest.approx((change[0] - change[1]) / 0.02, rel=1e-2)


def test_experts_and_other_layers_are_refused_with_what_to_do():
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mamba", vocab_size=50, hidden_size=16, num_hidden_layers=1)
    )
    with pytest.raises(ConfigError, match=r"key: no heads .* found in mamba .*; leave it out, or hold weights by"):
        find_units(model, "key")
