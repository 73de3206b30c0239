"""A verdict out of a folder of scores: no model, no network. The same bytes give the same verdict.

assess/suite/, assess/parent/, assess/candidate/, assess/champion/    what was asked, and every item's score
assess/gate.json                                                      the policy, and what is known of the models
"""

from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from ratoon.config import AssessConfig, ConfigError, GateConfig
from ratoon.evaluation import flips, gate, harness, paired
from ratoon.evaluation.flips import Against, Flip, Golden
from ratoon.records import Comparison, Flips, Record, Verdict, read

QUESTION = "gate.json"
LISTED = "flips.jsonl"


class Arm(Record):
    """One model, as far as the gate must know it beside its scores."""

    model: str = Field(description="directory")
    tokenizer: str | None = Field(None, description="digest; None: it has none that can be read")
    step: int | None = Field(None, description="of the training these weights are from; None: a model that is given")
    steps: int | None = Field(None, description="that training was asked for")
    fault: str | None = Field(None, description="why it could not be scored")


class Question(Record):
    """All the gate is told beside the scores: `gate.json`."""

    policy: GateConfig
    assess: AssessConfig
    parent: Arm
    candidate: Arm
    champion: Arm | None = Field(None, description="where it is another model than the parent")


class Answer(NamedTuple):
    verdict: Verdict
    listed: tuple[Flip, ...]


def decide(folder: Path, question: Question | None = None) -> Answer:
    """Judge the scores in an `assess` folder, under the policy kept beside them or another.

    Scores that are damaged, missing or of other items are no error but a reason to refuse.
    """
    asked = question or read(folder / QUESTION, Question)
    faults = list(unfit(asked))
    comparisons: tuple[Comparison, ...] = ()
    found: list[tuple[Against, flips.Found]] = []
    if not asked.candidate.fault:
        try:
            comparisons = compared(folder, asked)
            found = list(flipped(folder, asked))
        except ConfigError as error:
            faults.append(f"scores: {error}")
    verdict = gate.judge(
        comparisons,
        asked.policy,
        parent=asked.parent.model,
        candidate=asked.candidate.model,
        beside=gate.Beside(
            faults=tuple(faults),
            flips=tuple(named(one) for _, item in found for one in item.counts),
            golden=goldens(found),
            champion=asked.champion.model if asked.champion else None,
        ),
    )
    return Answer(verdict, tuple(flip for _, item in found for flip in item.listed))


def unfit(asked: Question) -> list[str]:
    """What makes the candidate another model than the one asked for, whatever it scores."""
    it, parent = asked.candidate, asked.parent
    found = [f"candidate: it could not be scored: {it.fault}"] if it.fault else []
    if it.tokenizer != parent.tokenizer:
        found.append(
            f"tokenizer: the candidate's is {it.tokenizer or 'missing'}, its parent's {parent.tokenizer or 'missing'}: "
            f"the same ids mean other words"
        )
    if it.step is not None and it.steps is not None and it.step < it.steps:
        found.append(f"training: cut short at step {it.step:,} of {it.steps:,}")
    return found


def compared(folder: Path, asked: Question) -> tuple[Comparison, ...]:
    for arm in arms(asked):
        if harness.recall(folder / arm) is None:
            raise ConfigError(f"{folder / arm}: missing, or not what scores.json says; assess again")
    return paired.compare(folder / "parent", folder / "candidate", folder / "suite", asked.assess)


def arms(asked: Question) -> tuple[str, ...]:
    return ("parent", "candidate", *(("champion",) if asked.champion else ()))


def flipped(folder: Path, asked: Question) -> list[tuple[Against, flips.Found]]:
    opponents: list[Against] = ["parent", *(["champion"] if asked.champion else [])]  # type: ignore[list-item]
    return [
        (
            against,
            flips.find(
                folder / against,
                folder / "candidate",
                folder / "suite",
                against=against,
                pinned=asked.policy.golden,
                confidence=asked.assess.confidence,
            ),
        )
        for against in opponents
    ]


def named(counts: Flips) -> Flips:
    return counts.model_copy(update={"file": f"assess/{LISTED}"})


def goldens(found: list[tuple[Against, flips.Found]]) -> tuple[tuple[Against, Golden], ...]:
    return tuple((against, golden) for against, item in found for golden in item.golden)
