"""A Llama from nothing, for bases that are made here."""

from typing import TYPE_CHECKING

from ratoon.config import Scratch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def new_llama(shape: Scratch, vocabulary: int, end_token: int) -> "PreTrainedModel":
    """Random weights from `shape.seed`; embedding and head are tied.

    vocabulary  rows of the embedding, at least the tokenizer's length
    end_token   id of the separator between documents
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_token,
        pad_token_id=end_token,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        return LlamaForCausalLM(config)
