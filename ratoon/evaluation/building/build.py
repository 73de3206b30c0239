"""Held-out documents in, items out: candidates, wrong answers, and what had to go."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from ratoon.config import ConfigError
from ratoon.config.building import BuildRecipe, QuestionKind
from ratoon.evaluation.building import answerers, choices, training
from ratoon.evaluation.building.answerers import Answerer, Rarity
from ratoon.evaluation.building.candidates import Candidate, candidates
from ratoon.evaluation.building.choices import Item
from ratoon.evaluation.held_out import Document
from ratoon.evaluation.passages import rank
from ratoon.evaluation.suite import choose
from ratoon.records import Record

SPARE = 6  # candidates looked at per item wanted: many find no block
LOOKED_AT = 2000  # of one document: a table of numbers has hundreds of thousands


class Seen(Record):
    """One answerer on the items of one kind."""

    name: str
    right: int
    accuracy: float
    p: float = Field(description="of so many right by guessing, adjusted for all answerers of the kind (Holm)")


class Made(Record):
    """One kind of question. items = candidates - everything dropped."""

    candidates: int
    items: int
    documents: int
    dropped: dict[str, int] = Field(default_factory=dict, description="reason -> candidates")
    blind: tuple[Seen, ...] = Field((), description="answerers that see the choices alone; guessing gives 1 / choices")
    open_book: float | None = Field(None, description="share that overlap with the passage answered, before the drop")
    context: Seen | None = Field(None, description="overlap with the context alone; reported")


class Report(Record):
    """What a benchmark was made of: `build.json` beside its items."""

    recipe: BuildRecipe
    digest: str = Field(description="sha256 of the items")
    held_out_documents: int
    training_documents: int
    training_bytes: int
    kinds: dict[QuestionKind, Made]
    left_out: dict[QuestionKind, str] = Field(default_factory=dict, description="kind -> why it has no items")


class Built(NamedTuple):
    items: list[Item]
    kinds: dict[QuestionKind, Made]
    left_out: dict[QuestionKind, str]
    held_out_documents: int
    training: training.Training


def build(recipe: BuildRecipe, held_out: Path, cleans: Sequence[Path]) -> Built:
    """Items of every kind the text yields.

    held_out   clean edition whose held-out documents are asked about
    cleans     clean editions that models train on: no item may stand in them

    Raises ConfigError when no kind yields `recipe.least` items, with what each kind came to.
    """
    documents = choose(held_out, recipe.documents, recipe.seed, lambda document: bool(document.text.strip()))
    found = {kind: gather(documents, kind, recipe) for kind in recipe.kinds}
    seen = training.read([one for each in found.values() for one in each], cleans)
    made, kinds, left_out = list[Item](), dict[QuestionKind, Made](), dict[QuestionKind, str]()
    weights = answerers.rarity([document.text for document in documents])
    for kind, each in found.items():
        items, kinds[kind] = sift(each, recipe, seen, weights)
        if reason := refused(kinds[kind], recipe):
            left_out[kind] = reason
        else:
            made += items
    if not made:
        said = "\n".join(f"  {kind}: {reason}" for kind, reason in left_out.items())
        raise ConfigError(
            f"source {recipe.source!r}: {len(documents)} held-out documents make no benchmark:\n{said}\n"
            f"  add text, raise prepare.held_out.share, or ask for less with --least"
        )
    return Built(made, kinds, left_out, len(documents), seen)


def gather(documents: Sequence[Document], kind: QuestionKind, recipe: BuildRecipe) -> list[Candidate]:
    """The first candidate of every document, then the second of every document, and so on; drawn by hash within one."""
    turns: list[list[Candidate]] = [[] for _ in range(recipe.per_document * SPARE)]
    for document in documents:
        few = islice(candidates(document.id, document.text, kind, recipe), LOOKED_AT)
        mine = sorted(few, key=lambda one: rank(recipe.seed, one.id))
        for turn, one in zip(turns, mine, strict=False):
            turn.append(one)
    return list(islice((one for turn in turns for one in turn), recipe.items * SPARE))


def sift(
    found: Sequence[Candidate], recipe: BuildRecipe, seen: training.Training, weights: Rarity
) -> tuple[list[Item], Made]:
    """The items of one kind, and what became of its candidates."""
    frequency = log_frequency(seen.words)
    clear = [one for one in found if one.id not in seen.held]
    known = [one for one in clear if not one.short or is_known(one, seen.words, recipe.known)]
    whole = choices.items(known, recipe.choices, frequency, recipe.seed)
    right = answerers.open_book(whole, weights)
    readable = [item for item, found in zip(whole, right, strict=True) if found]
    told_by_none = fair(readable, recipe, frequency)
    kept = limited(told_by_none, recipe)
    dropped = {
        "in training text": len(found) - len(clear),
        "unknown to training text": len(clear) - len(known),
        "too few of its type, or asked before": len(known) - len(whole),
        "not answered open-book": len(whole) - len(readable),
        "told by the choices": len(readable) - len(told_by_none),
        "more than asked for": len(told_by_none) - len(kept),
    }
    context = answerers.by_context(kept, weights) if kept else None
    made = Made(
        candidates=len(found),
        items=len(kept),
        documents=len({item.asked.document for item in kept}),
        dropped={reason: count for reason, count in dropped.items() if count},
        blind=tuple(recorded(one) for one in answerers.blind(kept, frequency, recipe.seed)),
        open_book=sum(right) / len(right) if right else None,
        context=recorded(context) if context else None,
    )
    return kept, made


def recorded(one: Answerer) -> Seen:
    return Seen(name=one.name, right=one.right, accuracy=one.accuracy, p=one.p)


def is_known(one: Candidate, words: Counter[str], least: int) -> bool:
    return all(words[word] >= least for word in answerers.terms(one.answer))


def log_frequency(words: Counter[str]) -> Callable[[str], float]:
    """Mean logarithm of how often the words of a text stand in training text."""

    def frequency(text: str) -> float:
        found = answerers.terms(text)
        return math.fsum(math.log1p(words[word]) for word in found) / len(found) if found else 0.0

    return frequency


def fair(items: list[Item], recipe: BuildRecipe, frequency: Callable[[str], float]) -> list[Item]:
    """`items`, unless choices alone tell something: then those of whole blocks, in which they cannot."""
    if all(one.p >= recipe.significance for one in answerers.blind(items, frequency, recipe.seed)):
        return items
    sizes = Counter(item.block for item in items)
    return [item for item in items if sizes[item.block] == recipe.choices]


def limited(items: list[Item], recipe: BuildRecipe) -> list[Item]:
    """As many as asked for, by whole blocks drawn by hash; of one document not more than its share."""
    order = sorted({item.block for item in items}, key=lambda block: rank(recipe.seed, "block", block))
    place = {block: number for number, block in enumerate(order)}
    documents: Counter[str] = Counter()
    kept: list[Item] = []
    for item in sorted(items, key=lambda item: place[item.block]):
        if documents[item.asked.document] < recipe.per_document and len(kept) < recipe.items:
            documents[item.asked.document] += 1
            kept.append(item)
    return kept


def refused(made: Made, recipe: BuildRecipe) -> str | None:
    """Why a kind is left out."""
    if made.items < recipe.least:
        went = ", ".join(f"{count} {reason}" for reason, count in made.dropped.items())
        return f"{made.items} items of {made.candidates} candidates, {recipe.least} are asked for" + (
            f" ({went})" if went else ""
        )
    if told := [one for one in made.blind if one.p < recipe.significance]:
        return f"choices alone tell the answer: {told[0].name} is right in {told[0].accuracy:.0%} of {made.items}"
    return None
