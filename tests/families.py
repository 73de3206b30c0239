"""A tiny model of each family that transformers brings, weights drawn wide enough to tell one token from another."""

import torch
import transformers

END = 0  # the separator
SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": END}
SMALL |= {"bos_token_id": None, "eos_token_id": END}
GLU = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**GLU),
    "qwen2": lambda: transformers.Qwen2Config(**GLU),
    "qwen3": lambda: transformers.Qwen3Config(**GLU, head_dim=8),
    "mistral": lambda: transformers.MistralConfig(**GLU, head_dim=8, sliding_window=4),
    "gemma": lambda: transformers.GemmaConfig(**GLU, head_dim=8),
    "gemma2": lambda: transformers.Gemma2Config(**GLU, head_dim=8, sliding_window=4),
    "gemma3": lambda: transformers.Gemma3TextConfig(**GLU, head_dim=8, sliding_window=4),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SMALL, intermediate_size=48, max_position_embeddings=64),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=END, eos_token_id=END
    ),
}


def build(family, **config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = FAMILIES[family]()
        shape.update(config)
        model = transformers.AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
        for parameter in model.parameters():  # as made, logits hardly depend on where a token stands
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
        model.tie_weights()
    return model.eval()
