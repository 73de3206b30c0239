"""How likely a model finds given tokens behind given contexts, reading no token twice and padding next to none.

A row is a context and the branches that may follow it: the one tail of a text's window, or all choices of an item. Of a
row the context is read once; every branch sees the context and itself, at the positions it would have alone:

    c c c c | a a | b b b      rows of such a mask replace  c c c c a a  and  c c c c b b b

The head is applied where a loss is read and nowhere else, some tokens at a time (ratoon/lm/head.py says why). Rows of
about one length share a batch of at most `batch_tokens`. Batches follow from the rows alone: two models that read the
same tokens read them in the same batches, and a model compared with itself differs by exactly nothing.

Memory, beside the model: activations of `batch_tokens` tokens, a mask of rows x length x length in the model's type,
and logits of `logit_bytes` at once. Silent about models that read with an encoder.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ratoon.evaluation.asked import Branch, Row
from ratoon.evaluation.branches import can_branch, mask_of
from ratoon.lm.head import plain_head
from ratoon.lm.lean_layers import leaned_to_score

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tokens read at once. More were not faster on two cores: activations no longer fit the cache.
BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
# Logits held at once: what stays in cache; elsewhere what fills a kernel.
LOGIT_BYTES = {"cpu": 2**21, "cuda": 2**29}
# Of a head that is more than a matrix the model gives all logits of a batch: these, their logarithms and a copy.
WHOLE_LOGIT_BYTES = {"cpu": 2**28, "cuda": 2**33}
COPIES = 3
LEAST_ROWS = 128  # below it a matrix product no longer fills the cores
LONGEST_ROW = 4  # of contexts: branches beyond begin another row, as the mask grows with the square

Report = Callable[[int], None]  # branches read


class Reader:
    """A model, and how it may be read fast. Asked once per model."""

    def __init__(
        self, model: "PreTrainedModel", row_tokens: int, *, bf16: bool = False, batch_tokens: int | None = None
    ) -> None:
        kind = model.device.type
        self.model = model.eval()
        self.bf16 = bf16
        self.row_tokens = row_tokens
        if not bf16:
            leaned_to_score(model)
        self.plain = plain_head(model)
        self.logit_bytes = LOGIT_BYTES.get(kind, LOGIT_BYTES["cuda"])
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(kind, BATCH_TOKENS["cuda"])
        if self.plain:
            weight_VH: Tensor = model.get_output_embeddings().weight.detach()  # type: ignore[assignment, operator, union-attr]
            # Once, not in every batch: of a large vocabulary it is the largest matrix there is.
            self.head_VH = weight_VH.bfloat16() if bf16 else weight_VH
        else:
            words = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[arg-type, index]
            most = WHOLE_LOGIT_BYTES.get(kind, WHOLE_LOGIT_BYTES["cuda"]) // (4 * COPIES * words)
            self.batch_tokens = max(1, min(self.batch_tokens, most))
        self.branching = can_branch(model, row_tokens, bf16=bf16)

    def nats(self, rows: Iterable[Row], requests: int, report: Report | None = None) -> np.ndarray:
        """(requests,) float64: the log-likelihood of each, the sum over its branches."""
        found = np.zeros(requests)
        for batch in batches(self.laid_out(rows), self.batch_tokens):
            owners, nats = self.read(batch)
            np.add.at(found, owners, nats)
            if report:
                report(sum(len(row.branches) for row in batch))
        return -found

    def laid_out(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Rows this model can read: with several branches where it keeps them apart, else each with its context."""
        for row in rows:
            if self.branching:
                yield from split(row, LONGEST_ROW * self.row_tokens)
            else:
                yield from (Row(row.context, (branch,)) for branch in row.branches)

    @torch.inference_mode()
    def read(self, batch: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        """(owner, nats) of every token that is foretold."""
        plan = Plan(batch)
        device = self.model.device
        tokens_BT = torch.from_numpy(plan.tokens_BT).to(device)
        more: dict[str, Any] = {}
        if plan.branched:
            positions_BT = torch.from_numpy(plan.positions_BT).to(device)
            branches_BT = torch.from_numpy(plan.branches_BT).to(device)
            mask = mask_of(self.model, positions_BT, branches_BT)
            more = {"position_ids": positions_BT, "attention_mask": mask}
        places_N = torch.from_numpy(plan.places).to(device)
        labels_N = torch.from_numpy(plan.labels).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            if self.plain:
                body = self.model.base_model(input_ids=tokens_BT, use_cache=False, **more)
                hidden_NH = body.last_hidden_state.flatten(0, 1)[places_N]
            else:
                logits_BTV = self.model(input_ids=tokens_BT, use_cache=False, **more).logits
        if self.plain:
            nats_N = head_nats(hidden_NH.to(self.head_VH.dtype), self.head_VH, labels_N, self.logit_bytes)
        else:
            nats_N = logit_nats(logits_BTV.flatten(0, 1), places_N, labels_N, self.logit_bytes)
        return plan.owners, nats_N.double().cpu().numpy()


class Plan:
    """Rows as tensors: what is read, and where which token is foretold."""

    def __init__(self, batch: Sequence[Row]) -> None:
        shape = len(batch), max(row.length for row in batch)
        self.tokens_BT = np.zeros(shape, np.int64)
        self.positions_BT = np.zeros(shape, np.int64)
        self.branches_BT = np.full(shape, -1, np.int64)
        self.branched = any(len(row.branches) > 1 for row in batch)
        places, labels, owners = [], [], []
        for number, row in enumerate(batch):
            at = len(row.context)
            self._put(number, 0, row.context, 0, 0)
            for name, branch in enumerate(row.branches, start=1):
                read = len(branch.tokens) - 1
                self._put(number, at, branch.tokens[:-1], len(row.context), name)
                first = number * shape[1]
                # The first token of a branch is foretold where the context ends.
                places += [np.array([first + len(row.context) - 1]), np.arange(first + at, first + at + read)]
                labels.append(np.asarray(branch.tokens, np.int64))
                owners.append(np.full(read + 1, branch.owner))
                at += read
        self.places = np.concatenate(places)
        self.labels = np.concatenate(labels)
        self.owners = np.concatenate(owners)

    def _put(self, row: int, at: int, tokens: Sequence[int], position: int, branch: int) -> None:
        end = at + len(tokens)
        self.tokens_BT[row, at:end] = tokens
        self.positions_BT[row, at:end] = np.arange(position, position + len(tokens))
        self.branches_BT[row, at:end] = branch


def split(row: Row, longest: int) -> Iterator[Row]:
    """The same branches in rows of at most `longest` tokens, or of one branch."""
    kept: list[Branch] = []
    length = len(row.context)
    for branch in row.branches:
        if kept and length + len(branch.tokens) - 1 > longest:
            yield Row(row.context, tuple(kept))
            kept, length = [], len(row.context)
        kept.append(branch)
        length += len(branch.tokens) - 1
    yield Row(row.context, tuple(kept))


def batches(rows: Iterable[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """Rows of one kind and about one length, longest first: what does not fit the memory fails at once."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: (len(row.branches) > 1, -row.length)):
        other = batch and (len(row.branches) > 1) != (len(batch[0].branches) > 1)
        if batch and (other or (len(batch) + 1) * batch[0].length > batch_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def head_nats(hidden_NH: Tensor, weight_VH: Tensor, labels_N: Tensor, logit_bytes: int) -> Tensor:
    """(N,) float32: cross-entropy in nats of hidden_NH @ weight_VH.T, of which `logit_bytes` are held at once."""
    words = len(weight_VH)
    rows = max(LEAST_ROWS, logit_bytes // (4 * words))
    nats_N = torch.empty(len(labels_N), dtype=torch.float32, device=hidden_NH.device)
    buffer = hidden_NH.new_empty((min(rows, len(labels_N)), words))
    for first in range(0, len(labels_N), rows):
        part = hidden_NH[first : first + rows]
        logits = torch.mm(part, weight_VH.t(), out=buffer[: len(part)])
        nats_N[first : first + rows] = cross_entropy(logits.float(), labels_N[first : first + rows])
    return nats_N


def logit_nats(logits_MV: Tensor, places_N: Tensor, labels_N: Tensor, logit_bytes: int) -> Tensor:
    """(N,) float32: cross-entropy in nats of the logits at `places_N`."""
    rows = max(LEAST_ROWS, logit_bytes // (4 * logits_MV.shape[1]))
    nats_N = torch.empty(len(labels_N), dtype=torch.float32, device=logits_MV.device)
    for first in range(0, len(labels_N), rows):
        chosen = logits_MV[places_N[first : first + rows]].float()
        nats_N[first : first + rows] = cross_entropy(chosen, labels_N[first : first + rows])
    return nats_N


def cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """The logits are overwritten."""
    right_N = logits_NV.gather(1, labels_N[:, None])[:, 0]
    top_N = logits_NV.amax(dim=1)
    # The largest probability is at least 1/V: its logarithm gives the normaliser in one pass less than logsumexp.
    torch.softmax(logits_NV, dim=1, out=logits_NV)
    return top_N - logits_NV.amax(dim=1).log() - right_N
