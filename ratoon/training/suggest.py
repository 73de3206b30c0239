"""Learning rate and batch by published rules, beside those that are asked for. A suggestion: nothing is changed by it.

The rules are of runs from scratch (laws/equations/hyper.py). A continued run starts near a minimum and keeps what it
knows by small steps: take their learning rates as upper bounds, and sweep below them (sweep.learning_rates).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ratoon.config import Base, Scratch, TrainConfig
from ratoon.laws.equations.hyper import power_proxy_learning_rate, step_batch_tokens, step_learning_rate
from ratoon.lm.base import obtain
from ratoon.lm.llama import new_llama
from ratoon.lm.load import non_embedding
from ratoon.training.growth import size_of


class Suggestion(NamedTuple):
    """For one run: a model, and how many tokens it will see."""

    run: str
    params_non_embedding: int
    tokens: int
    step_rate: float  # Step Law (arXiv:2503.04715): peak
    power_rate: float  # proxy fit of the Power scheduler (arXiv:2408.13359): constant, at the recipe's batch; muP
    step_batch_rows: float  # Step Law: rows per step


def suggest(
    sizes: Mapping[str, int], recipe: TrainConfig, sweep_tokens: int, row_tokens: int
) -> tuple[Suggestion, ...]:
    """The target, and the longest proxy of every size.

    sizes  label -> parameters, embeddings excluded; the target's own size last
    """
    runs = [(f"target {list(sizes)[-1]}", list(sizes.values())[-1], recipe.tokens)]
    runs += [(f"proxy {label}", params, sweep_tokens) for label, params in sizes.items()]
    return tuple(one(run, params, tokens, recipe, row_tokens) for run, params, tokens in runs)


def one(run: str, params: int, tokens: int, recipe: TrainConfig, row_tokens: int) -> Suggestion:
    return Suggestion(
        run=run,
        params_non_embedding=params,
        tokens=tokens,
        step_rate=float(step_learning_rate(params, tokens)),
        power_rate=float(power_proxy_learning_rate(tokens, recipe.rows_per_step * row_tokens)),
        step_batch_rows=float(step_batch_tokens(tokens)) / row_tokens,
    )


def text(found: tuple[Suggestion, ...], recipe: TrainConfig) -> str:
    """A table for a person."""
    lines = [
        f"{'run':<24}{'parameters':>14}{'tokens':>16}{'Step Law rate':>15}{'Power rate':>12}{'Step Law rows':>15}",
        *(
            f"{s.run:<24}{s.params_non_embedding:>14,}{s.tokens:>16,}{s.step_rate:>15.2g}{s.power_rate:>12.2g}"
            f"{s.step_batch_rows:>15.3g}"
            for s in found
        ),
        f"asked for: learning_rate {recipe.learning_rate:g}, rows_per_step {recipe.rows_per_step}",
        "The rules are of runs from scratch: upper bounds for a continued one. Power's assumes muP.",
    ]
    return "\n".join(lines)


def size_of_base(base: Base, root: Path) -> int:
    """Parameters of a declared base, embeddings excluded. One made here need not have been made yet."""
    if not isinstance(base.weights, Scratch):
        return size_of(obtain(base, root))
    import torch

    with torch.device("meta"):
        return non_embedding(new_llama(base.weights, base.weights.vocabulary, 0))
