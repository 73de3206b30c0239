"""One run on several processes, its ranks: what they tell each other, and which rows of a step each of them reads.

Weights, gradients and moments are cut up over the ranks (FSDP2: each block, then the rest), and put together block by
block while they are needed. Every rank takes the same decisions at the same step: a rank that took another way would
leave the others waiting. The first alone writes journal, observations and result.

Who starts them says who they are, by torchrun's variables: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. So
torchrun, srun and `train.processes` (launch.py) are alike here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ratoon.config import ConfigError, TrainConfig
from ratoon.lm.load import pick_device
from ratoon.stream.mixture import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run. The only one there is asks nobody."""

    number: int = 0
    count: int = 1
    saving: Any = None  # a group of their own: checkpoints are written while the training talks

    @property
    def first(self) -> bool:
        return self.number == 0

    def rows(self, count: int) -> slice:
        """Which of the rows of a step are this rank's; one after the other, the ranks' are the step's."""
        return slice(self.number * count // self.count, (self.number + 1) * count // self.count)

    def padded(self, batch: Batch, rows: int) -> Batch:
        """`batch` with as many rows as any rank may have of `rows`: all take as many forward passes."""
        most = -(-rows // self.count)
        return muted(batch, most - len(batch.tokens)) if self.count > 1 else batch

    def part(self, batch: Batch) -> Batch:
        """This rank's rows of a batch that all have read."""
        if self.count == 1:
            return batch
        own, count = self.rows(len(batch.tokens)), len(batch.tokens)
        return self.padded(Batch(batch.tokens[own], batch.valid[own]), count)

    def total(self, count: int) -> int:
        return int(self.sum(torch.tensor(count)))

    def sum(self, values: Tensor) -> Tensor:
        """Over all ranks."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        return self.total(int(flag)) > 0

    def all(self, flag: bool) -> bool:
        return self.total(int(flag)) == self.count

    def gather(self, values: Tensor) -> tuple[Tensor, int]:
        """The values of all ranks laid end to end, and where those of this rank begin; as many on each."""
        if self.count == 1:
            return values, 0
        found = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(found, values.contiguous())
        return torch.cat(found), self.number * len(values)

    def same(self, value: T) -> T:
        """What the first rank has."""
        if self.count == 1:
            return value
        held: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """For the others."""
        self.total(0)  # not a barrier: NCCL's needs a device, and this needs none

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first makes what the others then find."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = Ranks()


def muted(batch: Batch, more: int) -> Batch:
    """`batch` and `more` rows of one token each: they have no loss, and nothing learns from them."""
    if more < 1:
        return batch
    place, silent, width = batch.place, batch.silent, batch.tokens.shape[1]
    if place is not None:
        nowhere = np.zeros(more, np.int64)
        place = type(place)(*(np.concatenate([kept, nowhere]) for kept in (place.source, place.row, place.epoch)))
    if silent is not None:
        silent = np.concatenate([silent, np.zeros((more, width), bool)])
    return batch._replace(
        tokens=np.concatenate([batch.tokens, np.zeros((more, width), np.int64)]),
        valid=np.concatenate([batch.valid, np.ones(more, np.int64)]),
        place=place,
        silent=silent,
    )


def started_as_rank() -> bool:
    """Whether who started this process said that it has others beside it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(recipe: TrainConfig) -> Iterator[Ranks]:
    """The ranks of this run while it lasts. Raises ConfigError for a recipe that they cannot follow."""
    if not started_as_rank():
        yield ALONE
        return
    if missing := [name for name in VARIABLES if name not in os.environ]:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and {', '.join(missing)} not set: a rank must know all of "
            f"{', '.join(VARIABLES)}; start it with torchrun, or set train.processes"
        )
    check(recipe, int(os.environ["WORLD_SIZE"]))
    on_gpu = pick_device(recipe.device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # gloo beside NCCL: counts and flags lie on the CPU, where telling them makes no GPU wait.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    yield Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))
    # Not after an error: others may still be waiting for what will not come.
    dist.destroy_process_group()


def check(recipe: TrainConfig, count: int) -> None:
    """Refuse what would be wrong on ranks: those of train.processes were asked for it before, torchrun's are not."""
    try:
        recipe.check_ranks(count)
    except ValueError as error:
        raise ConfigError(f"train.{error}") from None


def shard(model: "PreTrainedModel", device: torch.device, ranks: Ranks) -> None:
    """Cut the weights of `model` up over the ranks, in place, on `device`; gradients are summed over ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (ranks.count,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    # The rest too is cut up again after a forward pass without a backward one: an evaluation, a look ahead. Left whole,
    # as torch would, its parameters would not be those the optimizer knows.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # A step's loss is divided by its tokens on all ranks already; averaging would divide once more.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def blocks(model: "PreTrainedModel") -> list[torch.nn.Module]:
    """The layers that follow each other: what the outermost lists of the model hold."""
    lists = {name: found for name, found in model.named_modules() if isinstance(found, torch.nn.ModuleList)}
    outermost = [found for name, found in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    return [block for found in outermost for block in found]
