from types import SimpleNamespace

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from ratoon.lm.flops import flops_of

LLAMA_LIKE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama, tied": ("Llama", {**LLAMA_LIKE, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama, head of its own": ("Llama", {**LLAMA_LIKE, "tie_word_embeddings": False}),
    "qwen3, wide heads": ("Qwen3", {**LLAMA_LIKE, "num_key_value_heads": 2, "head_dim": 16}),
    "mistral, window": ("Mistral", {**LLAMA_LIKE, "num_key_value_heads": 2, "sliding_window": 4}),
    "gemma2": ("Gemma2", {**LLAMA_LIKE, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0}),
    "gpt-neox": ("GPTNeoX", LLAMA_LIKE),
    "gpt2": ("GPT2", {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
}
ROWS, TOKENS = 3, 16


def made(name):
    family, shape = FAMILIES[name]
    config = getattr(transformers, f"{family}Config")(**shape, attn_implementation="eager")
    lm = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    return getattr(transformers, f"{family}{lm}")(config)


def counted(model, backward):
    tokens = torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS) % 96
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=tokens, use_cache=False).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_formula_is_what_torch_counts_to_the_last_operation(name):
    model = made(name)
    found = flops_of(model)
    assert found.forward(TOKENS) * ROWS * TOKENS == counted(model, backward=False)
    assert found.training(TOKENS) * ROWS * TOKENS == counted(model, backward=True)


def test_a_frozen_matrix_costs_no_gradient_of_its_own():
    model = made("llama, tied")
    whole = flops_of(model)
    frozen = model.model.layers[1].mlp.up_proj.weight
    frozen.requires_grad_(False)
    found = flops_of(model)
    assert whole.trained - found.trained == frozen.numel()
    assert found.training(TOKENS) * ROWS * TOKENS == counted(model, backward=True)


def test_a_matrix_in_4_bits_counts_the_numbers_it_stands_for():
    model = made("llama, tied")
    whole = flops_of(model)
    up = model.model.layers[0].mlp.up_proj
    packed = torch.nn.Parameter(torch.zeros(up.weight.numel() // 2, 1), requires_grad=False)
    packed.quant_state = SimpleNamespace(shape=up.weight.shape)  # as bitsandbytes has it
    up.weight = packed
    assert flops_of(model).matrices == whole.matrices


def test_a_tied_head_is_multiplied_with_and_its_embedding_only_looked_up():
    tied, apart = flops_of(made("llama, tied")), flops_of(made("llama, head of its own"))
    keys_and_values = 2 * 32 * 32 * 3  # of every layer; the tied one has half the heads for them
    assert apart.matrices - tied.matrices == keys_and_values // 2
