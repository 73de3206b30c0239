"""Does the model still learn from what stands in front of it? Two answers, which continued training may lose.

Induction: a sequence of tokens drawn at random is read twice. The first copy cannot be predicted; the second can, by a
model that looks back. Gain is the mean loss of the first copy less that of the second, in nats per token.

Few-shot: next-passage items with solved items of other documents in front, and the same items without. Gain is the
difference of the accuracies, item by item.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ratoon.config import ConfigError, ProbeConfig
from ratoon.evaluation import means, suite
from ratoon.evaluation.passages import rank
from ratoon.evaluation.reader import Reader
from ratoon.evaluation.taskfile import lines_of
from ratoon.records import Interval, Record

BETWEEN = "\n\n"


class FewShot(Record):
    items: int
    shots: int = Field(description="solved items in front: those asked for, or as many as a row has room for")
    zero: float = Field(description="accuracy without")
    few: float = Field(description="accuracy with")
    gain: Interval | None


class Probe(Record):
    """What one model makes of its context."""

    model: str
    sequence_tokens: int
    first_nats: float
    second_nats: float
    induction: Interval | None = Field(description="first less second, nats per token; 0: it does not look back")
    few_shot: FewShot | None = Field(description="None: no multiple-choice items, or no room for a shot")


class Probes(Record):
    """`probes.json` of a refresh. Changes are candidate less parent, on the same sequences and items."""

    parent: Probe
    candidate: Probe
    induction: Interval | None
    few_shot: Interval | None


class Item(NamedTuple):
    document: str
    context: str
    choices: tuple[str, ...]
    gold: int

    @property
    def solved(self) -> str:
        return self.context + self.choices[self.gold]


class Asked(NamedTuple):
    """The probe of one model, with what each sequence and item said."""

    probe: Probe
    gains: list[float]  # of each sequence
    shots: list[float]  # of each item: right with shots less right without
    documents: list[str]


def compare(
    parent: Path, candidate: Path, tests: Path, config: ProbeConfig, row_tokens: int, device: str, confidence: float
) -> Probes:
    """Both models on the same sequences and on the same items of the suite in `tests`, one after the other."""
    items = items_of(tests, config)
    old, new = (Reader(model, row_tokens, device) for model in (parent, candidate))
    words = min(ordinary(old), ordinary(new))
    shots = min(room(old, items, config), room(new, items, config))
    a, b = (ask(reader, items, shots, words, config, confidence) for reader in (old, new))
    change = means.mean(np.subtract(b.gains, a.gains).tolist(), None, confidence)
    moved = means.mean(np.subtract(b.shots, a.shots).tolist(), a.documents, confidence) if a.shots else None
    return Probes(parent=a.probe, candidate=b.probe, induction=change, few_shot=moved)


def one(model: Path, tests: Path, config: ProbeConfig, row_tokens: int, device: str, confidence: float) -> Probe:
    """One model alone, such as a checkpoint."""
    items, reader = items_of(tests, config), Reader(model, row_tokens, device)
    return ask(reader, items, room(reader, items, config), ordinary(reader), config, confidence).probe


def ask(reader: Reader, items: list[Item], shots: int, words: int, config: ProbeConfig, confidence: float) -> Asked:
    """words: how many tokens, from the first on, sequences are drawn from."""
    length = min(config.tokens, reader.row_tokens // 2)
    rows = sequences(config.sequences, length, words, set(reader.tokenizer.all_special_ids), reader.separator)
    losses = np.stack(reader.nats(rows))
    first, second = losses[:, :length].mean(1), losses[:, length:].mean(1)
    found, gains, documents = few_shot(reader, items, shots, confidence)
    probe = Probe(
        model=reader.path.name,
        sequence_tokens=length,
        first_nats=float(first.mean()),
        second_nats=float(second.mean()),
        induction=means.mean((first - second).tolist(), None, confidence),
        few_shot=found,
    )
    return Asked(probe, (first - second).tolist(), gains, documents)


# ---------------------------------------------------------------- induction


def ordinary(reader: Reader) -> int:
    return min(len(reader.tokenizer), int(reader.model.config.vocab_size))


def sequences(count: int, length: int, words: int, special: set[int], separator: int) -> list[list[int]]:
    """Random tokens, the same on every machine and in every release, each sequence twice behind a separator."""
    allowed = np.array([word for word in range(words) if word not in special])
    if not len(allowed):
        raise ConfigError(
            f"a vocabulary of {words} tokens holds nothing but special tokens; nothing can be drawn from it"
        )
    made = []
    for number in range(count):
        raw = hashlib.shake_256(f"induction {number}".encode()).digest(8 * length)
        drawn = allowed[np.frombuffer(raw, "<u8") % len(allowed)].tolist()
        made.append([separator, *drawn, *drawn])
    return made


# ---------------------------------------------------------------- few-shot


def items_of(tests: Path, config: ProbeConfig) -> list[Item]:
    """Up to `items` multiple-choice items of the suite, as many of each task, chosen by hash and cut short."""
    tasks = [task for task in suite.load(tests).tasks if task.metric == "accuracy"]
    found: list[tuple[int, str, Item]] = []
    for task in tasks:
        read = lines_of(tests / f"{task.name}.jsonl")
        # Items of another kind ask for more than a choice among passages.
        asked = [i for i in read if {"context", "choices", "gold"} <= i.keys()]
        if task.source == task.benchmark:
            asked = [i for i in asked if fits(i, config)]
        asked.sort(key=lambda i: rank("probe", i["id"]))
        found += [(k, task.name, short(item, config)) for k, item in enumerate(asked)]
    return [item for _, _, item in sorted(found, key=lambda it: it[:2])[: config.items]]


def fits(item: dict, config: ProbeConfig) -> bool:
    """Whether nothing of it would be cut. A passage may be: what follows depends on its end. A question may not, nor
    a list of options of which the letter is asked: what is left of it asks nothing."""
    choices = (len(choice.encode()) <= config.choice_bytes for choice in item["choices"])
    return len(item["context"].encode()) <= config.context_bytes and all(choices)


def short(item: dict, config: ProbeConfig) -> Item:
    """A row of a small model has room for little: the end of the context, the beginning of each choice."""
    context = item["context"].encode()[-config.context_bytes :].decode(errors="ignore")
    choices = (choice.encode()[: config.choice_bytes].decode(errors="ignore") for choice in item["choices"])
    return Item(str(item["document"]), context, tuple(choices), int(item["gold"]))


def examples(items: list[Item], k: int, shots: int) -> list[Item]:
    """Solved items of other documents for item k, drawn by hash."""
    others = [j for j in range(len(items)) if items[j].document != items[k].document]
    return [items[j] for j in sorted(others, key=lambda j: rank("shot", k, j))[:shots]]


def prompt(items: list[Item], k: int, shots: int) -> str:
    return BETWEEN.join([*(item.solved for item in examples(items, k, shots)), items[k].context])


def room(reader: Reader, items: list[Item], config: ProbeConfig) -> int:
    """How many shots fit a row in front of every item."""
    for shots in range(config.shots, 0, -1):
        longest = max(
            (len(row) - 1 for k in range(len(items)) for row in rows_of(reader, items, k, shots)[0]), default=0
        )
        if longest <= reader.row_tokens:
            return shots
    return 0


def rows_of(reader: Reader, items: list[Item], k: int, shots: int) -> tuple[list[list[int]], list[int]]:
    """A row for each choice of item k, and how many of its tokens are the choice's."""
    before = [reader.separator, *reader.encode(prompt(items, k, shots))]
    answers = [reader.encode(choice) for choice in items[k].choices]
    return [[*before, *answer] for answer in answers], [len(answer) for answer in answers]


def few_shot(
    reader: Reader, items: list[Item], shots: int, confidence: float
) -> tuple[FewShot | None, list[float], list[str]]:
    """The accuracies, and of each item the gain and the document."""
    if not shots or len(items) < 2:
        return None, [], []
    zero, few = (right(reader, items, number) for number in (0, shots))
    documents = [item.document for item in items]
    gains = np.subtract(few, zero).tolist()
    found = FewShot(
        items=len(items),
        shots=shots,
        zero=float(np.mean(zero)),
        few=float(np.mean(few)),
        gain=means.mean(gains, documents, confidence),
    )
    return found, gains, documents


def right(reader: Reader, items: list[Item], shots: int) -> list[float]:
    """1 for each item whose own continuation is the likeliest."""
    asked = [rows_of(reader, items, k, shots) for k in range(len(items))]
    nats = iter(reader.nats([row for rows, _ in asked for row in rows]))
    answers = []
    for item, (_, lengths) in zip(items, asked, strict=True):
        costs = [float(next(nats)[-length:].sum()) for length in lengths]
        answers.append(float(int(np.argmin(costs)) == item.gold))
    return answers
