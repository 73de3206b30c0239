"""Exact state on disk: a model directory that transformers loads, and `state/` to go on from.

Written beside, listed in a manifest, then renamed: a directory called step-N is whole. The newest one before
it stays, so that a kill at any moment leaves something to resume from.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ratoon.config import ConfigError
from ratoon.lm.adapters import adapter_tensors, is_adapted, load_adapter
from ratoon.training import shards
from ratoon.training.disk import KEEP, check_room, discard, flush_names, letter
from ratoon.training.staging import Staging, Writer, short_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State

MANIFEST = "manifest.json"
ADAPTER = "adapter.safetensors"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds beside the tokenizer."""

    weights: Tensors
    optimizer: Tensors
    methods: Tensors
    progress: Mapping[str, Any]  # step, tokens, identity, and what else is to be read back

    @property
    def num_bytes(self) -> int:
        """Tied weights count once, as they are written."""
        tensors = [*self.weights.values(), *self.optimizer.values(), *self.methods.values()]
        return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def save(
    state: "State",
    folder: Path,
    *,
    tokenizer: Path | None,
    identity: str,
    tokens: int,
    more: Mapping[str, Any] | None = None,
    writer: Writer | None = None,
) -> Path:
    """`state` as folder/step-N; older ones but the newest are then removed.

    more    further progress to keep, plain JSON
    writer  writes it beside the training; none: written when this returns. What was under way is waited for first

    Raises OSError where it cannot be written; with a writer, at its next use.
    """
    final = folder / f"step-{state.step:08d}"
    progress = {"step": state.step, "tokens": tokens, "identity": identity, **(more or {})}
    if shards.is_sharded(state.model):
        if writer:
            writer.wait()
        write_whole(state, progress, final, tokenizer)
        return final
    if writer is None:
        write(content(state, progress), state.model, final, tokenizer)
        return final
    writer.wait()
    try:
        copied = content(state, progress, writer.staging)
    except (RuntimeError, MemoryError) as error:
        if not short_of_memory(error):
            raise
        copied = None
    if copied is None:  # no room for a copy: better a pause than an end
        writer.staging.clear()
        write(content(state, progress), state.model, final, tokenizer)
    else:
        check_room(copied.num_bytes, final)
        writer.begin(partial(write, copied, state.model, final, tokenizer))
    return final


def content(state: "State", progress: Mapping[str, Any], staging: Staging | None = None) -> Content:
    """The state itself, or with `staging` a copy that later steps do not change."""
    if staging is None:
        return Content(model_tensors(state.model), optimizer_tensors(state), method_tensors(state), progress)
    kinds = {
        "weights": model_tensors(state.model),
        "optimizer": optimizer_tensors(state),
        "methods": {f"{m.name}/{key}": value for m in state.methods for key, value in m.tensors().items()},
    }
    # One call for all: each wait for a GPU costs.
    copies = staging.copy({f"{kind}:{name}": t for kind, tensors in kinds.items() for name, t in tensors.items()})
    parts = {kind: {name: copies[f"{kind}:{name}"] for name in tensors} for kind, tensors in kinds.items()}
    return Content(**parts, progress=progress)


def write_whole(state: "State", progress: Mapping[str, Any], final: Path, tokenizer: Path | None) -> None:
    """A state that is cut up over ranks, as one process writes it: gathered by all, written by the first."""
    first = dist.get_rank() == 0
    named = dict(state.model.named_parameters(remove_duplicate=False))
    # The state's own tensors would hide which are tied.
    weights = {name: named.get(name, tensor) for name, tensor in model_tensors(state.model).items()}
    found = Content(
        shards.gathered(weights, first),
        shards.gathered(optimizer_tensors(state), first),
        method_tensors(state),
        progress,
    )
    if first:
        write(found, state.model, final, tokenizer)
    shards.meet()


def write(found: Content, model: "PreTrainedModel", final: Path, tokenizer: Path | None) -> None:
    """`found` as the directory `final`; `model` lends its configuration alone."""
    folder = final.parent
    beside = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        check_room(found.num_bytes, final)
        (beside / "state").mkdir(parents=True)
        if is_adapted(model):
            save_file(found.weights, beside / ADAPTER)
        else:
            write_model(model, beside, tokenizer, found.weights)
        save_file(found.optimizer, beside / "state" / "optimizer.safetensors")
        save_file(found.methods, beside / "state" / "methods.safetensors")
        (beside / "state" / "progress.json").write_text(json.dumps(found.progress, indent=2), encoding="utf-8")
        seal(beside)
        if final.exists():
            discard(final)
        beside.replace(final)
        flush_names(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise letter(error, final) from error
    for old in whole(folder)[:-KEEP]:
        discard(old)


def write_model(model: "PreTrainedModel", folder: Path, tokenizer: Path | None, weights: Tensors | None = None) -> None:
    """Weights (none: the model's own) and configuration as transformers reads them, the tokenizer's files beside."""
    from ratoon.lm.base import TOKENIZER_FILES

    model.save_pretrained(folder, safe_serialization=True, state_dict=weights)
    if tokenizer is None:
        return
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)


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


def read_progress(path: Path) -> dict[str, Any]:
    """What `save` was told of the run: step, tokens, identity and more."""
    found: dict[str, Any] = json.loads((path / "state" / "progress.json").read_text(encoding="utf-8"))
    return found


def restore(state: "State", path: Path, identity: str) -> dict[str, Any]:
    """Weights, optimizer, methods, step and random state as they were saved in `path`; returns its progress.

    Raises ConfigError where the checkpoint belongs to another run.
    """
    progress = read_progress(path)
    if progress["identity"] != identity:
        raise ConfigError(
            f"{path}: written by another run (request {progress['identity']}, this one is {identity}); "
            f"give this run a folder of its own"
        )
    state.step = progress["step"]
    if shards.has_parts(path):
        shards.restore(state, path)
        return progress
    load_weights(state.model, path)
    tensors = load_file(path / "state" / "optimizer.safetensors")
    set_random_state(state.model.device, tensors)
    shards.own_chance(state.step)
    restore_optimizer(state, tensors)
    if state.methods:
        restore_methods(state, load_file(path / "state" / "methods.safetensors"))
    return progress


def restore_optimizer(state: "State", tensors: Tensors) -> None:
    """What the optimizer remembers of each weight; `tensors` without the random state."""
    kept: dict[str, Tensors] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        kept.setdefault(name, {})[entry] = value
    for name, parameter in trainable(state.model):
        if name in kept:
            # torch keeps `step` on the CPU unless fused; the optimizer moves it where it wants it.
            state.optimizer.state[parameter] = {k: shards.placed(v, parameter) for k, v in kept[name].items()}


def random_state(device: torch.device) -> Tensors:
    states = {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng_cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(device: torch.device, tensors: Tensors) -> None:
    """Takes its entries out of `tensors`. A GPU's is of no use on a CPU, nor the other way round."""
    torch.set_rng_state(tensors.pop("rng"))
    on_gpu = tensors.pop("rng_cuda", None)
    if on_gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(on_gpu, device)


def model_tensors(model: "PreTrainedModel") -> Tensors:
    """What training may have changed of the model: all, or its adapter."""
    return adapter_tensors(model) if is_adapted(model) else model.state_dict()


def load_weights(model: "PreTrainedModel", path: Path) -> None:
    """Safetensors of `path` into `model`, in place; tied weights are stored once. Of an adapted model, the adapter."""
    if is_adapted(model):
        load_adapter(model, load_file(path / ADAPTER))
        return
    tensors: Tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors.update(load_file(file))
    missing, unexpected = model.load_state_dict(shards.fitted(tensors, model), strict=False)
    tied = {name for name in missing if name in (model._tied_weights_keys or {})}
    if unexpected or set(missing) - tied:
        raise ConfigError(f"{path}: weights do not fit the model: missing {missing}, unexpected {unexpected}")
    model.tie_weights()


def trainable(model: "PreTrainedModel") -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def optimizer_tensors(state: "State") -> Tensors:
    """The optimizer's own tensors, not copies, and the random state."""
    tensors = random_state(state.model.device)
    for name, parameter in trainable(state.model):
        for k, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{k}"] = value.detach()
    return tensors


def method_tensors(state: "State") -> Tensors:
    """What every method remembers, under its name."""
    return {
        f"{method.name}/{key}": value.detach().cpu().clone().contiguous()
        for method in state.methods
        for key, value in method.tensors().items()
    }


def restore_methods(state: "State", tensors: Tensors) -> None:
    for method in state.methods:
        own = f"{method.name}/"
        method.restore({key.removeprefix(own): value for key, value in tensors.items() if key.startswith(own)})
