"""Floating-point operations of one token in a row of T, a multiplication and an addition counted as two.

    forward    2 M + 4 L H T
    training   4 M + 2 M' + 12 L H T

M   weights that are multiplied with: all matrices but the embeddings, and the head though it be tied
M'  those of M that are trained; all of them in plain training, which gives 6 M (arXiv 2001.08361)
L H T   layers, heads x head size, row: scores and their sums over values, twice over in the backward pass
        (arXiv 2204.02311). A causal mask or a window halves nothing here: the full square is counted, as
        torch.utils.flop_counter does.

Not counted: what is computed again in the backward pass, norms, the softmax, the optimizer (a few per weight and step).
Silent about layers without attention, and about experts: each token pays for all of them, an upper bound.
"""

from typing import TYPE_CHECKING, NamedTuple

from ratoon.lm.load import numbers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Flops(NamedTuple):
    """Of one model, per token."""

    matrices: int
    trained: int
    attention: int  # L H

    def forward(self, row_tokens: int) -> int:
        return 2 * self.matrices + 4 * self.attention * row_tokens

    def training(self, row_tokens: int) -> int:
        return 4 * self.matrices + 2 * self.trained + 12 * self.attention * row_tokens


def flops_of(model: "PreTrainedModel") -> Flops:
    from torch.nn import Embedding

    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, Embedding)}
    multiplied = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in looked_up]
    head = model.get_output_embeddings()
    if head is not None and id(head.weight) in looked_up:
        multiplied.append(head.weight)
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Flops(
        matrices=sum(numbers(p) for p in multiplied),
        trained=sum(p.numel() for p in multiplied if p.requires_grad),
        attention=config.num_hidden_layers * config.num_attention_heads * size,
    )
