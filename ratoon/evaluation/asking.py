"""Items of a file as a model is asked them: one list of items per prompt, development items apart.

Which documents are for development is a hash of the document alone: more items, other seeds or other prompts never
move one to the other side. Examples shown before a question are development items of other documents.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ratoon.config import Asked, Benchmark, ConfigError, Items, LmEval, Prompt
from ratoon.corpus.decontaminate.questions import Question, questions, records
from ratoon.evaluation.passages import rank
from ratoon.evaluation.standard import check_fetched

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Lines = list[dict[str, Any]]


class Asking(NamedTuple):
    """Prompt -> items, the same ones in the same order under each. Of one prompt there is no development part."""

    kind: Asked
    test: dict[str, Lines]
    development: dict[str, Lines]


def ask(benchmark: Benchmark, root: Path) -> Asking:
    """Raises ConfigError where the items are not as declared, or too few."""
    form = benchmark.form
    if isinstance(form, LmEval):
        return fetched(benchmark, form, root)
    assert isinstance(form, Items)
    assert form.ask
    found = questions(benchmark, root)
    kept = [one for one in found if form.picks and for_development(benchmark.name, one.document, form.development)]
    apart = {one.document for one in kept}
    chosen = most([one for one in found if one.document not in apart], form.most, benchmark.name)
    if form.picks:
        _develops(benchmark, form, kept, max(prompt.shots for prompt in form.prompts))

    def made(items: Sequence[Question]) -> dict[str, Lines]:
        return {p.name: [item(one, form, p, examples(one, kept, p)) for one in items] for p in form.prompts}

    return Asking(form.ask, made(chosen), made(kept) if len(form.prompts) > 1 else {})


def for_development(benchmark: str, document: str, share: float) -> bool:
    return rank("development", benchmark, document) < share * 2**64


def most(items: list[Question], count: int | None, benchmark: str) -> list[Question]:
    """Those whose hash is smallest, in the order they come: a file that grows changes few."""
    chosen = set(smallest([one.id for one in items], count, benchmark))
    return [one for one in items if one.id in chosen]


def smallest(ids: list[str], count: int | None, benchmark: str) -> list[str]:
    return sorted(ids, key=lambda name: rank("asked", benchmark, name))[:count]


def _develops(benchmark: Benchmark, form: Items, kept: Sequence[Question], shots: int) -> None:
    documents = len({one.document for one in kept})
    wanted = max(shots + 1, 2)
    if documents < wanted:
        raise ConfigError(
            f"benchmark {benchmark.name!r}: {documents} documents of {form.path} are for development "
            f"(form.development: {form.development:g}); {wanted} are needed to choose between {len(form.prompts)} "
            f"prompts with up to {shots} examples\n  raise the share, add items, or declare one prompt without shots"
        )


def fetched(benchmark: Benchmark, form: LmEval, root: Path) -> Asking:
    """Items of lm-eval with their prompts and examples in them."""
    check_fetched(benchmark.name, form, root / "data" / "benchmarks" / benchmark.name)
    lines = [line for _, line in records(benchmark, root)]
    chosen = set(smallest([line["id"] for line in lines], form.most, benchmark.name))
    lines = [line for line in lines if line["id"] in chosen]
    kind: Asked = "rolling" if "text" in lines[0] else "choice" if "choices" in lines[0] else "generation"
    return Asking(kind, {"": [{key: line[key] for key in line if key != "question"} for line in lines]}, {})


# ---------------------------------------------------------------- one item


def examples(asked: Question, kept: Sequence[Question], prompt: Prompt) -> list[Question]:
    """Development items of other documents, drawn by the hash of the prompt's name."""
    if not prompt.shots:
        return []
    others = [one for one in kept if one.document != asked.document]
    return sorted(others, key=lambda one: rank("example", prompt.name, one.id))[: prompt.shots]


def item(asked: Question, form: Items, prompt: Prompt, shown: Sequence[Question]) -> dict[str, Any]:
    named = {"id": asked.id, "document": asked.document}
    if form.ask == "rolling":
        return {**named, "text": asked.question}
    before = "".join(question(one, prompt) + prompt.delimiter + answer(one, prompt) + prompt.between for one in shown)
    text = before + question(asked, prompt)
    if form.ask == "choice":
        return {
            **named,
            "context": text,
            "choices": [prompt.delimiter + one for one in options(asked, prompt)],
            "gold": asked.gold,
        }
    valid = {"labels": list(form.labels)} if form.labels else {"pattern": form.pattern} if form.pattern else {}
    limits = {"until": list(form.until), "max_tokens": form.max_tokens}
    return {**named, "prompt": text, "answers": list(asked.answers), **limits, **valid}


def question(asked: Question, prompt: Prompt) -> str:
    listed = "\n".join(f"{LETTERS[place]}. {choice.strip()}" for place, choice in enumerate(asked.choices[:26]))
    values = {"question": asked.question, "choices": listed}
    # Not str.format: the template may hold other braces.
    return re.sub(r"\{(question|choices)\}", lambda found: values[found[1]], prompt.template)


def options(asked: Question, prompt: Prompt) -> Sequence[str]:
    """What is scored: the choices, or the letters they are listed under."""
    if "{choices}" not in prompt.template:
        return asked.choices
    if len(asked.choices) > len(LETTERS):
        raise ConfigError(
            f"prompt {prompt.name!r}: item {asked.id!r} has {len(asked.choices)} choices; "
            f"at most {len(LETTERS)} are listed: leave {{choices}} out of the template"
        )
    return LETTERS[: len(asked.choices)]


def answer(asked: Question, prompt: Prompt) -> str:
    return options(asked, prompt)[asked.gold] if asked.gold is not None else asked.answers[0]


# ---------------------------------------------------------------- to look at


def shown(benchmark: Benchmark, root: Path, number: int, seed: int) -> Lines:
    """Some items of each kind that the file names (of all, where it names none), drawn by hash."""
    kinds: dict[str, list[Question]] = {}
    lines = (line for _, line in records(benchmark, root))
    for one, line in zip(questions(benchmark, root), lines, strict=True):
        kinds.setdefault(str(line.get("kind") or ""), []).append(one)
    return [
        {"kind": kind, **one._asdict()}
        for kind, found in kinds.items()
        for one in sorted(found, key=lambda one: rank("shown", seed, one.id))[:number]
    ]
