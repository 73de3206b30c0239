"""What a run reads: its mixture as the recipe plans it over the run, batches by step, and the held-out rows."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ratoon.config import ConfigError, Curriculum, unknown
from ratoon.lm.base import check_vocabulary
from ratoon.stream.account import Read, account
from ratoon.stream.course import Course, rank, walk_of
from ratoon.stream.lengths import Lengths, cut
from ratoon.stream.mixture import Batch, Mixture
from ratoon.stream.order import Order, Stage, apportion
from ratoon.stream.permutation import Positions
from ratoon.stream.rows import Rows
from ratoon.stream.scores import has_score, row_scores, suffix_of
from ratoon.stream.stages import WHERE, capped, phased
from ratoon.training.prefixed import Prefixed
from ratoon.training.request import Request
from ratoon.training.subset import limit_of

EVALUATION_ROWS = 64  # held-out rows that are read at once, at most
EVALUATION_TOKENS = 2**17  # and their tokens
EVALUATION_LOGITS = 2**28  # and their logits, where the head's way is by all of them: 1 GiB


@dataclass
class HeldOut:
    """The rows of one source that are scored while training: the same ones all along, spread evenly over it."""

    rows: Rows
    count: int
    at_once: int = EVALUATION_ROWS

    def batches(self) -> Iterator[Batch]:
        spread = np.arange(self.count, dtype=np.int64) * self.rows.num_rows // self.count
        for first in range(0, self.count, self.at_once):
            yield Batch(*self.rows.read(spread[first : first + self.at_once]))

    @property
    def bits_per_nat(self) -> float:
        """Turns nats per token into bits per byte of this source's held-out text."""
        return self.rows.num_tokens / self.rows.num_bytes / math.log(2)


def evaluation_rows(row_tokens: int, words: int | None) -> int:
    """Held-out rows that are read at once. words  of the vocabulary where all logits are held; None: they never are"""
    most = min(EVALUATION_ROWS, EVALUATION_TOKENS // row_tokens)
    if words is not None:
        most = min(most, EVALUATION_LOGITS // (row_tokens * words))
    return max(1, most)


def open_held_out(name: str, request: Request) -> HeldOut:
    rows = Rows.open(Path(request.portions[name].rows), "held_out", request.row_tokens)
    count = min(rows.num_rows, max(1, request.held_out_tokens // request.row_tokens))
    if count < 1:
        raise ConfigError(f"{request.portions[name].rows}: {name} has no held-out rows; raise prepare.held_out.share")
    return HeldOut(rows, count)


class Reading:
    """Batches of a run as a function of the step alone."""

    def __init__(self, request: Request) -> None:
        self.rows_per_step, self.row_tokens = request.recipe.rows_per_step, request.row_tokens
        self.lengths = Lengths(request.recipe.mixture.lengths, request.row_tokens, request.steps, request.step_tokens)
        self.mixture = open_mixture(request)
        self.prefixed = Prefixed(request, self.mixture, self.lengths)

    def batch_at(self, step: int, own: slice | None = None) -> Batch:
        """own  which rows of the step, by their place in it; none: all"""
        own, parts = own or slice(None), self.lengths.parts_at(step)
        if self.prefixed.at(step):
            # All rows of a step are padded to its longest, whoever reads them: what a row is says nothing of ranks.
            whole = self.prefixed.put(cut(self.read(step, slice(None)), parts), step)
            first, end, _ = own.indices(self.rows_per_step)
            return whole.some(slice(first * parts, end * parts))
        return cut(self.read(step, own), parts)

    def read(self, step: int, own: slice) -> Batch:
        first, end, _ = own.indices(self.rows_per_step)
        return self.mixture.read(step * self.rows_per_step + first, end - first)

    def account(self, step: int) -> dict[str, Read]:
        """Source -> what was read of it before a step."""
        return account(self.mixture.order, step * self.rows_per_step, self.row_tokens)

    def metrics(self, step: int) -> dict[str, float | None]:
        found = self.account(step)
        return {f"data/{name}/{key}": value for name, read in found.items() for key, value in read._asdict().items()}


def open_mixture(request: Request) -> Mixture:
    """Rows and their order over the run. Raises ConfigError for what cannot be read as asked."""
    recipe, asked = request.recipe, request.recipe.mixture
    roles = {name: portion.role for name, portion in request.portions.items()}
    own = {name: portion.share for name, portion in request.portions.items()}
    run_rows = request.steps * recipe.rows_per_step
    sizes = {"block_rows": recipe.block_rows, "row_tokens": request.row_tokens}
    stages = phased(asked.phases, own, roles, run_rows, **sizes)
    rows = {name: open_rows(name, request) for name in sorted({name for stage in stages for name in stage.shares})}
    limits = {name: limit for name in rows if (limit := limit_in(request, name))}

    def order(stages: list[Stage], courses: Mapping[str, Course] | None = None) -> Order:
        return Order(
            stages[0].shares,
            {name: each.num_rows for name, each in rows.items()},
            block_rows=recipe.block_rows,
            seed=recipe.seed,
            limits=limits,
            turn=request.continues,
            later=stages[1:],
            courses=courses,
        )

    whole = order(stages)
    if caps := caps_of(request, whole):
        stages = held_to(caps, stages, whole, roles, run_rows, asked.at_cap == "others")
        whole = order(stages)
    if asked.curriculum is None or asked.curriculum.uniform:
        return Mixture(rows, whole)
    return Mixture(rows, order(stages, courses_of(asked.curriculum, request, rows, whole, run_rows)))


def shares_over(request: Request, tokens: int) -> dict[str, float]:
    """Source -> its share of a run of so many tokens, all phases together; caps are not reckoned with."""
    own = {name: portion.share for name, portion in request.portions.items()}
    if not request.recipe.mixture.phases:
        return own
    roles = {name: portion.role for name, portion in request.portions.items()}
    rows, block = tokens // request.row_tokens, request.recipe.block_rows
    stages = phased(request.recipe.mixture.phases, own, roles, rows, block_rows=block, row_tokens=request.row_tokens)
    ends = [*(stage.block * block for stage in stages[1:]), rows]
    parts = [(end - stage.block * block) / rows for stage, end in zip(stages, ends, strict=True)]
    return {name: math.fsum(p * s.shares.get(name, 0) for p, s in zip(parts, stages, strict=True)) for name in own}


def share_read(request: Request) -> float:
    """The domain's share of the run's own mixture as its blocks hold it: 0.304 of 100 rows is 0.30.

    To the bit the share that was asked for where a block can hold that. Phases and caps are not reckoned with: a law
    of the share is one of what is asked for.
    """
    asked = request.domain_share
    counts = apportion({n: p.share for n, p in request.portions.items() if p.share > 0}, request.recipe.block_rows)
    rows = sum(count for name, count in counts.items() if request.portions[name].role == "domain")
    found = rows / request.recipe.block_rows
    return asked if math.isclose(found, asked, abs_tol=1e-9) else found


def open_rows(name: str, request: Request) -> Rows:
    path = Path(request.portions[name].rows)
    rows = Rows.open(path, "train", request.row_tokens)
    check_vocabulary(Path(request.model), rows.index.vocabulary, path)
    return rows


def limit_in(request: Request, name: str) -> int | None:
    return limit_over(request, name, request.recipe.tokens)


def limit_over(request: Request, name: str, tokens: int) -> int | None:
    """Rows to use of a source in a run of so many tokens, by its share of all phases together."""
    portion = request.portions[name].model_copy(update={"share": shares_over(request, tokens)[name]})
    return limit_of(portion, request.recipe.subset_epochs, tokens, request.row_tokens)


def caps_of(request: Request, order: Order) -> dict[str, int]:
    """Source -> rows it may give, for those with a cap."""
    asked = request.recipe.mixture
    if isinstance(asked.max_epochs, dict) and (strange := sorted({*asked.max_epochs} - {*request.portions})):
        raise ConfigError(f"{WHERE}.max_epochs: {unknown('source', strange[0], sorted(request.portions))}")
    used = dict(zip(order.names, order.used.tolist(), strict=True))
    return {name: int(cap * used[name] + 1e-9) for name in order.names if (cap := asked.cap(name)) is not None}


def held_to(
    caps: Mapping[str, int], stages: list[Stage], order: Order, roles: Mapping[str, str], run_rows: int, others: bool
) -> list[Stage]:
    """The stages, changed where a source comes to its cap. Raises ConfigError where that is to stop the run."""
    if others:
        return capped(stages, caps, roles, run_rows, order.block_rows)
    # To the end of the last block: rows of a block come in the order of their lots.
    until = -(-run_rows // order.block_rows) * order.block_rows
    for name, rows, used in zip(order.names, order.read_before(until).tolist(), order.used.tolist(), strict=True):
        if rows > caps.get(name, rows):
            raise ConfigError(
                f"{WHERE}.max_epochs: the run would read {name} {rows / used:.2f} times ({rows:,} rows of {used:,}), "
                f"{caps[name] / used:.2f} are allowed; lower train.tokens or its share, add text, raise max_epochs, or "
                f"give its share to the others from there on with at_cap: others"
            )
    return stages


def courses_of(
    asked: Curriculum, request: Request, rows: Mapping[str, Rows], order: Order, run_rows: int
) -> dict[str, Course]:
    """How the sources that are read in order of a score are gone through.

    Where the run does not read a source to its end, what is ordered is what it would have read in uniform order: the
    first rows of all by their score would be another choice of text.
    """
    if strange := sorted({*asked.sources} - {*request.portions}):
        raise ConfigError(f"{WHERE}.curriculum.sources: {unknown('source', strange[0], sorted(request.portions))}")
    ordered = asked.sources or [name for name in rows if has_score(rows[name], asked.score)] or sorted(rows)[:1]
    head = order.read_before(round((asked.share or 0) * run_rows))
    courses = {}
    for number, (name, reads) in enumerate(zip(order.names, order.read_before(run_rows).tolist(), strict=True)):
        if name in ordered and reads and (asked.order != "warmup" or head[number]):
            places = np.arange(min(int(order.used[number]), reads))
            pool = order.uniform(number, np.zeros_like(places), places)
            walk = walk_of(asked, len(pool), reads // len(pool), int(head[number]), request.recipe.seed, name)
            courses[name] = Course(ranked(asked, rows[name], pool, Path(request.out) / "order" / name), walk)
    return courses


def ranked(asked: Curriculum, rows: Rows, pool: Positions, folder: Path) -> Positions:
    """The rows of `pool` in order of their score, memory-mapped; worked out once and kept in `folder`."""
    content = (suffix_of(rows, asked.score), rows.names, rows.row_tokens, asked.direction)
    digest = hashlib.sha256(repr(content).encode() + np.ascontiguousarray(pool).tobytes())
    descending = asked.direction == "descending"
    return mapped(
        folder / f"{digest.hexdigest()[:12]}.npy",
        lambda: rank(row_scores(rows, asked.score), pool, descending=descending),
    )


def mapped(path: Path, make: Callable[[], Positions]) -> Positions:
    """The array in `path`, made first where it is not there; a kill leaves none that is half written."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.stem}.{os.getpid()}.npy")
        np.save(beside, make())
        beside.replace(path)
    found: Positions = np.load(path, mmap_mode="r")
    return found
