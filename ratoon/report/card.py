"""The page as a model card: Markdown with the front matter that Hugging Face reads."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from ratoon.evaluation.sentences import unseen
from ratoon.records import Comparison, Interval, Refresh
from ratoon.report import arms as arms_text
from ratoon.report import energy, facts, lead, terminal, wording
from ratoon.report.beside import Beside

# Identifiers a hub knows; another licence is `other`, by its name.
LICENSES = [
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bigscience-openrail-m",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "gemma",
    "gpl-2.0",
    "gpl-3.0",
    "isc",
    "lgpl-3.0",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "mit",
    "mpl-2.0",
    "odc-by",
    "openrail",
    "openrail++",
    "other",
    "unknown",
    "unlicense",
    "wtfpl",
    "zlib",
]
METRICS = {"bits_per_byte": ("bits_per_byte", "Bits per byte"), "accuracy": ("accuracy", "Accuracy")}
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#!~$&])")


def text(refresh: Refresh, beside: Beside, base_model: str | None = None) -> str:
    """base_model: the hub's name of the base, where it has one; a local name could be a stranger's there."""
    front = yaml.safe_dump(front_matter(refresh, base_model), sort_keys=False, allow_unicode=True)
    parts = ["\n".join(part) for part in body(refresh, beside)]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def front_matter(refresh: Refresh, base_model: str | None) -> dict[str, Any]:
    license = (refresh.lineage.license or "unknown").strip().lower()
    found: dict[str, Any] = {"license": license if license in LICENSES else "other"}
    if found["license"] == "other":
        found["license_name"] = re.sub(r"[^a-z0-9.]+", "-", license).strip("-") or "other"
    if base_model:
        found |= {"base_model": base_model, "base_model_relation": "finetune"}
    found |= {"library_name": "transformers", "pipeline_tag": "text-generation"}
    found["tags"] = ["continued-pretraining", "ratoon"]
    if results := [result(item) for item in refresh.verdict.comparisons if wording.known(item.candidate.value)]:
        found["model-index"] = [{"name": refresh.line, "results": results}]
    return found


def result(item: Comparison) -> dict[str, Any]:
    kind, name = METRICS[item.metric]
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": f"{item.benchmark}--{item.source}", "name": f"{item.benchmark} on {item.source}"},
        "metrics": [{"type": kind, "name": name, "value": item.candidate.value}],
    }


def body(refresh: Refresh, beside: Beside) -> Iterator[list[str]]:
    yield [f"# {plain(terminal.version(refresh).split(';')[0])}"]
    yield [plain(lead.paragraph(refresh))]
    if command := lead.command(refresh):
        yield [f"    {command}"]
    yield ["## Results"]
    yield ["Parent and candidate on the same items; the change is paired, with its interval."]
    yield results(refresh.verdict.comparisons)
    yield ["## Verdict"]
    yield [f"- {plain(reason)}" for reason in refresh.verdict.reasons]
    if (arms := beside.found.get("arms")) is not None:
        yield ["## Was it worth it?"]
        yield [f"- {plain(said)}" for said in (arms_text.headline(arms), *arms_text.sentences(arms))]
    yield ["## How it was made"]
    yield made(refresh)
    yield ["## Data"]
    yield data(refresh)
    yield ["## Limits"]
    yield [f"- {plain(said)}" for said in limits(refresh, beside)]
    yield ["## Energy and cost"]
    yield [plain(" ".join(energy.sentences(energy.spent(refresh, beside))))]


def plain(said: str) -> str:
    """Names come from files: none of them is markup, and none breaks a line of a table."""
    return SPECIAL.sub(r"\\\1", " ".join(said.split()))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def results(items: Sequence[Comparison]) -> list[str]:
    if not items:
        return [f"Comparisons: {wording.ABSENT}."]
    head = ("Benchmark", "Source", "Metric", "Items", "Parent", "This model", "Change", "Least seen", "Outcome")
    rows = [
        (c.benchmark, c.source, METRICS[c.metric][1], f"{c.items:,}", *numbers(c), least(c), c.outcome) for c in items
    ]
    return table([head, *rows])


def numbers(item: Comparison) -> tuple[str, str, str]:
    show = wording.share if item.metric == "accuracy" else wording.loss
    change = item.relative or item.difference
    digits = wording.digits_for(change)
    values = (worded(item, x, digits) for x in (change.value, change.low, change.high))
    value, low, high = values
    return show(item.parent.value), show(item.candidate.value), f"{value} ({wording.span(low, high)})"


def worded(item: Comparison, x: float | None, digits: int) -> str:
    if item.metric == "bits_per_byte" and item.relative is None:
        return wording.loss(x)
    return (wording.points if item.metric == "accuracy" else wording.change)(x, digits)


def least(item: Comparison) -> str:
    if unseen(item):
        return "none"
    return worded(item, item.detectable, 1).lstrip("+") if item.detectable is not None else wording.ABSENT


def made(refresh: Refresh) -> list[str]:
    choice, lineage = refresh.choice, refresh.lineage
    rows = [
        ("Parent", lineage.parent),
        ("Base", refresh.base),
        ("Licence of the base", lineage.license or "none declared"),
        ("Mixture", f"{wording.share(choice.share)} domain text, {wording.share(1 - choice.share)} general text"),
        ("Why this share", choice.reason),
        ("Law", f"{choice.law}: largest share under the ceiling {ends(choice.interval, wording.share)}"),
        ("Tokens", wording.compact(choice.tokens)),
        ("Parameters without embeddings", wording.compact(choice.params_non_embedding)),
    ]
    for it in facts.predictions(refresh):
        foretold = f"predicted {wording.loss(it.predicted.value)} ({ends(it.predicted, wording.loss)})"
        rows.append(
            (f"{it.role.capitalize()} loss, nats per token", f"{foretold}, measured {wording.loss(it.measured)}")
        )
    rows += [("Commit", lineage.commit or wording.ABSENT), ("Parameters, digest", lineage.config)]
    return table([("What", "Value"), *rows])


def ends(found: Interval, show: Any) -> str:
    return f"{wording.span(show(found.low), show(found.high))} at {wording.share(found.confidence)}"


def data(refresh: Refresh) -> list[str]:
    found = facts.corpora(refresh)
    lines = []
    if found:
        rows = [(c.source, c.role, wording.compact(c.tokens), wording.whole(c.held_out_documents)) for c in found]
        lines += [*table([("Source", "Role", "Tokens", "Held-out documents"), *rows]), ""]
    if refresh.lineage.editions:
        lines += table([("Edition", "DVC hash"), *refresh.lineage.editions.items()])
    return lines or [f"Editions: {wording.ABSENT}."]


def limits(refresh: Refresh, beside: Beside) -> Iterator[str]:
    yield "Measured on held-out text of the sources above and documents like them; nothing is known of other text."
    yield "Trained on plain text: what the base could follow or refuse of instructions may have changed, unmeasured."
    yield from refresh.choice.warnings
    if refresh.lineage.dirty:
        yield "Made from a working tree with uncommitted changes: the commit alone does not make it again."
    tied = [c for c in refresh.verdict.comparisons if c.outcome == "tie"]
    for item in tied:
        if unseen(item):
            yield f"{item.benchmark} on {item.source}: so few documents that no change could have been seen."
        elif item.detectable is not None:
            yield f"{item.benchmark} on {item.source}: a change below {least(item)} would likely not have been seen."
    wrong = sum(f.negative for f in refresh.verdict.flips if f.against == "parent")
    if wrong:
        yield f"{wrong:,} answers that the parent had right are wrong."
    if (noise := beside.found.get("noise")) is not None and noise.alarm:
        yield noise.said
    yield from (alarm.said for alarm in getattr(beside.found.get("trajectory"), "alarms", ()))
