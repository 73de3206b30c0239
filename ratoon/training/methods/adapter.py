"""train.adapter within a run: OSF's directions are held in their subspace, and at the end all is merged."""

from pathlib import Path
from typing import TYPE_CHECKING

from ratoon.config.adapter import Adapter, Osf
from ratoon.lm.adapters import keep_orthogonal, merge
from ratoon.lm.quantized import is_quantized, merge_into_parent
from ratoon.training.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ratoon.training.loop import State
    from ratoon.training.methods import Setting


def build(setting: "Setting") -> list[Method]:
    asked = setting.recipe.adapter
    return [] if asked is None else [Adapted(asked, setting.parent)]


class Adapted(Method):
    """The adapter's weights are the model's own parameters and in every checkpoint as such."""

    name = "adapter"

    def __init__(self, asked: Adapter, parent: Path) -> None:
        self.asked = asked
        self.parent = parent

    def after_update(self, state: "State") -> None:
        if isinstance(self.asked, Osf):
            keep_orthogonal(state.model)

    def finish(self, model: "PreTrainedModel") -> None:
        if is_quantized(model):
            merge_into_parent(model, self.parent, self.asked.release_scale)
        else:
            merge(model, self.asked.release_scale)
