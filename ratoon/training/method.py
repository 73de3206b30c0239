"""What a method may change of a step, and what it must keep.

A method is one way to train otherwise than plainly: against forgetting, another loss, noise. The loop asks each in the
order of the recipe; a method that is left at its neutral setting is not built at all, so that plain training pays
nothing for it and is the same to the bit.

Whatever a method remembers goes through `tensors` and `restore`: a checkpoint and a branch of a trunk hold it. Chance
comes from the step's number and the seed, never from a generator that has a history.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ratoon.stream.mixture import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State


@dataclass(frozen=True)
class Step:
    """One update: which rows, and what their loss is divided by."""

    number: int  # 0 for the first of the run
    batch: Batch  # all rows of this rank
    predicted: int  # tokens with a loss in the step, over all ranks
    separator: int | None = None  # where documents are kept apart, the token that ends one


@dataclass(frozen=True)
class Part:
    """Some rows of a step after their forward pass. B rows, T - 1 places that may have a loss, V words."""

    step: Step
    rows: slice  # of step.batch
    tokens_BT: Tensor  # int64, all T
    labels_BT: Tensor  # int64 (B, T - 1), loop.IGNORE where there is no loss
    positions_BT: Tensor | None  # int64, place of each token in its document; None: rows are one text each
    logits_BTV: Tensor  # (B, T - 1, V), what predicts labels_BT


class Method:
    """Hooks that do nothing. `name` is the key of its state in a checkpoint."""

    name: str

    def begin(self, model: "PreTrainedModel", step: Step) -> None:
        """Before the first forward pass of a step."""

    def before_forward(self, step: Step, rows: slice) -> None:
        """Before the forward pass of some rows."""

    def rests(self, step: Step) -> bool:
        """Whether it leaves the loss of this step alone: no logits are then held for it, and `weights` and `term` are
        not asked."""
        return False

    def weights(self, part: Part) -> Tensor | None:
        """(B, T - 1) factor of each token's loss, without gradient; None: 1. The step's sum is divided by
        `step.predicted` all the same, so factors of mean 1 keep the loss's scale."""
        return None

    def term(self, part: Part) -> Tensor | None:
        """A scalar to add to the part's summed loss, in nats; it is divided by `step.predicted` too."""
        return None

    def after_gradients(self, state: "State") -> None:
        """All gradients of the step are there, not clipped yet."""

    def before_update(self, state: "State") -> None:
        """Just before the optimizer moves the weights; `state.step` is the number of this update, from 0."""

    def after_update(self, state: "State") -> None:
        """The weights have moved; `state.step` is still the number of this update."""

    def finish(self, model: "PreTrainedModel") -> None:
        """Turn trained weights into those to release; called once, after the last step and its checkpoint."""

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed run needs beside weights and optimizer."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave, whatever device it comes from."""
