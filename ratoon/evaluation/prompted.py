"""What a model says of a suite with text put in front of each of its places; log-likelihoods in nats.

A held-out text is read in windows that do not overlap, each with one known token ahead, the last one filled up with
what was read before: without a context these are lm-eval's windows, and the sums are equal to its own. With one, every
window begins with it. A model that reads more at once than a row holds reads both in full; one that does not reads
windows that are shorter by what is shown. Of an item with choices its own text is never cut for the sake of what is
shown: there is as much as fits, the same in front of every choice. So the tokens scored are always the same ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratoon.config import ConfigError, read_yaml
from ratoon.corpus.tokenizer import read_json
from ratoon.evaluation.contexts import Context, Place
from ratoon.evaluation.suite import Task
from ratoon.evaluation.taskfile import lines_of
from ratoon.lm.flops import Flops, flops_of
from ratoon.lm.load import load_model, load_tokenizer, pick_device
from ratoon.lm.suitable import context_of
from ratoon.records import Record

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGIT_BYTES = {"cpu": 2**28, "cuda": 2**33}  # of logits in float32, and as much again for their logarithms
MOST_ROWS = {"cpu": 32, "cuda": 512}
Report = Callable[[int, int], None]  # rows read, rows in all


class Row(NamedTuple):
    """What the model reads at once, and what it should say at the end of it."""

    item: int
    choice: int  # 0 of a text
    ids: list[int]
    said: list[int]


class Told(Record):
    """What was shown on the items of a suite, and what there was no room for."""

    tokens: int = 0
    places: int = 0
    with_text: int = 0
    without_room: int = 0
    own_tokens: int = 0
    shown_tokens: int = 0

    def __add__(self, other: "Told") -> "Told":
        mine, theirs = self.model_dump(), other.model_dump()
        most = {name: max(mine[name], theirs[name]) for name in ("tokens", "own_tokens")}
        return Told(**{name: mine[name] + theirs[name] for name in mine} | most)


@dataclass
class Plan:
    """Rows of every task that can be asked this way."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    items: dict[str, list[str]] = field(default_factory=dict)  # ids, in the order of `Row.item`
    told: Told = field(default_factory=Told)

    @property
    def every(self) -> list[Row]:
        return [row for rows in self.rows.values() for row in rows]

    def of(self, tasks: Sequence[Task]) -> list[Row]:
        return [row for task in tasks for row in self.rows[task.name]]


@dataclass(frozen=True)
class Room:
    """Tokens: of a row without context, of what the model reads at once, and of what is to be shown."""

    row: int
    reads: int
    shown: int

    @property
    def own(self) -> int:
        """Of a window's own text."""
        return min(self.row, self.reads - self.shown)


def room(model: Path, row_tokens: int, shown: int | None, arm: str) -> Room:
    """For the arm of this name. Raises ConfigError where more is to be shown than a model can read beside some text."""
    _, context = context_of(read_json(model / "config.json"))
    wanted = row_tokens // 2 if shown is None else shown
    reads = min(context or row_tokens + wanted, row_tokens + wanted)
    if reads - wanted < 1:
        raise ConfigError(
            f"params.yaml: arms.{arm}.tokens: {wanted:,} tokens are to be shown, and {model} reads {reads:,} at once, "
            f"what is scored included; give less than that"
        )
    return Room(row_tokens, max(reads, row_tokens), wanted)


# ---------------------------------------------------------------- rows


class Planner:
    def __init__(self, tokenizer: "PreTrainedTokenizerBase", context: Context, room: Room) -> None:
        self.tokenizer, self.context, self.room = tokenizer, context, room
        begins = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if begins is None:
            raise ConfigError(f"{tokenizer.name_or_path}: names neither bos_token nor eos_token to begin a text with")
        self.prefix = int(begins)  # type: ignore[arg-type]

    def plan(self, suite: Path, tasks: Sequence[Task]) -> Plan:
        made = Plan()
        for task in tasks:
            items = lines_of(suite / f"{task.name}.jsonl")
            if form_of(task) == "rolling":
                rows, places = self._texts(items, task.source)
            else:
                delimiter = read_yaml(suite / f"{task.name}.yaml").get("target_delimiter", " ")
                rows, places = self._choices(items, task.source, delimiter)
            shown = self.context.show(places)
            made.rows[task.name] = [row._replace(ids=shown[at] + row.ids) for at, row in rows]
            made.items[task.name] = [item["id"] for item in items]
            made.told += self._told(places, shown)
        return made

    def _told(self, places: Sequence[Place], shown: Sequence[list[int]]) -> Told:
        return Told(
            tokens=self.room.shown,
            places=len(places),
            with_text=sum(map(bool, shown)),
            without_room=sum(place.room < self.room.shown for place in places),
            own_tokens=self.room.own,
            shown_tokens=sum(map(len, shown)),
        )

    def _texts(self, items: list[dict[str, Any]], source: str) -> tuple[list[tuple[int, Row]], list[Place]]:
        """Rows, each with the number of its place."""
        rows: list[tuple[int, Row]] = []
        places: list[Place] = []
        for number, tokens in enumerate(self._encode([item["text"] for item in items])):
            known = [self.prefix, *tokens]
            for start, stop in self._windows(len(tokens)):
                first = max(0, stop - self.room.own) if start else 0
                rows.append((len(places), Row(number, 0, known[first:stop], tokens[start:stop])))
                places.append(self._place(items[number], source, tokens[:start], stop - first))
        return rows, places

    def _windows(self, total: int) -> Iterator[tuple[int, int]]:
        """Where each begins and ends. Where what is shown depends on what was said, the first has a row to itself."""
        width = self.room.row if self.context.before_tokens else self.room.own
        start = 0
        while start < total:
            stop = min(total, start + width)
            yield start, stop
            start, width = stop, self.room.own

    def _choices(
        self, items: list[dict[str, Any]], source: str, delimiter: str
    ) -> tuple[list[tuple[int, Row]], list[Place]]:
        rows: list[tuple[int, Row]] = []
        places: list[Place] = []
        for number, item in enumerate(items):
            asked, answers = self._pairs(item["context"], [delimiter + choice for choice in item["choices"]])
            longest = 0
            for choice, answer in enumerate(answers):
                known = [*(asked or [self.prefix]), *answer][-(self.room.row + 1) :]
                longest = max(longest, len(known) - 1)
                rows.append((number, Row(number, choice, known[:-1], answer[-self.room.row :])))
            places.append(self._place(item, source, asked, longest))
        return rows, places

    def _pairs(self, context: str, choices: list[str]) -> tuple[list[int], list[list[int]]]:
        """As lm-eval parts them: a space belongs to what follows it, and the two are encoded together."""
        bare = context.rstrip()
        asked, *whole = self._encode([bare, *(context + choice for choice in choices)])
        return asked, [tokens[len(asked) :] for tokens in whole]

    def _place(self, item: dict[str, Any], source: str, before: list[int], own: int) -> Place:
        text = self.tokenizer.decode(before[-self.context.before_tokens :]) if self.context.before_tokens else ""
        return Place(source, item["id"], item["document"], str(text), min(self.room.shown, self.room.reads - own))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return encode(self.tokenizer, texts)


def form_of(task: Task) -> Literal["rolling", "choice", "other"]:
    """How a task is asked; what is generated freely is asked in no other way than its own."""
    kind = getattr(task, "kind", "rolling" if task.metric == "bits_per_byte" else "choice")
    return "rolling" if kind == "rolling" else "choice" if kind == "choice" else "other"


def encode(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    return list(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])  # type: ignore[arg-type]


# ---------------------------------------------------------------- answers


class Reader:
    """A model and its tokenizer; the weights are read when they are first needed."""

    def __init__(self, folder: Path, *, device: str, precision: str) -> None:
        self.folder, self.precision = folder, precision
        self.tokenizer = load_tokenizer(folder)
        self.device = pick_device(device).type

    @cached_property
    def model(self) -> "PreTrainedModel":
        return load_model(self.folder, self.device).eval()

    @cached_property
    def flops(self) -> Flops:
        """By the shapes alone."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            shape = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(self.folder, local_files_only=True))
        return flops_of(shape)

    def cost(self, rows: Sequence[Row]) -> float:
        """Operations of reading these rows."""
        return float(sum(len(row.ids) * self.flops.forward(len(row.ids)) for row in rows))

    def logliks(self, rows: Sequence[Row], report: Report | None = None) -> NDArray[np.float64]:
        """Of what each row should say, in nats."""
        found = np.zeros(len(rows))
        done = 0
        for batch in self._batches(rows):
            found[batch] = self._of([rows[number] for number in batch])
            done += len(batch)
            if report:
                report(done, len(rows))
        return found

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Of like length, the longest first: what memory does not hold is known at once."""
        words = self.model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
        order = sorted(range(len(rows)), key=lambda number: (-len(rows[number].ids), number))
        while order:
            fits = int(LOGIT_BYTES[self.device] // (8 * words * len(rows[order[0]].ids)))
            at_once = max(1, min(MOST_ROWS[self.device], fits))
            yield order[:at_once]
            order = order[at_once:]

    def _of(self, rows: list[Row]) -> NDArray[np.float64]:
        import torch

        longest = max(len(row.ids) for row in rows)
        # Behind the end of a row anything may stand: no token before it looks there.
        tokens_BT = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows], device=self.device)
        with torch.inference_mode(), self._autocast():
            logits_BTV = self.model(input_ids=tokens_BT, use_cache=False).logits
        return np.array([self._said(logits_TV, row) for logits_TV, row in zip(logits_BTV, rows, strict=True)])

    def _said(self, logits_TV: "torch.Tensor", row: Row) -> float:
        import torch

        with torch.inference_mode():
            end = len(row.ids)
            logs_SV = logits_TV[end - len(row.said) : end].float().log_softmax(-1)
            wanted_S1 = torch.tensor(row.said, device=self.device)[:, None]
            return float(logs_SV.gather(1, wanted_S1).double().sum())

    def _autocast(self) -> Any:
        import torch

        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else nullcontext()
