"""Saving beside the training: the state is copied to host memory, and a thread writes the copy.

The copy costs as much memory as weights, optimizer and methods together. It is kept for the next save, because memory
that was never touched is several times slower to fill.
"""

import threading
from collections.abc import Callable

import torch


class Staging:
    """Host memory for one copy of some tensors, pinned where they come from a GPU."""

    def __init__(self) -> None:
        self.kept: dict[str, torch.Tensor] = {}

    def copy(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`tensors` as they are now, contiguous. Tied ones stay tied: they would be written twice."""
        copies: dict[str, torch.Tensor] = {}
        seen: dict[tuple[object, ...], torch.Tensor] = {}
        waits = False
        for name, tensor in tensors.items():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if place not in seen:
                seen[place] = self.room(name, tensor)
                seen[place].copy_(tensor.detach(), non_blocking=True)
                waits = waits or tensor.device.type == "cuda"
            copies[name] = seen[place]
        if waits:
            torch.cuda.synchronize()
        return copies

    def room(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        kept = self.kept.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            pinned = tensor.device.type == "cuda"
            kept = self.kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        return kept

    def clear(self) -> None:
        self.kept = {}


class Writer:
    """Does one job at a time in a thread. What went wrong in it is raised where the next one, or `wait`, is called."""

    def __init__(self) -> None:
        self.staging = Staging()
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def begin(self, job: Callable[[], object]) -> None:
        self.wait()

        def work() -> None:
            try:
                job()
            except BaseException as error:  # raised in the thread that waits
                self.error = error

        # Not a daemon: an interpreter that ends normally lets it finish.
        self.thread = threading.Thread(target=work, name="checkpoint")
        self.thread.start()

    def wait(self) -> None:
        """Until the job is done. Raises what it raised."""
        self.settle()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def settle(self) -> None:
        """Until the job is done, whatever came of it."""
        if self.thread:
            self.thread.join()
            self.thread = None


def short_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. torch says so on the CPU with a RuntimeError, told apart by its words alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
