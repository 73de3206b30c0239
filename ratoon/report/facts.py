"""What the page says, worked out from the record. Nothing is drawn or worded here."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple, TypeVar, get_args

from ratoon.config import Role
from ratoon.records import Amount, Changes, Comparison, Funnel, Interval, Ledger, Observation, Portion, Refresh
from ratoon.report.wording import known

ROLES: tuple[Role, ...] = get_args(Role)
A = TypeVar("A", Amount, Portion)
STAGES = ("ingest", "clean", "pack")


class Point(NamedTuple):
    """One evaluation of one run on one role: the plain mean over the sources of that role."""

    model: str
    params: int
    tokens: int
    share: float
    nats: float


class Curve(NamedTuple):
    """Held-out bits per byte of one source along the target run."""

    source: str
    role: Role
    points: tuple[tuple[int, float], ...]

    @property
    def parent(self) -> float | None:
        """The level before the first step; None when step 0 was not evaluated."""
        return self.points[0][1] if self.points and self.points[0][0] == 0 else None


class Prediction(NamedTuple):
    role: Role
    predicted: Interval
    measured: float | None

    @property
    def off(self) -> float | None:
        """Measured against predicted, relative."""
        return self.measured / self.predicted.value - 1 if known(self.measured) and self.predicted.value else None

    @property
    def inside(self) -> bool | None:
        return self.predicted.low <= self.measured <= self.predicted.high if known(self.measured) else None


class Forgetting(NamedTuple):
    """What the domain alone did to general text, in the largest and longest proxy that read nothing else."""

    point: Point
    start: float | None

    @property
    def rise(self) -> float | None:
        return self.point.nats / self.start - 1 if self.start else None


class Row(NamedTuple):
    """One line of a source's funnel. `start` and `stop` are its bar, as shares of the widest line."""

    kind: str
    label: str
    documents: int
    num_bytes: int
    start: float
    stop: float


class Corpus(NamedTuple):
    source: str
    role: Role
    rows: tuple[Row, ...]
    held_out_documents: int | None
    held_out_bytes: int | None
    tokens: int | None
    held_out_tokens: int | None
    examples: tuple[tuple[str, tuple[str, ...]], ...]
    amended: tuple[tuple[str, Changes], ...]  # repair, or kind of private string
    kept_by: tuple[tuple[str, tuple[tuple[str, Amount], ...]], ...]  # kind, language -> its values, most bytes first
    portions: tuple[tuple[str, Portion], ...]  # of a source that is split; most bytes first


def points(observations: Iterable[Observation], role: Role) -> tuple[Point, ...]:
    """One point per evaluation; an evaluation with a source not measured is left out, never averaged around."""
    groups: dict[tuple[str, int, int], list[Observation]] = {}
    for item in observations:
        if item.role == role:
            groups.setdefault((item.run, item.step, item.tokens), []).append(item)
    made = []
    for group in groups.values():
        first, losses = group[0], [item.loss_nats for item in group]
        measured = [loss for loss in losses if known(loss)]
        if len(measured) == len(losses):
            made.append(Point(first.model, first.params_non_embedding, first.tokens, first.share, fmean(measured)))
    return tuple(made)


def proxies(refresh: Refresh, role: Role) -> tuple[Point, ...]:
    """The sweep's runs at the end of their schedules: these are what a target run can be compared with."""
    return points((item for item in refresh.observations if item.finished and item.tokens), role)


def end_of_run(refresh: Refresh, role: Role) -> float | None:
    """Loss of the target run at its last evaluation, nats per token."""
    last = max((item.tokens for item in refresh.curve), default=0)
    found = points((item for item in refresh.curve if item.tokens == last), role)
    return found[-1].nats if found and last else None


def predictions(refresh: Refresh) -> tuple[Prediction, ...]:
    predicted = {"general": refresh.choice.predicted_general, "domain": refresh.choice.predicted_domain}
    return tuple(Prediction(role, predicted[role], end_of_run(refresh, role)) for role in ROLES)


def forgetting(refresh: Refresh) -> Forgetting | None:
    """None when no proxy read domain text only."""
    alone = [p for p in proxies(refresh, "general") if p.share > 0.999]
    if not alone:
        return None
    point = max(alone, key=lambda p: (p.params, p.tokens))
    before = [
        p.nats
        for p in points(refresh.observations, "general")
        if p.tokens == 0 and (p.model, p.params) == (point.model, point.params)
    ]
    if before:
        return Forgetting(point, before[0])
    # A smaller proxy starts from another model: the parent's loss says nothing about where that one stood.
    same = point.params == refresh.choice.params_non_embedding
    return Forgetting(point, refresh.choice.parent_general_nats if same else None)


def curves(refresh: Refresh) -> tuple[Curve, ...]:
    found: dict[tuple[str, Role], list[tuple[int, float]]] = {}
    for item in refresh.curve:
        line = found.setdefault((item.evaluated, item.role), [])
        if known(item.bits_per_byte):
            line.append((item.tokens, item.bits_per_byte))
    return tuple(Curve(source, role, tuple(sorted(line))) for (source, role), line in found.items())


def sources(refresh: Refresh) -> dict[str, Role]:
    """Every source the record speaks of, general first."""
    named = [(item.source, item.role) for item in refresh.ledgers]
    named += [(item.source, item.role) for item in refresh.verdict.comparisons]
    named += [(item.evaluated, item.role) for item in refresh.curve]
    return {source: role for wanted in ROLES for source, role in named if role == wanted}


def headline(refresh: Refresh, role: Role) -> tuple[Comparison, ...]:
    """The comparisons a person looks for first: held-out bits per byte of one role."""
    return tuple(c for c in refresh.verdict.comparisons if c.role == role and c.metric == "bits_per_byte")


def corpora(refresh: Refresh) -> tuple[Corpus, ...]:
    """One per source, in the order of the record; a stage without a ledger is left out."""
    grouped: dict[str, list[Ledger]] = {}
    for ledger in refresh.ledgers:
        grouped.setdefault(ledger.source, []).append(ledger)
    return tuple(_corpus(sorted(group, key=lambda item: STAGES.index(item.stage))) for group in grouped.values())


def _corpus(stages: list[Ledger]) -> Corpus:
    def last(field: str) -> int | None:
        return next((value for item in reversed(stages) if (value := getattr(item, field)) is not None), None)

    examples = {reason: tuple(places) for item in stages for reason, places in item.examples.items() if places}
    return Corpus(
        source=stages[0].source,
        role=stages[0].role,
        rows=tuple(_rows(stages)),
        held_out_documents=last("held_out_documents"),
        held_out_bytes=last("held_out_bytes"),
        tokens=last("tokens"),
        held_out_tokens=last("held_out_tokens"),
        examples=tuple(sorted(examples.items())),
        amended=tuple((kind, found) for item in stages for kind, found in sorted(item.amended.items())),
        kept_by=tuple((name, _largest(found)) for item in stages for name, found in item.kept_by.items()),
        portions=_largest(next((item.portions for item in reversed(stages) if item.portions), {})),
    )


def _largest(found: Mapping[str, A]) -> tuple[tuple[str, A], ...]:
    return tuple(sorted(found.items(), key=lambda item: (-item[1].bytes, item[0])))


def _rows(stages: list[Ledger]) -> list[Row]:
    """In, each reason to drop, kept: a waterfall whose bars add up as the numbers do."""
    widest = max(item.funnel.bytes_in for item in stages) or 1
    rows: list[Row] = []
    before: Funnel | None = None
    for item in stages:
        funnel, left = item.funnel, item.funnel.bytes_in
        # Stages meet where one keeps what the next takes in; only a seam that does not match is worth a line.
        if before is None or (before.documents_kept, before.bytes_kept) != (funnel.documents_in, left):
            rows.append(Row("in", f"into {item.stage}", funnel.documents_in, left, 0, left / widest))
        for reason, documents in sorted(funnel.dropped.items(), key=lambda pair: (-pair[1], pair[0])):
            lost = funnel.dropped_bytes.get(reason, 0)
            rows.append(Row("dropped", reason, documents, lost, (left - lost) / widest, left / widest))
            left -= lost
        before = funnel
    if before is not None:
        rows.append(Row("kept", "kept", before.documents_kept, before.bytes_kept, 0, before.bytes_kept / widest))
    return rows
