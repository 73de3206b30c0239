"""What happened to the way a model writes: measures of one output, and of two models over the same prompts.

    rep-n       1 - different n-grams / n-grams of its tokens; undefined below n tokens
    diversity   product over n = 2, 3, 4 of (1 - rep-n)
    loop        it ends in one piece, three times or more, over at least LOOP_TOKENS tokens
    ended       it ended by itself, with an end-of-text token
    length      tokens written
    strayed     it is in another language than its prompt, where both are sure
    mixing      share of its characters in parts of another language than it is
    copied      share of its runs of 13 tokens that stand in the training text

Each is a number of an output or None; a mean is over the outputs that have one. Differences are over the prompts where
both models have one, with Student's interval of the mean: a prompt that is hard to continue is hard for both.
"""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ratoon.config import Role
from ratoon.corpus.filters.languages import SURE, spoken
from ratoon.evaluation.calibration import Calibration
from ratoon.records import Interval, Record

ORDERS = (1, 2, 3, 4)
LOOP_TOKENS = 12
TIMES = 3
LEAST_CHARS = 40  # below it a language is a guess
MEASURES = (*(f"rep_{n}" for n in ORDERS), "diversity", "loop", "ended", "length", "strayed", "mixing", "copied")
Values = dict[str, float | None]


class Measured(Record):
    """One measure on the prompts of one source."""

    name: str
    parent: float | None
    candidate: float | None
    text: float | None = Field(None, description="of the documents' own continuations; None: it has no meaning there")
    difference: Interval | None = Field(None, description="candidate - parent; None: fewer than two prompts have both")
    prompts: int = Field(description="where both models have a value")


class Writing(Record):
    source: str
    role: Role
    prompts: int
    measures: tuple[Measured, ...]


class Validity(Record):
    """Share of outputs in the form the task asks for, whether right or wrong (valid-output recall)."""

    benchmark: str
    source: str
    parent: float
    candidate: float


class Health(Record):
    """How parent and candidate write and how well they know what they know: health.json beside the verdict."""

    parent: str
    candidate: str
    prompt_tokens: int | None = Field(None, description="None: nothing was written")
    tokens: int | None = Field(None, description="written behind each prompt at most")
    temperature: float | None = None
    searched_tokens: int | None = Field(None, description="of the training text, for copies; None: not searched")
    training_tokens: int | None = Field(None, description="that there are")
    writing: tuple[Writing, ...] = ()
    valid: tuple[Validity, ...] = Field((), description="of the suite's generations")
    calibration: tuple[Calibration, ...] = ()
    samples: str | None = Field(None, description="file with prompts and outputs, relative to the record")


# ---------------------------------------------------------------- one output


def measure(tokens: Sequence[int], text: str, prompt: str, ended: bool | None) -> Values:
    repeated = {f"rep_{n}": repetition(tokens, n) for n in ORDERS}
    strayed, mixing = languages(text, prompt)
    return {
        **repeated,
        "diversity": diversity(repeated),
        "loop": float(loops(tokens)),
        "ended": None if ended is None else float(ended),
        "length": float(len(tokens)),
        "strayed": strayed,
        "mixing": mixing,
    }


def repetition(tokens: Sequence[int], n: int) -> float | None:
    found = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(found)) / len(found) if found else None


def diversity(repeated: Values) -> float | None:
    parts = [repeated[f"rep_{n}"] for n in ORDERS if n > 1]
    return math.prod(1 - part for part in parts if part is not None) if None not in parts else None


def loops(tokens: Sequence[int]) -> bool:
    for size in range(1, len(tokens) // TIMES + 1):
        times = max(TIMES, -(-LOOP_TOKENS // size))
        end = list(tokens[-size * times :])
        if len(end) == size * times and end == end[:size] * times:
            return True
    return False


def languages(text: str, prompt: str) -> tuple[float | None, float | None]:
    """(strayed, mixing); None where the text is too short to tell."""
    if len(text.strip()) < LEAST_CHARS:
        return None, None
    said, asked = spoken(text), spoken(prompt)
    sure = said.score >= SURE and asked.score >= SURE and len(prompt.strip()) >= LEAST_CHARS
    return (float(said.language != asked.language) if sure else None), said.mixing


# ---------------------------------------------------------------- two models


def compare(
    parent: Sequence[Values], candidate: Sequence[Values], text: Sequence[Values], confidence: float
) -> tuple[Measured, ...]:
    """Over the same prompts in the same order."""
    return tuple(
        Measured(
            name=name,
            parent=mean([it.get(name) for it in parent]),
            candidate=mean([it.get(name) for it in candidate]),
            text=mean([it.get(name) for it in text]),
            **paired([it.get(name) for it in parent], [it.get(name) for it in candidate], confidence),
        )
        for name in MEASURES
    )


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def paired(
    old: Sequence[float | None], new: Sequence[float | None], confidence: float
) -> dict[str, Interval | int | None]:
    from scipy import stats

    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return {"difference": None, "prompts": len(pairs)}
    apart = np.array([b - a for a, b in pairs])
    half = stats.t.ppf((1 + confidence) / 2, len(apart) - 1) * apart.std(ddof=1) / math.sqrt(len(apart))
    value = float(apart.mean())
    difference = Interval(value=value, low=value - float(half), high=value + float(half), confidence=confidence)
    return {"difference": difference, "prompts": len(pairs)}
