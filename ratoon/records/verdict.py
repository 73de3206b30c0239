"""What an assessment leaves: each comparison, the answers that flipped, what the gate asked, and its verdict."""

from collections import Counter
from typing import Any, Literal

from pydantic import Field, model_validator

from ratoon.config import Role
from ratoon.records.basis import Interval, Record

Outcome = Literal["win", "tie", "loss"]
Decision = Literal["promote", "refuse", "ask"]
State = Literal["shown", "not shown", "contradicted"]
Kind = Literal["gain", "retention", "benchmark", "golden", "measured", "valid", "approval"]


class Estimate(Record):
    """An effect and all it takes to test it against any margin: nobody has to open the items again for it.

    What is tested is t = (value - margin) / error, bent by its skewness to follow Student's distribution
    (ratoon/evaluation/statistics.py).
    """

    value: float
    error: float = Field(ge=0, description="standard error, clustered by document")
    freedom: float = Field(gt=0, description="degrees of freedom")
    lean: float = Field(0.0, description="coefficient of t squared, from the skewness")
    shift: float = Field(0.0, description="added to t, from the skewness")
    unsure: float = Field(0.0, ge=0, description="relative variance of the squared error; 0: not known")
    lean_error: float = Field(0.0, ge=0, description="standard error of `lean`; 0: not known")


class Comparison(Record):
    """Parent against candidate on the same items of one benchmark."""

    benchmark: str
    source: str
    role: Role
    metric: Literal["bits_per_byte", "accuracy"]
    items: int
    parent: Interval
    candidate: Interval
    difference: Interval = Field(description="candidate - parent")
    relative: Interval | None = Field(None, description="difference / parent; bits_per_byte only")
    outcome: Outcome
    samples: str | None = Field(None, description="file of the per-item scores, relative to the record")
    documents: int | None = Field(None, description="the items come from; what the error is clustered by")
    tested: Estimate | None = Field(None, description="of `relative`, or of `difference` where there is none")
    p: float | None = Field(
        None, description="two-sided, that nothing changed; accuracy: exact McNemar, arms swapped by document"
    )
    p_holm: float | None = Field(None, description="p adjusted by Holm over the comparisons of this verdict")
    detectable: float | None = Field(
        None,
        description="smallest true change that would be shown with 80% power at the gate's level, in the unit of "
        "`relative`, or of `difference` where there is none; always positive; above 1: none that can be",
    )
    requests: int | None = Field(None, description="choices scored or texts written by each arm")
    truncated: int | None = Field(
        None, description="of these without the beginning of their context, in the arm that has more; None: not told"
    )


class Flips(Record):
    """Answers that were right and are wrong, and the other way, on one benchmark."""

    benchmark: str
    source: str
    against: Literal["parent", "champion"]
    items: int
    right_before: int
    right_after: int
    negative: int = Field(description="right before, wrong now")
    positive: int = Field(description="wrong before, right now")
    negative_rate: Interval = Field(description="of all items; Clopper-Pearson")
    positive_rate: Interval = Field(description="of all items; Clopper-Pearson")
    relative_negative_rate: float | None = Field(
        description="negative rate / the rate two independent models of these accuracies would have; None: that is 0"
    )
    file: str | None = Field(None, description="the list of them, JSON lines, relative to the record")


class Demand(Record):
    """One thing the gate asks for, and what the scores say to it."""

    kind: Kind
    benchmark: str | None = None
    source: str | None = None
    state: State
    answer: Decision = Field(description="what this demand alone would have the gate do; promote: it is met")
    reason: str = Field(description="a sentence with its numbers")
    limit: float | None = Field(
        None, description="relative change of bits per byte, or difference in accuracy, that the test is about"
    )
    p_shown: float | None = Field(None, description="one-sided, that the demand is not met; small: it is shown")
    p_shown_holm: float | None = Field(None, description="adjusted by Holm over the gate's tests")
    p_broken: float | None = Field(None, description="one-sided, that the demand is met; small: it is contradicted")
    p_broken_holm: float | None = Field(None, description="adjusted by Holm over the gate's tests")
    flipped: tuple[str, ...] = Field((), description="golden: items that were right and are wrong")


class Verdict(Record):
    """promote: every demand is shown. refuse: one is contradicted, missing or invalid. ask: a person has to say."""

    decision: Decision = "refuse"
    promoted: bool = Field(False, description="the decision is to promote; what older records have alone")
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    parent: str
    candidate: str
    champion: str | None = Field(None, description="where it is another model than the parent")
    demands: tuple[Demand, ...] = ()
    level: float | None = Field(None, description="of the gate's one-sided tests together")
    flips: tuple[Flips, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def either_is_enough(cls, found: Any) -> Any:
        if isinstance(found, dict):
            if "decision" not in found:
                return {**found, "decision": "promote" if found.get("promoted") else "refuse"}
            return {"promoted": found["decision"] == "promote", **found}
        return found

    @model_validator(mode="after")
    def check(self) -> "Verdict":
        if self.promoted != (self.decision == "promote"):
            raise ValueError(f"decision is {self.decision!r} and promoted is {self.promoted}")
        return self

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """How many comparisons were won, tied and lost."""
        found = Counter(item.outcome for item in self.comparisons)
        return {"win": found["win"], "tie": found["tie"], "loss": found["loss"]}
