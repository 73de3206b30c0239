"""The rate of matrix products on a model's own shapes: each product of an update alone, one after the other.

Every product with a weight, forward, back to its input and to its gradient; and those of attention, scores and sums of
values, forward and the four of the way back, which are products of matrices too (arXiv 2204.02311, appendix B). Of
attention's only the half that a causal mask leaves is counted, in FLOPs and in time: T + 1 of 2 T. A product that is
reckoned twice counts once. Not counted: norms, rotations, activations, softmax, the optimizer.

Processor time, into memory that is there already: what new memory costs is no part of a product.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

Work = tuple[float, float]  # (FLOPs, processor seconds)


def of_weights(model: Any, rows: int, row_tokens: int) -> Work:
    """Of one update's products with weights, each alone. The last token of a row has nothing to predict: no head."""
    head = model.get_output_embeddings()
    matrices = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    shapes = Counter((rows * (row_tokens - (m is head)), m.in_features, m.out_features) for m in matrices)
    flops, seconds = 0.0, 0.0
    for (tokens, wide, out), count in shapes.items():
        x, w, slope = torch.randn(tokens, wide), torch.randn(out, wide), torch.randn(tokens, out)
        seconds += count * sum(alone_of(torch.mm, *two) for two in ((x, w.t()), (slope, w), (slope.t(), x)))
        flops += count * 3 * 2 * tokens * wide * out
    return flops, seconds


def of_attention(config: Any, rows: int, row_tokens: int) -> Work:
    """Of one update's products in attention: of whole squares, times the part of them that a causal mask leaves."""
    heads = rows * config.num_attention_heads
    wide = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, k, v, slope = (torch.randn(heads, row_tokens, wide) for _ in range(4))
    shares, slopes = (torch.randn(heads, row_tokens, row_tokens) for _ in range(2))
    forward = (q, k.mT), (shares, v)
    back = (shares.mT, slope), (slope, v.mT), (slopes, k), (slopes.mT, q)
    causal = config.num_hidden_layers * (row_tokens + 1) / (2 * row_tokens)
    seconds = causal * sum(alone_of(torch.bmm, *two) for two in forward + back)
    return causal * 6 * 2 * heads * row_tokens**2 * wide, seconds


def alone_of(product: Callable[..., torch.Tensor], left: torch.Tensor, right: torch.Tensor) -> float:
    """Processor seconds into memory that is there already: what new memory costs is no part of a product."""
    times, out = list[float](), product(left, right)
    for _ in range(5):
        begun = time.process_time()
        product(left, right, out=out)
        times.append(time.process_time() - begun)
    return statistics.median(times)
