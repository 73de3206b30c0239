"""Weights and moments cut up over ranks: made whole, cut up again, and saved as they are.

While a run on ranks goes on, each rank writes its own part (torch.distributed.checkpoint) beside the training, into
`state/shards` of step-N. Another number of ranks, one among them, reads the parts anew. What others read, the last
checkpoint and a kept trunk, is put together by the first rank into the files that one process writes.
"""

import errno
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from ratoon.config import ConfigError
from ratoon.training.disk import check_room, discard, flush_names, letter
from ratoon.training.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State
    from ratoon.training.staging import Writer

SHARDS = Path("state") / "shards"


def is_cut(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")


def is_sharded(model: torch.nn.Module) -> bool:
    return any(is_cut(parameter) for parameter in model.parameters())


def local(tensor: Tensor) -> Tensor:
    """This rank's part."""
    found: Tensor = getattr(tensor, "to_local", lambda: tensor)()
    return found


def whole(tensor: Tensor) -> Tensor:
    """All of it, on every rank; all must ask."""
    found: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return found


def placed(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of `like`, cut up as that is where it is, and where they have one shape."""
    if not is_cut(like) or value.shape != like.shape:
        return value.to(like.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Every rank has read it: none needs to be told.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def fitted(tensors: Mapping[str, Tensor], model: "PreTrainedModel") -> dict[str, Tensor]:
    """Whole weights as `model.load_state_dict` takes them."""
    if not is_sharded(model):
        return dict(tensors)
    own = model.state_dict()
    return {name: placed(value, own[name]) if name in own else value for name, value in tensors.items()}


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole copies in host memory, where `keep`; one tensor at a time is whole on the device. Tied ones stay tied."""
    found: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        if id(tensor) not in seen:
            all_of_it = whole(tensor.detach())
            seen[id(tensor)] = all_of_it.cpu().contiguous() if keep else torch.empty(0)
        found[name] = seen[id(tensor)]
    return found


def parts(state: "State", rank: int) -> dict[str, Tensor]:
    """What this rank writes: the tensors themselves."""
    from ratoon.training.checkpoint import random_state, trainable

    found = {f"weights/{name}": tensor for name, tensor in own_weights(state.model).items()}
    for name, parameter in trainable(state.model):
        for key, value in state.optimizer.state.get(parameter, {}).items():
            found[f"optimizer/{name}/{key}"] = value.detach()
    return found | {f"{key}/{rank}": value for key, value in random_state(state.model.device).items()}


def own_weights(model: "PreTrainedModel") -> dict[str, Tensor]:
    """Parameters, tied ones once, and the buffers that are saved."""
    names = set(model.state_dict())
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in names}
    return {name: parameter.detach() for name, parameter in model.named_parameters()} | buffers


def save(
    state: "State", folder: Path, progress: Mapping[str, Any], ranks: Ranks, writer: "Writer | None" = None
) -> Path:
    """`state` as folder/step-N, each rank its part; with a writer, written beside the training from a copy."""
    import torch.distributed.checkpoint as dcp

    final = folder / f"step-{state.step:08d}"
    beside = folder / f".{final.name}.ranks"
    if writer:
        writer.wait()
    found = parts(state, ranks.number)
    if ranks.first:
        shutil.rmtree(beside, ignore_errors=True)
        check_room(sum(value.nbytes for value in found.values()), final)  # cut up, a tensor says what all of it takes
        (beside / SHARDS).mkdir(parents=True)
    ranks.wait()
    options = {"storage_writer": dcp.FileSystemWriter(beside / SHARDS), "process_group": ranks.saving}
    if writer:
        future: Any = dcp.async_save(found, **options)
        writer.begin(lambda: finish(future.result, beside, final, progress, ranks))
    else:
        finish(lambda: dcp.save(found, **options), beside, final, progress, ranks)
        ranks.wait()
    return final


def finish(written: Any, beside: Path, final: Path, progress: Mapping[str, Any], ranks: Ranks) -> None:
    """Call `written`, which returns on the first rank when all parts are on disk; then make them a checkpoint."""
    from torch.distributed.checkpoint import CheckpointException

    from ratoon.training import checkpoint

    try:
        written()
        if not ranks.first:
            return
        (beside / "state" / "progress.json").write_text(json.dumps(progress, indent=2), encoding="utf-8")
        checkpoint.seal(beside)
        if final.exists():
            discard(final)
        beside.replace(final)
        flush_names(final.parent)
    except CheckpointException as error:
        number, (cause, _) = next(iter(error.failures.items()))
        why = f"rank {number}: {cause}"
        raise OSError(
            errno.EIO, f"could not save {final}: {why}; free space and start again: earlier ones are whole"
        ) from error
    except OSError as error:
        raise letter(error, final) from error
    for old in checkpoint.whole(final.parent)[: -checkpoint.KEEP]:
        discard(old)


def has_parts(path: Path) -> bool:
    return (path / SHARDS / ".metadata").exists()


def restore(state: "State", path: Path) -> None:
    """Weights, optimizer and random state of `path`, whatever number of ranks wrote it."""
    import torch.distributed.checkpoint as dcp

    from ratoon.training.checkpoint import set_random_state, trainable

    reader = dcp.FileSystemReader(path / SHARDS)
    known: dict[str, Any] = reader.read_metadata().state_dict_metadata
    rank = dist.get_rank() if dist.is_initialized() else 0
    wanted = wanted_weights(state.model, known, path)
    for name, parameter in trainable(state.model):
        for key in (key for key in known if key.rpartition("/")[0] == f"optimizer/{name}"):
            entry = wanted[key] = room(known[key], parameter)
            state.optimizer.state[parameter][key.rpartition("/")[2]] = entry
    chances = {key for key in ("rng", "rng_cuda") if f"{key}/{rank}" in known}
    for key in chances:
        wanted[f"{key}/{rank}"] = torch.empty(known[f"{key}/{rank}"].size, dtype=torch.uint8)
    dcp.load(wanted, storage_reader=reader, no_dist=not dist.is_initialized())
    if "rng" in chances:
        set_random_state(state.model.device, {key: wanted[f"{key}/{rank}"] for key in chances})
    else:
        own_chance(state.step)


def restore_weights(model: "PreTrainedModel", path: Path) -> None:
    """Weights alone, into a model that is whole."""
    import torch.distributed.checkpoint as dcp

    reader = dcp.FileSystemReader(path / SHARDS)
    wanted = wanted_weights(model, reader.read_metadata().state_dict_metadata, path)
    dcp.load(wanted, storage_reader=reader, no_dist=True)


def wanted_weights(model: "PreTrainedModel", known: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Where those of `path`, which holds what is `known`, are to be read to."""
    wanted = {f"weights/{name}": tensor for name, tensor in own_weights(model).items()}
    if missing := sorted(set(wanted) - set(known)):
        raise ConfigError(f"{path}: weights do not fit the model: missing {missing}")
    return wanted


def room(known: Any, parameter: Tensor) -> Tensor:
    """Zeros for what an optimizer remembers of a parameter, cut up as this is where they have its shape."""
    if known.size == parameter.shape:
        return torch.zeros_like(parameter.detach())
    return torch.zeros(known.size, dtype=known.properties.dtype, device=local(parameter).device)


def own_chance(step: int) -> None:
    """That of a rank whose own is in no checkpoint, because fewer wrote it."""
    if rank := dist.get_rank() if dist.is_initialized() else 0:
        begin_chance(torch.initial_seed(), rank, step)


def meet() -> None:
    """Until all ranks are here."""
    dist.all_reduce(torch.zeros(()))  # not a barrier: NCCL's needs a device, and this none


def begin_chance(seed: int, rank: int, step: int = 0) -> None:
    """torch's own chance, dropout's: another on each rank, for their rows are others."""
    torch.manual_seed(seed if rank == 0 and step == 0 else hash((seed, rank, step)) % 2**63)
