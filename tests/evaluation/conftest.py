"""A tiny model with random weights, a tokenizer of bytes, and held-out text to score them on."""

import pytest
from held_out_text import prose, write_held_out


@pytest.fixture
def sources(tmp_path):
    texts = {role: {f"{i:03}": prose(f"{role} {i}", 260 + i) for i in range(24)} for role in ("docs", "code")}
    return {
        "docs": ("general", write_held_out(tmp_path / "clean" / "docs", texts["docs"])),
        "code": ("domain", write_held_out(tmp_path / "clean" / "code", texts["code"])),
    }


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two models of the same shape with different weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    entries = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bare = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>")
    shape = LlamaConfig(
        vocab_size=len(entries),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        folder = tmp_path_factory.mktemp("model") / f"tiny-{seed}"
        LlamaForCausalLM(shape).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(folder)
    return tuple(folders)
