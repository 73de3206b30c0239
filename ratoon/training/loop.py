"""The loop. Everything that varies is passed in; it opens no file and knows no tracker.

Which tokens have a loss: with `attention: row`, all but the first of a row; with `attention: document`, all but the
first of a row and the first after a separator, because what stands before it belongs to another document. The
separator itself is predicted: where a text ends is learned. What fills a short row has no loss, nor has what is silent.

Every mean is over such tokens, each counting alike, wherever batches, accumulation and ranks cut them up.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from ratoon.config import ConfigError, TrainConfig
from ratoon.lm.attention import hidden, isolate, logits
from ratoon.lm.head import plain_head, summed_cross_entropy
from ratoon.stream.mixture import Batch
from ratoon.stream.rows import positions_in_documents
from ratoon.training.method import Method, Part, Step
from ratoon.training.optimizers import new_optimizer
from ratoon.training.schedules import LearningRate
from ratoon.training.shards import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORE = -100
BatchLike = Batch | tuple[NDArray[np.int64], NDArray[np.int64]]  # tokens (rows, row_tokens), valid lengths (rows,)
Silent = NDArray[np.bool_] | None  # (rows, T) tokens that have no loss whatever else holds; None: there are none


class Diverged(RuntimeError):
    """The gradient is no number any more."""


@dataclass
class State:
    model: "PreTrainedModel"
    optimizer: torch.optim.Optimizer
    step: int = 0
    separator: int | None = None  # the token that ends a document; None: not asked for
    methods: Sequence[Method] = field(default_factory=tuple)


def new_state(
    model: "PreTrainedModel", recipe: TrainConfig, separator: int | None = None, methods: Sequence[Method] = ()
) -> State:
    """A run's beginning.

    separator  of the packed rows; `attention: document` needs it. Raises ConfigError for a model that cannot have it.
    """
    if boundary(recipe, separator) is not None:
        isolate(model, bf16=recipe.precision != "fp32")
    return State(model, new_optimizer(model, recipe), separator=separator, methods=tuple(methods))


def boundary(recipe: TrainConfig, separator: int | None) -> int | None:
    """The token that ends what another may see; None: only rows do."""
    if recipe.attention == "row":
        return None
    if separator is None:
        raise ConfigError("train.attention: document: these rows name no separator; allowed without one: row")
    return separator


def advance(
    state: State,
    until: int,
    *,
    batch_at: Callable[[int], BatchLike],
    lr_at: LearningRate,
    recipe: TrainConfig,
    report: Callable[[int, dict[str, torch.Tensor | float]], None] | None = None,
    over_ranks: Callable[[int], int] | None = None,
) -> None:
    """Take updates until `state.step == until`. Update n reads batch_at(n) at lr_at(n), whatever came before.

    over_ranks  the sum over all ranks of a count on this one, where each reads a part of the batch; see `accumulate`
    """
    state.model.train()
    ends = boundary(recipe, state.separator)
    while state.step < until:
        step = new_step(batch_at(state.step), ends, state.step, over_ranks)
        loss = accumulate(state.model, step, recipe, state.methods)
        for method in state.methods:
            method.after_gradients(state)
        norm = whole(clip_grad_norm_(state.model.parameters(), recipe.max_norm))
        if not torch.isfinite(norm):  # the only wait for the GPU in a step
            raise Diverged(
                f"gradient norm is {norm.item()} at step {state.step}; weights were left as they were: "
                f"lower train.learning_rate, or look at the rows of this step"
            )
        rate = lr_at(state.step)
        update(state, rate)
        state.step += 1
        if report:
            report(state.step, {"loss_nats": loss, "grad_norm": norm.detach(), "learning_rate": rate})


def new_step(
    batch: BatchLike, separator: int | None, number: int = 0, over_ranks: Callable[[int], int] | None = None
) -> Step:
    """A batch as an update sees it. separator  that of `boundary`: None where only rows keep texts apart."""
    batch = Batch(*batch)
    predicted = count_predicted(batch.tokens, batch.valid, separator, batch.silent)
    return Step(number, batch, over_ranks(predicted) if over_ranks else predicted, separator)


def update(state: State, rate: float) -> None:
    """Move the weights by their gradients, and let go of these."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
    for method in state.methods:
        method.before_update(state)
    state.optimizer.step()
    for method in state.methods:
        method.after_update(state)
    state.optimizer.zero_grad(set_to_none=True)


def accumulate(
    model: "PreTrainedModel", step: Step, recipe: TrainConfig, methods: Sequence[Method] = ()
) -> torch.Tensor:
    """Gradients of the mean loss over every predicted token of the step, however the step is cut up.

    `step.predicted` counts all ranks: the sum of their gradients is that of the mean; where gradients are averaged
    instead, multiply by the world size.

    Returns the mean in nats per token (this rank's part of the sum), what methods add included, detached.
    """
    if step.predicted < 1:
        raise ConfigError("a step without a token to predict: its rows hold one token each, or documents of one token")
    device = next(model.parameters()).device
    for method in methods:
        method.begin(model, step)
    total = torch.zeros((), device=device)
    count = len(step.batch.tokens)
    for rows in parts(count, (recipe.micro_rows or count) * step.batch.parts):
        for method in methods:
            method.before_forward(step, rows)
        with precision(recipe, device):
            summed = rows_loss(model, step, rows, recipe, methods)
        loss = summed / step.predicted
        loss.backward()
        total += loss.detach()
    return total


def rows_loss(
    model: "PreTrainedModel", step: Step, rows: slice, recipe: TrainConfig, methods: Sequence[Method]
) -> torch.Tensor:
    """Summed loss of some rows as the recipe has it, in nats; logits are held only where something asks for them."""
    asked = [m for m in methods if type(m).weights is not Method.weights or type(m).term is not Method.term]
    asked = [method for method in asked if not method.rests(step)]
    if asked or recipe.loss.label_smoothing or not plain_head(model):
        return part_loss(forward(model, step, rows), recipe, asked)
    return plain_loss(model, step, rows)


def plain_loss(model: "PreTrainedModel", step: Step, rows: slice) -> torch.Tensor:
    """Summed cross-entropy of some rows, in nats, for a model with a plain head."""
    device = next(model.parameters()).device
    batch = step.batch.some(rows)
    tokens_BT = torch.from_numpy(batch.tokens)
    positions_BT = positions(tokens_BT, step.separator)
    labels_BT = labels(tokens_BT, batch.valid, positions_BT, batch.silent)
    # Found on the CPU: a GPU would have to be waited for to learn how many there are.
    wanted_N = torch.nn.functional.pad(labels_BT, (0, 1), value=IGNORE).reshape(-1)
    places_N = (wanted_N != IGNORE).nonzero()[:, 0]
    if positions_BT is not None:
        positions_BT = positions_BT.to(device, non_blocking=True)
    hidden_BTH = hidden(model, tokens_BT.to(device, non_blocking=True), positions_BT)
    hidden_NH = hidden_BTH.reshape(-1, hidden_BTH.shape[-1]).index_select(0, places_N.to(device, non_blocking=True))
    wanted_N = wanted_N[places_N].to(device, non_blocking=True)
    return summed_cross_entropy(hidden_NH, model.get_output_embeddings().weight, wanted_N)


def positions(tokens_BT: torch.Tensor, separator: int | None) -> torch.Tensor | None:
    """Place of each token in its document, on the CPU as the tokens are; None where rows are one text each."""
    return None if separator is None else torch.from_numpy(positions_in_documents(tokens_BT.numpy(), separator))


def forward(model: "PreTrainedModel", step: Step, rows: slice) -> Part:
    """Logits of some rows, with what they are to predict."""
    device = next(model.parameters()).device
    batch = step.batch.some(rows)
    tokens_BT = torch.from_numpy(batch.tokens).to(device, non_blocking=True)
    positions_BT = positions(torch.from_numpy(batch.tokens), step.separator)
    if positions_BT is not None:
        positions_BT = positions_BT.to(device, non_blocking=True)
    labels_BT = labels(tokens_BT, batch.valid, positions_BT, batch.silent)
    return Part(step, rows, tokens_BT, labels_BT, positions_BT, logits(model, tokens_BT, positions_BT)[:, :-1])


def part_loss(part: Part, recipe: TrainConfig, methods: Sequence[Method] = ()) -> torch.Tensor:
    """Summed loss of a part as the recipe has it, in nats."""
    factors = [found for method in methods if (found := method.weights(part)) is not None]
    loss = token_losses(part, recipe.loss.label_smoothing, "none" if factors else "sum")
    if factors:
        loss = (loss.reshape(part.labels_BT.shape) * reduce(torch.mul, factors)).sum()
    for method in methods:
        if (more := method.term(part)) is not None:
            loss = loss + more
    return loss


def token_losses(part: Part, label_smoothing: float = 0.0, reduction: str = "sum") -> torch.Tensor:
    """Cross-entropy of a part's labels in nats: summed, or with "none" (B * (T - 1),), 0 where there is no label."""
    return cross_entropy(
        part.logits_BTV.reshape(-1, part.logits_BTV.shape[-1]).float(),
        part.labels_BT.reshape(-1),
        ignore_index=IGNORE,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def precision(recipe: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bf16 is autocast over float32 weights; bf16_pure has no other type to fall back on."""
    return torch.autocast(device.type, torch.bfloat16) if recipe.precision == "bf16" else nullcontext()


def count_predicted(
    tokens: NDArray[np.int64], valid: NDArray[np.int64], separator: int | None = None, silent: Silent = None
) -> int:
    """Tokens of a batch that have a loss; with a separator, by the rule of documents."""
    if separator is None and silent is None:
        return int(np.maximum(valid - 1, 0).sum())
    place = np.arange(tokens.shape[1])
    after = place > 0 if separator is None else positions_in_documents(tokens, separator) > 0
    return int(((place < valid[:, None]) & after & (True if silent is None else ~silent)).sum())


def summed_loss(
    model: "PreTrainedModel", tokens: NDArray[np.int64], valid: NDArray[np.int64], separator: int | None = None
) -> torch.Tensor:
    """Sum over a batch of the plain loss of each token given those before it in its row or document, in nats."""
    return step_loss(model, new_step((tokens, valid), separator))


def step_loss(model: "PreTrainedModel", step: Step) -> torch.Tensor:
    if plain_head(model):
        return plain_loss(model, step, slice(None))
    return token_losses(forward(model, step, slice(None)))


def labels(
    tokens_BT: torch.Tensor, valid: NDArray[np.int64], positions_BT: torch.Tensor | None = None, silent: Silent = None
) -> torch.Tensor:
    """(B, T-1): what the logits at 0 .. T-2 are to predict, IGNORE where they have no loss."""
    labels_BT = tokens_BT[:, 1:].clone()
    if (valid < tokens_BT.shape[1]).any():
        place = torch.arange(1, tokens_BT.shape[1], device=tokens_BT.device)
        labels_BT[place >= torch.from_numpy(valid).to(tokens_BT.device)[:, None]] = IGNORE
    if positions_BT is not None:
        labels_BT[positions_BT[:, 1:] == 0] = IGNORE
    if silent is not None:
        labels_BT[torch.from_numpy(silent[:, 1:]).to(labels_BT.device)] = IGNORE
    return labels_BT


def mean_loss(
    model: "PreTrainedModel",
    batches: Iterable[BatchLike],
    recipe: TrainConfig,
    separator: int | None = None,
    over_ranks: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> float | None:
    """Mean loss over every predicted token of `batches`, nats per token; None where there is none to predict.

    over_ranks  the sum over all ranks of a tensor on this one, where each has a part of the batches
    """
    found = torch.tensor(total_loss(model, batches, recipe, separator), dtype=torch.float64)
    total, predicted = (over_ranks(found) if over_ranks else found).tolist()
    return total / predicted if predicted else None


@torch.no_grad()
def total_loss(
    model: "PreTrainedModel", batches: Iterable[BatchLike], recipe: TrainConfig, separator: int | None = None
) -> tuple[float, int]:
    """(summed loss in nats, tokens it is over): what ranks add up before they divide."""
    model.eval()
    ends = boundary(recipe, separator)
    device = next(model.parameters()).device
    total, predicted = 0.0, 0
    for batch in batches:
        step = new_step(batch, ends)
        with precision(recipe, device):
            total += step_loss(model, step).double().item()
        predicted += step.predicted
    return total, predicted
