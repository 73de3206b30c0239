"""Who answers without knowing anything: items that they answer test something else than they say.

Seeing the choices alone, everybody must be at chance: the longest, the shortest, the first, the one most or least
frequent in training text, and a classifier trained on the choices of other items. Seeing the passage that an item was
made from, the overlap of words (BM25) must find the right choice: else no reader could.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ratoon.evaluation.building.choices import Item
from ratoon.evaluation.passages import rank

Frequency = Callable[[str], float]
TERMS = re.compile(r"\w+(?:[.'-]\w+)*")
K1, B = 1.2, 0.75  # BM25's own two numbers, as usually set
FOLDS = 5


class Answerer(NamedTuple):
    """`p`: of so many right answers or more by guessing, adjusted for the answerers asked (Holm)."""

    name: str
    items: int
    right: int
    p: float

    @property
    def accuracy(self) -> float:
        return self.right / self.items if self.items else math.nan


def terms(text: str) -> list[str]:
    return [word.casefold() for word in TERMS.findall(text)]


# ---------------------------------------------------------------- choices alone


def blind(items: Sequence[Item], frequency: Frequency, seed: int) -> list[Answerer]:
    """All who see no context, each with its p."""
    if not items:
        return []
    guesses = {
        "longest": [argmax(len(choice.encode()) for choice in item.choices) for item in items],
        "shortest": [argmax(-len(choice.encode()) for choice in item.choices) for item in items],
        "first": [0] * len(items),
        "most frequent": [argmax(frequency(choice) for choice in item.choices) for item in items],
        "least frequent": [argmax(-frequency(choice) for choice in item.choices) for item in items],
        "trained on choices": trained(items, frequency, seed),
    }
    right = {name: sum(g == item.gold for g, item in zip(guess, items, strict=True)) for name, guess in guesses.items()}
    choices = len(items[0].choices)
    adjusted = holm({name: above_chance(count, len(items), 1 / choices) for name, count in right.items()})
    return [Answerer(name, len(items), count, adjusted[name]) for name, count in right.items()]


def argmax(values: Iterable[float]) -> int:
    """The first of the largest."""
    found = list(values)
    return found.index(max(found))


def above_chance(right: int, items: int, chance: float) -> float:
    from scipy.stats import binomtest

    return float(binomtest(right, items, chance, alternative="greater").pvalue)


def holm(values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down: reject below alpha, and all together err with at most alpha."""
    adjusted, highest = {}, 0.0
    for place, name in enumerate(sorted(values, key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - place) * values[name]))
        adjusted[name] = highest
    return adjusted


def trained(items: Sequence[Item], frequency: Frequency, seed: int) -> list[int]:
    """The choice that a logistic regression over letters, length and frequency finds most like right answers.

    Items that share their choices are in one fold: of a block seen but for one item, the rest would give it away.
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = [choice for item in items for choice in item.choices]
    size = len(items[0].choices)
    letters = HashingVectorizer(analyzer="char", ngram_range=(1, 3), n_features=1 << 12).transform(texts)
    plain = np.array([[len(text) / 10, frequency(text)] for text in texts])
    from scipy.sparse import csr_array, hstack

    features = hstack([csr_array(letters), csr_array(plain)]).tocsr()
    gold = np.array([place == item.gold for item in items for place in range(size)])
    fold = np.repeat([rank(seed, "fold", item.block) % FOLDS for item in items], size)
    scores = np.zeros(len(texts))
    for number in range(FOLDS):
        here = fold == number
        if here.any() and len(set(gold[~here])) == 2:
            model = LogisticRegression(max_iter=200).fit(features[~here], gold[~here])
            scores[here] = model.decision_function(features[here])
    return [int(row.argmax()) for row in scores.reshape(-1, size)]


# ---------------------------------------------------------------- with a text in view


class Rarity(NamedTuple):
    """BM25's weight of every word: its inverse document frequency over the held-out documents."""

    of: dict[str, float]

    def bm25(self, query: Sequence[str], counts: Counter[str], longer: float) -> float:
        """`longer`: the text's length over the mean of those compared."""
        scale = K1 * (1 - B + B * longer)
        return sum(self.of.get(word, 0.0) * counts[word] * (K1 + 1) / (counts[word] + scale) for word in set(query))


def rarity(documents: Sequence[str]) -> Rarity:
    having = Counter(word for text in documents for word in set(terms(text)))
    total = len(documents)
    return Rarity({word: math.log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in having.items()})


def open_book(items: Sequence[Item], weights: Rarity) -> list[bool]:
    """Whether BM25 between each choice and the passage of the item finds the right one, and no other as near."""
    return finds(items, [item.asked.evidence for item in items], weights)


def by_context(items: Sequence[Item], weights: Rarity) -> Answerer:
    """The same with the context alone: how much of the benchmark is copying. Reported, and no reason to drop."""
    right = sum(finds(items, [item.asked.context for item in items], weights))
    p = above_chance(right, len(items), 1 / len(items[0].choices)) if items else 1.0
    return Answerer("words of the context", len(items), right, p)


def finds(items: Sequence[Item], texts: Sequence[str], weights: Rarity) -> list[bool]:
    counts = [Counter(terms(text)) for text in texts]
    mean = sum(each.total() for each in counts) / max(1, len(counts))
    found = []
    for item, each in zip(items, counts, strict=True):
        scores = [weights.bm25(terms(choice), each, each.total() / mean) for choice in item.choices]
        found.append(scores.count(scores[item.gold]) == 1 and scores[item.gold] == max(scores))
    return found
