"""What runs are called and say in words, and which of hundreds of parameters a person compares."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ratoon.records import Decision

SAID: dict[Decision, str] = {"promote": "promoted", "refuse": "refused", "ask": "asks"}
# Shown whatever their value: what runs of one line differ by most.
FIRST = (
    "refresh.base",
    "refresh.sources",
    "train.tokens",
    "train.learning_rate",
    "train.rows_per_step",
    "train.schedule.name",
    "train.optimizer.name",
    "train.trunk",
    "train.seed",
    "sweep.ratios",
    "sweep.tokens",
    "sweep.horizons",
    "choose.tolerance",
    "choose.goal",
    "choose.law",
    "promote.max_general_loss",
    "promote.max_benchmark_loss",
    "recipe.tokens",
    "recipe.learning_rate",
    "recipe.rows_per_step",
    "recipe.schedule.name",
    "recipe.optimizer.name",
    "recipe.seed",
    "row_tokens",
    "items",
    "max_documents",
    "bootstrap",
    "confidence",
)
# Of the preparation of text: what came of it is named by the editions. Of budgets: the one asked for is laid over.
LEFT_OUT = ("prepare.rules.", "prepare.languages.", "prepare.amend.", "prepare.engine.", "budgets.")
SAYS = {
    "refresh": "One refresh of the model line: its sweep, training, assessment and history are the runs below it.",
    "sweep": "Small runs at several domain shares and lengths; the laws that choose the share are fitted on them.",
    "proxy": "A proxy run of a sweep: one domain share, one length, its held-out losses at the end.",
    "train": "The target run at the share that was chosen. `tokens` is a metric: take it as a chart's X axis.",
    "assess": "Candidate and parent on the same items; the gate's verdict and every item's score are its artifacts.",
    "history": "What the line has learned and forgotten over all refreshes.",
    "arms": "Cheaper ways to the same end, measured against the refresh above.",
    "arm": "One cheaper way to the same end.",
}


def noted(kind: str) -> str | None:
    """The description of a run of this kind until it has more to say."""
    return SAYS.get(kind)


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Sections as dotted names."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def telling(record: BaseModel) -> dict[str, Any]:
    """What departs from its default, and what is looked at first whatever its value; by dotted name.

    Of a refresh's 270 parameters that leaves some twenty: MLflow has a column for each.
    """
    whole = dict(flat(record.model_dump(mode="json")))
    departed = dict(flat(record.model_dump(mode="json", exclude_defaults=True)))
    first = {name: whole[name] for name in FIRST if name in whole}
    return first | {name: value for name, value in departed.items() if not name.startswith(LEFT_OUT)}
