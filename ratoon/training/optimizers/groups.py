"""Which weights move, at what rate, by which rule."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from ratoon.config import ConfigError, TrainConfig
from ratoon.lm.adapters import DECAY_FORGETS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Named = list[tuple[str, nn.Parameter]]


def freeze(model: "PreTrainedModel", patterns: Iterable[str]) -> None:
    """Train no parameter whose name matches. Raises ConfigError for a pattern without one, and where none is left."""
    for pattern in patterns:
        for parameter in matching(model, pattern, "freeze"):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"train.optimizer.freeze: {list(patterns)} leave no weight to train; freeze fewer")


def matching(model: "PreTrainedModel", pattern: str, key: str) -> list[nn.Parameter]:
    found = [p for name, p in model.named_parameters() if fnmatchcase(name, pattern)]
    if found:
        return found
    names = [name for name, _ in model.named_parameters()]
    tied = [name for name, _ in model.named_parameters(remove_duplicate=False) if fnmatchcase(name, pattern)]
    if tied:
        hint = f"{tied[0]} is tied to the input embedding: name that one"
    else:
        close = difflib.get_close_matches(pattern.strip("*"), names, n=1, cutoff=0.3)
        hint = f"names are such as {(close or names)[0]}; `*` stands for any part of one"
    raise ConfigError(f"train.optimizer.{key}: no parameter of this model matches {pattern!r}; {hint}")


def rate_factors(model: "PreTrainedModel", rates: dict[str, float]) -> dict[int, float]:
    """id of a parameter -> factor of its rate, where it is not 1."""
    factors: dict[int, float] = {}
    for pattern, factor in rates.items():
        for parameter in matching(model, pattern, "rates"):
            factors[id(parameter)] = factors.get(id(parameter), 1.0) * factor
    return factors


def groups(model: "PreTrainedModel", recipe: TrainConfig) -> list[dict[str, Any]]:
    """Torch's parameter groups: by rule, decay and rate. Matrices decay, vectors (norms, biases) do not."""
    factors = rate_factors(model, recipe.optimizer.rates)
    apart = outer(model)
    found: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matrix = parameter.ndim >= 2
        decay = recipe.weight_decay if matrix and DECAY_FORGETS not in name else 0.0
        rule = rule_of(parameter, recipe) if id(parameter) not in apart else "adam"
        found.setdefault((rule, decay, factors.get(id(parameter), 1.0)), []).append(parameter)
    if recipe.optimizer.name == "galore" and not any(rule == "galore" for rule, _, _ in found):
        raise ConfigError(
            f"train.optimizer.galore.rank: {recipe.optimizer.galore.rank} is not below the shorter side of any matrix "
            f"that is trained; lower it, or take name: adamw"
        )
    return [
        {"params": parameters, "weight_decay": decay, "rule": rule, "rate_factor": factor}
        for (rule, decay, factor), parameters in found.items()
    ]


def rule_of(parameter: nn.Parameter, recipe: TrainConfig) -> str:
    """Of a parameter between the embeddings."""
    name = recipe.optimizer.name
    if parameter.ndim != 2 or name == "adamw":
        return "adam"
    return "adam" if name == "galore" and min(parameter.shape) <= recipe.optimizer.galore.rank else name


def outer(model: "PreTrainedModel") -> set[int]:
    """Embeddings and head: each row is a word's own, which no rule for whole matrices suits."""
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    head = model.get_output_embeddings()
    return {id(p) for module in (*modules, *([head] if head is not None else [])) for p in module.parameters()}
