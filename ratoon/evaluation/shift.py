"""How far the weights moved from the parent's, tensor by tensor.

    distance = |c - p| / |p|        cosine = <c, p> / |c| |p|

p  parent     c  candidate     |.|  the root of the sum of squares, over a tensor or over all tensors of a group

Both files are read side by side, a few rows of one tensor at a time: neither model is ever in memory. Rows that the
candidate's embedding has beyond the parent's are new tokens; they have no parent and are told apart.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from ratoon.config import ConfigError
from ratoon.lm.load import check_weights
from ratoon.records import Record

AT_ONCE = 2**22  # numbers of one tensor in memory, of each model
MOVERS = 10
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
KINDS = (
    ("embedding", re.compile(r"embed_tokens|wte|embed_in|word_embeddings")),
    ("head", re.compile(r"lm_head|embed_out")),
    ("norm", re.compile(r"norm|(^|\.)ln_")),
    ("attention", re.compile(r"attn|attention")),
    ("feed-forward", re.compile(r"mlp|feed_forward|ffn|experts")),
)


class Moved(Record):
    name: str
    numbers: int = Field(description="weights")
    distance: float | None = Field(description="|c - p| / |p|; None: the parent's are all zero")
    cosine: float | None


class NewTokens(Record):
    """Rows of an embedding that the parent does not have."""

    tensor: str
    rows: int
    norm: float = Field(description="mean length of a new row, over that of the parent's rows")


class Shift(Record):
    """`shift.json` of a refresh: where the candidate's weights are, seen from its parent's."""

    parent: str
    candidate: str
    total: Moved
    kinds: tuple[Moved, ...] = Field(description="attention, feed-forward, norm, embedding, head, other")
    layers: tuple[Moved, ...] = Field(description="by number; what is in no layer is left out")
    movers: tuple[Moved, ...] = Field(description="single tensors, the farthest first")
    new_tokens: tuple[NewTokens, ...] = ()
    only_parent: tuple[str, ...] = Field((), description="tensors the candidate lacks")
    only_candidate: tuple[str, ...] = Field((), description="tensors the parent lacks")
    reshaped: tuple[str, ...] = Field((), description="tensors of another shape, which cannot be compared")


class Sums(NamedTuple):
    numbers: int = 0
    parent: float = 0.0  # sums of squares
    candidate: float = 0.0
    between: float = 0.0
    product: float = 0.0

    def plus(self, other: "Sums") -> "Sums":
        return Sums(
            self.numbers + other.numbers,
            self.parent + other.parent,
            self.candidate + other.candidate,
            self.between + other.between,
            self.product + other.product,
        )

    def moved(self, name: str) -> Moved:
        lengths = math.sqrt(self.parent) * math.sqrt(self.candidate)
        return Moved(
            name=name,
            numbers=self.numbers,
            distance=math.sqrt(self.between / self.parent) if self.parent else None,
            cosine=min(1.0, max(-1.0, self.product / lengths)) if lengths else None,
        )


def shift(parent: Path, candidate: Path) -> Shift:
    """Raises ConfigError for weights that are missing, cut short or have no tensor in common."""
    check_weights(parent)
    check_weights(candidate)
    with ExitStack() as stack:
        old, new = _tensors(parent, stack), _tensors(candidate, stack)
        common = sorted(old.keys() & new.keys())
        if not common:
            raise ConfigError(f"{parent} and {candidate}: no tensor has the same name; one does not come of the other")
        found: dict[str, Sums] = {}
        reshaped, grown = [], []
        for name in common:
            a, b = old[name].get_slice(name), new[name].get_slice(name)
            if not comparable(name, a.get_shape(), b.get_shape()):
                reshaped.append(name)
            else:
                found[name], more = compare(a, b)
                grown += [NewTokens(tensor=name, rows=more[0], norm=more[1])] if more else []
    return _shift(parent, candidate, found).model_copy(
        update={
            "new_tokens": tuple(grown),
            "only_parent": tuple(sorted(old.keys() - new.keys())),
            "only_candidate": tuple(sorted(new.keys() - old.keys())),
            "reshaped": tuple(reshaped),
        }
    )


def comparable(name: str, old: list[int], new: list[int]) -> bool:
    """Of one shape, or an embedding with another number of rows."""
    return old == new or (kind(name) in ("embedding", "head") and len(old) == len(new) > 0 and old[1:] == new[1:])


def _tensors(model: Path, stack: ExitStack) -> dict[str, Any]:
    """Name -> the open file that holds it."""
    from safetensors import safe_open

    files = [stack.enter_context(safe_open(file, "pt")) for file in sorted(model.glob("*.safetensors"))]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118


def _shift(parent: Path, candidate: Path, found: dict[str, Sums]) -> Shift:
    by_kind: dict[str, Sums] = defaultdict(Sums)
    by_layer: dict[int, Sums] = defaultdict(Sums)
    total = Sums()
    for name, sums in found.items():
        total = total.plus(sums)
        by_kind[kind(name)] = by_kind[kind(name)].plus(sums)
        if match := LAYER.search(name):
            by_layer[int(match[1])] = by_layer[int(match[1])].plus(sums)
    each = [sums.moved(name) for name, sums in found.items()]
    each.sort(key=lambda it: (it.distance is None, -(it.distance or 0), it.name))
    return Shift(
        parent=str(parent),
        candidate=str(candidate),
        total=total.moved("all"),
        kinds=tuple(sums.moved(name) for name, sums in sorted(by_kind.items())),
        layers=tuple(sums.moved(str(number)) for number, sums in sorted(by_layer.items())),
        movers=tuple(each[:MOVERS]),
    )


def kind(name: str) -> str:
    return next((word for word, pattern in KINDS if pattern.search(name)), "other")


def compare(old: Any, new: Any) -> tuple[Sums, tuple[int, float] | None]:
    """Sums over the rows both have, and of what the new one has beyond them: rows, and their length over the old's."""
    rows = old.get_shape()[0] if old.get_shape() else 0
    sums = Sums()
    parent_lengths = 0.0
    shared = min(rows, new.get_shape()[0]) if old.get_shape() else 0
    for part in _parts(old.get_shape(), shared):
        p, c = old[part].double(), new[part].double()
        sums = sums.plus(
            Sums(
                p.numel(),
                float(p.square().sum()),
                float(c.square().sum()),
                float((c - p).square().sum()),
                float((p * c).sum()),
            )
        )
        parent_lengths += float(p.reshape(p.shape[0] if p.dim() else 1, -1).norm(dim=1).sum())
    more = new.get_shape()[0] - shared if new.get_shape() else 0
    if more <= 0 or not parent_lengths:
        return sums, None
    lengths = sum(
        float(
            new[part.start + shared : part.stop + shared].double().reshape(part.stop - part.start, -1).norm(dim=1).sum()
        )
        for part in _parts(new.get_shape(), more)
    )
    return sums, (more, (lengths / more) / (parent_lengths / shared))


def _parts(shape: list[int], rows: int) -> Iterator[Any]:
    """Slices of the first axis that hold about AT_ONCE numbers; a single number as it is."""
    if not shape:
        yield ...
        return
    step = max(1, AT_ONCE // max(1, math.prod(shape[1:])))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
