"""Whether a model directory can be continued here, before anything is packed or trained for it.

Asked of config.json, the tokenizer's files and the model card, never of weights: it costs milliseconds for 70B too.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratoon.config import Base, ConfigError
from ratoon.corpus.tokenizer import read_json

CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


def check_suitable(folder: Path, base: Base) -> None:
    """Raises ConfigError with the reason where `folder` holds no causal language model for rows of this length."""
    config = read_json(folder / "config.json")
    where = f"models/bases/{base.name}.yaml"
    if "quantization_config" in config:
        kind = (config["quantization_config"] or {}).get("quant_method", "an unnamed method")
        raise ConfigError(
            f"{where}: {folder} holds weights quantised by {kind}, which no gradient moves; give the original weights "
            f"(an adapter over quantised ones is train.adapter's business, on weights it quantises itself)"
        )
    if "vision_config" in config or "audio_config" in config:
        raise ConfigError(
            f"{where}: {folder} is a model of more than text ({config.get('model_type')}); "
            f"give the text model inside it, saved as one of its own"
        )
    check_architecture(config, folder, where)
    check_context(config, base.row_tokens, where)
    check_words(config, folder, where)
    check_license(folder, base, where)


def check_architecture(config: dict[str, Any], folder: Path, where: str) -> None:
    """A causal model that transformers itself knows."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    kind = config.get("model_type")
    if kind not in KNOWN and "auto_map" in config:
        raise ConfigError(
            f"{where}: {folder} ({kind}) needs code of its own, which is never run here; "
            f"allowed: families that transformers brings"
        )
    if kind not in KNOWN or config.get("is_encoder_decoder"):
        raise ConfigError(
            f"{where}: {folder} is {kind}, no causal language model that transformers knows; "
            f"allowed are Llama, Qwen, Gemma, Mistral, GPT-NeoX, GPT-2 and the like"
        )


def check_context(config: dict[str, Any], row_tokens: int, where: str) -> None:
    """Rows no longer than the positions the parent has learned: past them it fails, or reads badly and says nothing."""
    key, limit = context_of(config)
    if limit is not None and row_tokens > limit:
        raise ConfigError(
            f"{where}: row_tokens {row_tokens} is more than the model's {key} of {limit}; give at most {limit}"
        )


def context_of(config: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """How many tokens a model of this config.json reads at once, and what its family calls that. None: it says none."""
    text = {**config, **(config.get("text_config") or {})}
    return next(((key, int(text[key])) for key in CONTEXT if text.get(key)), (None, None))


def check_words(config: dict[str, Any], folder: Path, where: str) -> None:
    """No token without an embedding. An embedding may be larger than the tokenizer: it is padded for speed."""
    file, rows = folder / "tokenizer.json", config.get("vocab_size")
    if rows is None or not file.exists():
        return
    found = read_json(file)
    words = (found.get("model") or {}).get("vocab") or ()
    ids = words.values() if isinstance(words, dict) else range(len(words))  # unigram models list theirs
    highest = max([*ids, *(entry["id"] for entry in found.get("added_tokens") or ())], default=-1)
    if highest >= rows:
        raise ConfigError(
            f"{where}: the tokenizer in {folder} has an id {highest} and the model {rows} embeddings; "
            f"they do not belong together: give the tokenizer the model was trained with"
        )


def card_license(folder: Path) -> str | None:
    """What the model card says, in the hub's words; None where there is no card or none is named."""
    card = folder / "README.md"
    if not card.exists():
        return None
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*([^\s#]+)", head[1], re.MULTILINE) if head else None
    return found[1].strip("\"'").lower() if found else None


def check_license(folder: Path, base: Base, where: str) -> None:
    """A declaration that contradicts the model's own card is a mistake somebody should look at."""
    said = card_license(folder)
    if said and base.license and base.license.lower() != said:
        raise ConfigError(
            f"{where}: license {base.license!r}, and the model card in {folder} says {said!r}; "
            f"what it is made into inherits the licence: correct the declaration, or leave it out to take the card's"
        )


def license_of(folder: Path, base: Base) -> str | None:
    """The licence a continued model inherits, as far as anybody said."""
    return base.license or card_license(folder)
