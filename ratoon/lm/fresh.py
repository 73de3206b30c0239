"""A model that has not learned anything: the shape and the tokenizer of another, weights by chance."""

import os
import shutil
from pathlib import Path

from ratoon.config import ConfigError
from ratoon.lm.base import copy_tokenizer


def forget(model: Path, seed: int, out: Path) -> Path:
    """`out`, made once: transformers' own initialisation of the family, drawn from `seed`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if (out / "config.json").exists():
        return out
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
        copy_tokenizer(model, beside)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        fresh.save_pretrained(beside, safe_serialization=True)
        beside.replace(out)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{model}: a model of its shape could not be made in {out}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out
