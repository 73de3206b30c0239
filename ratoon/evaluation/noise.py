"""How much the loss rises when the weights are shaken: more, the longer a model was trained (arXiv:2503.19206).

    w' = w + scale * rms(w) * e,   e ~ N(0, 1), the same for parent and candidate

rms(w)  of each tensor     rise  bits per byte under noise less without, on held-out text, a mean over draws

A refresh after a refresh that makes this rise grow leaves a model that the next one, or fine-tuning, will harm more.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import Field

from ratoon.config import AssessConfig, NoiseConfig
from ratoon.evaluation.passages import rank
from ratoon.evaluation.reader import F64, Reader
from ratoon.lm.load import load_model
from ratoon.records import Interval, Record

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BLOCK_ROWS = 512
Model = Callable[[Path], Reader]


class Rise(Record):
    """At one scale of noise, in bits per byte."""

    scale: float
    parent: Interval
    candidate: Interval
    ratio: Interval | None = Field(description="candidate's over parent's; None: the parent's is not above 0")


class Sensitivity(Record):
    """`noise.json` of a refresh."""

    documents: int
    draws: int
    rises: tuple[Rise, ...]
    alarm: bool = Field(description="at some scale the candidate's rise is over max_ratio times the parent's")
    said: str


class Texts(NamedTuple):
    texts: list[str]
    sizes: F64  # bytes


def sensitivity(
    parent: Path, candidate: Path, texts: Mapping[str, str], config: AssessConfig, row_tokens: int, device: str
) -> Sensitivity:
    """Both models on the same texts (id -> text) under the same noise. One model is in memory at a time."""
    asked = config.noise or NoiseConfig()
    sizes = np.array([len(text.encode()) for text in texts.values()], np.float64)
    chosen = Texts(list(texts.values()), sizes)
    old, new = (rises(model, chosen, asked, row_tokens, device, config.seed) for model in (parent, candidate))
    found = tuple(_rise(scale, old[scale], new[scale], sizes, config) for scale in asked.scales)
    over = [each for each in found if each.ratio is not None and each.ratio.low > asked.max_ratio]
    return Sensitivity(
        documents=len(texts), draws=asked.draws, rises=found, alarm=bool(over), said=_said(found, over, asked)
    )


def rises(model: Path, chosen: Texts, asked: NoiseConfig, row_tokens: int, device: str, seed: int) -> dict[float, F64]:
    """Scale -> bits by which each text costs more under noise, a mean over draws."""
    reader = Reader(model, row_tokens, device)
    clean = reader.bits(chosen.texts)
    found = {}
    for scale in asked.scales:
        total = np.zeros_like(clean)
        for draw in range(asked.draws):
            # Read anew: taking noise off again would leave rounding behind.
            reader.model = load_model(model, reader.model.device.type).eval()
            shake(reader.model, scale, seed, draw)
            total += reader.bits(chosen.texts) - clean
        found[scale] = total / asked.draws
    return found


def shake(model: "PreTrainedModel", scale: float, seed: int, draw: int) -> None:
    """Add noise to every parameter, in place. Which noise depends on seed, draw, the name and the place alone."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = scale * float(parameter.float().square().mean().sqrt())
            flat = parameter.view(parameter.shape[0], -1) if parameter.dim() else parameter.view(1, 1)
            for start in range(0, flat.shape[0], BLOCK_ROWS):
                rows = flat[start : start + BLOCK_ROWS]
                rows += (size * _noise(name, start, rows.shape, seed, draw)).to(rows)


def _noise(name: str, start: int, shape: "torch.Size", seed: int, draw: int) -> "torch.Tensor":
    """A block is drawn whole: an embedding with more rows than the parent's has the same noise where both have rows."""
    import torch

    own = torch.Generator().manual_seed(rank("noise", seed, draw, name, start) % 2**63)
    return torch.randn(BLOCK_ROWS, shape[1], generator=own)[: shape[0]]


def _rise(scale: float, old: F64, new: F64, sizes: F64, config: AssessConfig) -> Rise:
    """Ratios over documents, with the percentile bootstrap over documents, paired."""
    rng = np.random.default_rng(config.seed)
    times_BD = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=config.bootstrap)
    weight_B, old_B, new_B = times_BD @ sizes, times_BD @ old, times_BD @ new

    def interval(value: float, draws: F64) -> Interval:
        tail = (1 - config.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Interval(value=value, low=float(low), high=float(high), confidence=config.confidence)

    a, b = float(old.sum() / sizes.sum()), float(new.sum() / sizes.sum())
    sure = a > 0 and bool((old_B > 0).all())
    return Rise(
        scale=scale,
        parent=interval(a, old_B / weight_B),
        candidate=interval(b, new_B / weight_B),
        ratio=interval(b / a, new_B / old_B) if sure else None,
    )


def _said(found: tuple[Rise, ...], over: list[Rise], asked: NoiseConfig) -> str:
    worst = max(found, key=lambda each: each.ratio.value if each.ratio else -math.inf)
    if worst.ratio is None:
        return "the parent's loss does not rise under so little noise; raise assess.noise.scales"
    told = (
        f"noise of {worst.scale:g} rms costs the candidate {worst.ratio.value:.2f} times what it costs the parent "
        f"[{worst.ratio.low:.2f}, {worst.ratio.high:.2f}]"
    )
    return f"{told}, more than {asked.max_ratio:g}: overtrained? train less, or at a lower rate" if over else told
