"""What the parent is shown in front of what it is asked: passages drawn by hash, or looked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from ratoon.config.arms import FewShot, Retrieved
from ratoon.evaluation.passages import rank
from ratoon.evaluation.shelf import Copies, Shelf, shelve, text_bytes, training_files, whole_documents
from ratoon.evaluation.suite import Task
from ratoon.evaluation.taskfile import lines_of

Encode = Callable[[str], list[int]]
MEASURED = 50  # held-out documents that say how long a token is
# Passages looked at before there is nothing to show: most that are near are no copies.
TRIES = 8


class Place(NamedTuple):
    """Something that is about to be scored."""

    source: str
    item: str
    document: str
    before: str  # the end of the item's text ahead of it
    room: int  # tokens that what is shown may take


class Context(Protocol):
    before_tokens: int  # of the text so far, which it reads; 0: what it shows does not depend on it

    def show(self, places: Sequence[Place]) -> list[list[int]]:
        """Tokens to put in front, at most as many as there is room for."""
        ...


class Nothing:
    """No context: the model as it is."""

    before_tokens = 0

    def show(self, places: Sequence[Place]) -> list[list[int]]:
        return [[] for _ in places]


@dataclass
class Filled:
    """As much context as there is room for, for an estimate of what reading it costs."""

    tokens: int
    before_tokens: int = 0

    def show(self, places: Sequence[Place]) -> list[list[int]]:
        return [[0] * min(self.tokens, place.room) for place in places]


@dataclass
class Tray:
    """Passages of one shelf as tokens, so long that `asked.passages` of them fill `tokens`."""

    shelf: Shelf
    copies: Copies
    encode: Encode
    asked: FewShot | Retrieved
    tokens: int
    _seen: dict[int, list[int]] = field(default_factory=dict)

    def usable(self, passage: int, document: str) -> bool:
        """Not out of a copy of the held-out document."""
        own = self.shelf.documents[passage] == document
        return not own and self.copies.share(passage, document) <= self.asked.max_overlap

    def joined(self, passages: Sequence[int], room: int) -> list[int]:
        """The last of them stands next to what is scored, and is the last to be cut."""
        found = [token for passage in passages for token in self._tokens(passage)]
        return found[max(0, len(found) - room) :]

    def _tokens(self, passage: int) -> list[int]:
        if passage not in self._seen:
            behind = self.encode(self.asked.joined_by)
            most = max(1, self.tokens // self.asked.passages - len(behind))
            self._seen[passage] = self.encode(self.shelf.texts[passage])[:most] + behind
        return self._seen[passage]


@dataclass
class Drawn:
    """Passages of the source that is asked about, for every item the same ones at each of its places."""

    trays: dict[str, Tray]
    seed: int
    before_tokens: int = 0
    _kept: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def show(self, places: Sequence[Place]) -> list[list[int]]:
        return [self.trays[place.source].joined(self._drawn(place), place.room) for place in places]

    def _drawn(self, place: Place) -> list[int]:
        tray = self.trays[place.source]
        if (place.source, place.item) not in self._kept:
            turns = (rank(self.seed, place.item, turn) for turn in range(TRIES * tray.asked.passages))
            drawn = dict.fromkeys(turn % len(tray.shelf.texts) for turn in turns)
            usable = (passage for passage in drawn if tray.usable(passage, place.document))
            self._kept[place.source, place.item] = list(islice(usable, tray.asked.passages))
        return self._kept[place.source, place.item]


class Nearest:
    """Passages that share most with the text so far, the nearest last. What comes after it is never looked at."""

    def __init__(self, tray: Tray, asked: Retrieved) -> None:
        from ratoon.evaluation import bm25

        self.tray, self.asked = tray, asked
        self.before_tokens = asked.query_tokens
        self.index = bm25.build(pa.array(tray.shelf.texts, pa.large_string()), asked.k1, asked.b)

    def show(self, places: Sequence[Place]) -> list[list[int]]:
        questions = pa.array([place.before for place in places], pa.large_string())
        found = self.index.best(questions, TRIES * self.asked.passages)
        return [self._joined(passages, place) for passages, place in zip(found, places, strict=True)]

    def _joined(self, passages: list[int], place: Place) -> list[int]:
        usable = [passage for passage in passages if self.tray.usable(passage, place.document)]
        return self.tray.joined(usable[: self.asked.passages][::-1], place.room)


@dataclass(frozen=True)
class Library:
    """The text of a refresh: source -> its clean editions, those to be learned, and what the suite asks."""

    editions: Mapping[str, list[Path]]
    domain: Sequence[str]
    suite: Path
    tasks: Sequence[Task]

    @cached_property
    def held_out(self) -> dict[str, str]:
        """Document -> all that is known to be in it: the whole of it where it is one of ours, and what is asked."""
        said: dict[str, list[str]] = {}
        for task in self.tasks:
            for item in lines_of(self.suite / f"{task.name}.jsonl"):
                asked = item["text"] if "text" in item else item["context"] + item["choices"][item["gold"]]
                said.setdefault(item["document"], []).append(asked)
        every = [edition for editions in self.editions.values() for edition in editions]
        for key, text in whole_documents(every, set(said)).items():
            said[key].append(text)
        return {key: "\n".join(texts) for key, texts in said.items()}

    def num_bytes(self, texts: Sequence[Task]) -> int:
        """Of these held-out texts."""
        return sum(len(item["text"].encode()) for task in texts for item in lines_of(self.suite / f"{task.name}.jsonl"))

    def sources(self, asked: FewShot | Retrieved) -> list[str]:
        """Those whose text is shown."""
        if isinstance(asked, Retrieved):
            return list(self.domain)
        about = {task.source for task in self.tasks}
        return sorted({*(about & self.editions.keys()), *(self.domain if about - self.editions.keys() else ())})

    def text_bytes(self, source: str, most: int) -> int:
        return min(most, sum(text_bytes(file) for edition in self.editions[source] for file in training_files(edition)))

    def tray(self, sources: Sequence[str], asked: FewShot | Retrieved, tokens: int, encode: Encode) -> Tray:
        texts = [text for _, text in sorted(self.held_out.items())[:MEASURED]]
        chars = sum(map(len, texts)) / max(1, sum(len(encode(text)) for text in texts))
        editions = [edition for source in sources for edition in self.editions[source]]
        shelf = shelve(editions, max(16, round(chars * tokens / asked.passages)), asked.max_bytes)
        return Tray(shelf, Copies(shelf, self.held_out), encode, asked, tokens)

    def drawn(self, asked: FewShot, tokens: int, encode: Encode) -> Drawn:
        """Of the source that is asked about; of one that has no text of its own, of the domain."""
        sources = sorted({task.source for task in self.tasks})
        own = {name: [name] if name in self.editions else list(self.domain) for name in sources}
        return Drawn({name: self.tray(of, asked, tokens, encode) for name, of in own.items()}, asked.seed)

    def nearest(self, asked: Retrieved, tokens: int, encode: Encode) -> Nearest:
        """Of the domain sources, whatever is asked about: what was not to be learned was not to be looked up."""
        return Nearest(self.tray(self.domain, asked, tokens, encode), asked)
