"""Exact state on disk: a model directory that transformers loads, and `state/` to go on from.

Written beside, listed in a manifest, then renamed: a directory called step-N is whole. The newest one before
it stays, so that a kill at any moment leaves something to resume from.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from ratoon.config import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State

KEEP = 2
MANIFEST = "manifest.json"


def save(state: "State", folder: Path, *, tokenizer: Path | None, identity: str, tokens: int) -> Path:
    """`state` as folder/step-N; older ones but the newest are then removed."""
    from ratoon.lm.base import TOKENIZER_FILES

    final = folder / f"step-{state.step:08d}"
    beside = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        (beside / "state").mkdir(parents=True)
        state.model.save_pretrained(beside, safe_serialization=True)
        for name in TOKENIZER_FILES if tokenizer else ():
            if (tokenizer / name).exists():  # type: ignore[operator]
                shutil.copyfile(tokenizer / name, beside / name)  # type: ignore[operator]
        save_file(optimizer_tensors(state), beside / "state" / "optimizer.safetensors")
        progress = {"step": state.step, "tokens": tokens, "identity": identity}
        (beside / "state" / "progress.json").write_text(json.dumps(progress, indent=2), encoding="utf-8")
        seal(beside)
        if final.exists():
            shutil.rmtree(final)
        beside.replace(final)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise OSError(
            error.errno, f"could not save {final}: {error.strerror}; free space and start again: earlier ones are whole"
        ) from error
    for old in whole(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def seal(folder: Path) -> None:
    """Everything flushed to disk, then listed with its size."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in files}
    with (folder / MANIFEST).open("w", encoding="utf-8") as handle:
        json.dump(sizes, handle, indent=2)
        handle.flush()
        os.fsync(handle.fileno())


def whole(folder: Path) -> list[Path]:
    """Complete checkpoints in `folder`, oldest first. Cut-short ones are passed over, never loaded."""
    return [path for path in sorted(folder.glob("step-*")) if is_whole(path)]


def is_whole(path: Path) -> bool:
    try:
        sizes = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def restore(state: "State", path: Path, identity: str) -> None:
    """Weights, optimizer, step and random state as they were saved in `path`.

    Raises ConfigError where the checkpoint belongs to another run.
    """
    progress = json.loads((path / "state" / "progress.json").read_text(encoding="utf-8"))
    if progress["identity"] != identity:
        raise ConfigError(
            f"{path}: written by another run (request {progress['identity']}, this one is {identity}); "
            f"give this run a folder of its own"
        )
    load_weights(state.model, path)
    tensors = load_file(path / "state" / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("rng"))
    for name, parameter in trainable(state.model):
        entry = {k: tensors[f"{name}/{k}"] for k in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{k}" in tensors}
        if entry:
            # torch keeps `step` on the CPU unless fused; the optimizer moves it where it wants it.
            state.optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in entry.items()}
    state.step = progress["step"]


def load_weights(model: "PreTrainedModel", path: Path) -> None:
    """Safetensors of `path` into `model`, in place; tied weights are stored once."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors.update(load_file(file))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    tied = {name for name in missing if name in (model._tied_weights_keys or {})}
    if unexpected or set(missing) - tied:
        raise ConfigError(f"{path}: weights do not fit the model: missing {missing}, unexpected {unexpected}")
    model.tie_weights()


def trainable(model: "PreTrainedModel") -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def optimizer_tensors(state: "State") -> dict[str, torch.Tensor]:
    tensors = {"rng": torch.get_rng_state()}
    for name, parameter in trainable(state.model):
        for k, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{k}"] = value.detach().cpu().clone()
    return tensors
