"""What a run costs."""


def train_flops(params_non_embedding: float, tokens: float) -> float:
    """6 N D: forward and backward of a dense transformer, embeddings and attention scores left out
    (arXiv:2001.08361)."""
    return 6.0 * params_non_embedding * tokens
