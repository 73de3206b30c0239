"""Texts written by a model, many at once, each the one it would write alone.

Rows of a batch begin together and are never padded: the shortest prompt is read whole, of the longer ones as much, and
what is left of them is fed token by token while the shorter rows already write. Prompts are sorted by length, so little
is left. Every row then has the same place in the key-value cache, which any family can do; a model without such a cache
reads its whole row again for every token.

    greedy    the likeliest token (temperature 0)
    sampled   the largest of logits / temperature + Gumbel noise, which draws from the softmax; the noise of an item is
              its own stream, by seed and number: its text does not depend on what it is batched with

A row ends with an end token, with a string of `until`, which is cut off with what follows, or after `max_tokens`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_ROWS = {"cpu": 64, "cuda": 256}
CACHE_BYTES = {"cpu": 2**30, "cuda": 2**34}  # what the keys and values of a batch may take
# Most tokens of a prompt that are fed one by one while others write.
UNEVEN = 16
TAIL = 16  # tokens decoded to look for a string that ends a text, beyond those of the string itself

Report = Callable[[int], None]  # texts finished


class Prompt(NamedTuple):
    tokens: Sequence[int]
    max_tokens: int
    until: tuple[str, ...] = ()


class Output(NamedTuple):
    text: str
    tokens: tuple[int, ...]
    finished: bool  # by itself: an end token or a string of `until`, not for want of room
    loglik_nats: float  # of the tokens written, the end token included


class Draw(NamedTuple):
    temperature: float = 0.0
    seed: int = 0


GREEDY = Draw()


class Writer:
    """A model that writes. `row_tokens` is what it reads at once: prompts lose their beginning to leave room."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        row_tokens: int,
        *,
        bf16: bool = False,
        max_rows: int | None = None,
    ) -> None:
        self.model, self.tokenizer, self.row_tokens, self.bf16 = model.eval(), tokenizer, row_tokens, bf16
        kind = model.device.type if model.device.type in MAX_ROWS else "cuda"
        fitting = CACHE_BYTES[kind] // (row_tokens * cache_bytes(model))
        self.max_rows = max_rows or max(1, min(MAX_ROWS[kind], fitting))
        self.ends = ends_of(model, tokenizer)

    def fitted(self, prompt: Prompt) -> Prompt:
        room = max(1, self.row_tokens - prompt.max_tokens)
        return prompt._replace(
            tokens=list(prompt.tokens)[-room:], max_tokens=min(prompt.max_tokens, self.row_tokens - 1)
        )

    def write(self, prompts: Sequence[Prompt], draw: Draw = GREEDY, report: Report | None = None) -> list[Output]:
        """One output per prompt, in their order."""
        fitted = [self.fitted(prompt) for prompt in prompts]
        found: dict[int, Output] = {}
        for batch in batches(fitted, self.max_rows):
            rows = [Line(self, number, fitted[number], draw) for number in batch]
            self.run(rows)
            found |= {row.number: row.output() for row in rows}
            if report:
                report(len(rows))
        return [found[number] for number in range(len(prompts))]

    @torch.inference_mode()
    def run(self, rows: "list[Line]") -> None:
        device = self.model.device
        at = min(len(row.tokens) for row in rows)
        fed_BT = torch.tensor([row.tokens[:at] for row in rows], device=device)
        cache: Any = None
        while True:
            read: dict[str, Any] = {"use_cache": True} | ({} if cache is None else {"past_key_values": cache})
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                answer = self.model(input_ids=fed_BT, **read)
            cache = getattr(answer, "past_key_values", None)
            writing = [n for n, row in enumerate(rows) if len(row.tokens) == at and not row.done]
            if writing:
                self.advance([rows[n] for n in writing], answer.logits[writing, -1].float())
            going = [n for n, row in enumerate(rows) if not row.done]
            if not going:
                return
            # Rows that are done only cost; but thinning out copies the cache, so not for every one of them.
            if 2 * len(going) <= len(rows) and hasattr(cache, "batch_select_indices"):
                cache.batch_select_indices(torch.tensor(going, device=device))
                rows = [rows[n] for n in going]
            at += 1
            begin = 0 if cache is None else at - 1
            fed_BT = torch.tensor([row.padded(at)[begin:at] for row in rows], device=device)

    def advance(self, rows: "list[Line]", logits_BV: Tensor) -> None:
        chosen = [row.choose(logits_V) for row, logits_V in zip(rows, logits_BV, strict=True)] if rows[0].draws else []
        tokens_B = torch.stack(chosen) if chosen else logits_BV.argmax(-1)
        nats_B = logits_BV.gather(1, tokens_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
        for row, token, nats in zip(rows, tokens_B.tolist(), nats_B.tolist(), strict=True):
            row.take(token, nats)


class Line:
    """One text being written."""

    def __init__(self, writer: Writer, number: int, prompt: Prompt, draw: Draw) -> None:
        self.writer, self.number, self.prompt = writer, number, prompt
        self.tokens = list(prompt.tokens)
        self.first = len(self.tokens)
        self.done = self.finished = False
        self.loglik_nats = 0.0
        self.temperature = draw.temperature
        self.draws = torch.Generator().manual_seed(draw.seed * 1_000_003 + number) if draw.temperature > 0 else None

    def choose(self, logits_V: Tensor) -> Tensor:
        noise_V = torch.empty(len(logits_V)).exponential_(generator=self.draws).log().to(logits_V.device)
        return (logits_V / self.temperature - noise_V).argmax()

    def take(self, token: int, nats: float) -> None:
        if self.done:
            return
        self.loglik_nats += nats
        if token in self.writer.ends:
            self.done = self.finished = True
            return
        self.tokens.append(token)
        written = len(self.tokens) - self.first
        self.finished = self.prompt.until != () and self.stopped()
        self.done = self.finished or written >= self.prompt.max_tokens

    def stopped(self) -> bool:
        longest = max(len(end.encode()) for end in self.prompt.until)
        tail = self.decode(self.tokens[max(self.first, len(self.tokens) - longest - TAIL) :])
        return any(end in tail for end in self.prompt.until)

    def padded(self, length: int) -> list[int]:
        """A row that is done goes on with its last token, unseen, until the batch is thinned out."""
        return self.tokens + self.tokens[-1:] * (length - len(self.tokens))

    def decode(self, tokens: list[int]) -> str:
        return str(self.writer.tokenizer.decode(tokens, skip_special_tokens=True))

    def output(self) -> Output:
        written = self.tokens[self.first :]
        text = self.decode(written)
        for end in self.prompt.until:
            text = text.split(end)[0]
        return Output(text, tuple(written), self.finished, self.loglik_nats)


def batches(prompts: Sequence[Prompt], max_rows: int) -> Iterator[list[int]]:
    """Numbers of prompts of about one length, longest last."""
    batch: list[int] = []
    for number in sorted(range(len(prompts)), key=lambda n: (len(prompts[n].tokens), n)):
        if batch and (len(batch) == max_rows or len(prompts[number].tokens) - len(prompts[batch[0]].tokens) > UNEVEN):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def cache_bytes(model: "PreTrainedModel") -> int:
    """Of the keys and values of one token; where the settings do not say, as many heads as wide."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def ends_of(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Tokens that end a text: the tokenizer's, and those the model's own settings of generation name."""
    settings = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    return frozenset(int(it) for it in found if it is not None)
