"""A second model beside the one in training: found, checked, and opened only to be read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ratoon.config import ConfigError
from ratoon.config.loss import PARENT
from ratoon.corpus.tokenizer import read_json, tokenizer_digest
from ratoon.lm.attention import isolate
from ratoon.lm.load import check_weights, load_model
from ratoon.lm.suitable import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.methods import Setting


def find(given: str, setting: "Setting", key: str) -> Path:
    """The directory of the model asked for at `key` of params.yaml, by its configuration alone.

    Raises ConfigError where its predictions cannot be compared with those of the model in training.
    """
    path = setting.parent if given == PARENT else Path(given).expanduser().absolute()
    try:
        check_weights(path)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}; give a directory of transformers, or {PARENT}") from None
    config = read_json(path / "config.json")
    check_kind(path, config, key)
    check_words(path, config, setting, key)
    check_length(path, config, setting, key)
    return path


def check_kind(path: Path, config: dict[str, Any], key: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = config.get("architectures") or []
    if config.get("is_encoder_decoder") or not set(names) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        raise ConfigError(
            f"{key}: {path} is {', '.join(names) or 'of no named architecture'}, which does not predict the next token "
            f"from those before it; allowed: a causal language model of any size, such as the parent's family"
        )


def check_words(path: Path, config: dict[str, Any], setting: "Setting", key: str) -> None:
    own, its = setting.model.config.get_text_config().vocab_size, of_text(config, "vocab_size")
    if its != own:
        raise ConfigError(
            f"{key}: {path} has a vocabulary of {its or 'unknown size'}, the model in training has {own}; the same ids "
            f"would be other words: give a model with the parent's tokenizer and embedding size"
        )
    if all((folder / "tokenizer.json").exists() for folder in (path, setting.parent)):
        own_digest, its_digest = tokenizer_digest(setting.parent), tokenizer_digest(path)
        if own_digest != its_digest:
            raise ConfigError(
                f"{key}: {path} has tokenizer {its_digest}, the parent in {setting.parent} has {own_digest}; the same "
                f"ids would be other words: give a model with the parent's tokenizer"
            )


def check_length(path: Path, config: dict[str, Any], setting: "Setting", key: str) -> None:
    _, context = context_of(config)
    rows = setting.context or setting.mixture.row_tokens
    if context is not None and context < rows:
        raise ConfigError(
            f"{key}: {path} reads {context} tokens, rows have {rows}; give a model with a context at least as long"
        )


def of_text(config: dict[str, Any], field: str) -> int | None:
    found = config.get(field) or config.get("text_config", {}).get(field)
    return None if found is None else int(found)


def open_to_read(path: Path, setting: "Setting") -> "PreTrainedModel":
    """The model in `path` beside the one in training, frozen, without dropout, reading rows as that one does."""
    recipe = setting.recipe
    # Opening a model may draw numbers, and those of the run's own generator belong to the run.
    with torch.random.fork_rng(devices=[]):
        device = str(next(setting.model.parameters()).device)
        model = load_model(path, device, bf16=recipe.precision == "bf16_pure")
    model.requires_grad_(False).eval()
    if recipe.attention == "document":
        isolate(model, bf16=recipe.precision != "fp32")
    return model
