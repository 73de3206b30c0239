"""Files of items, read as their declaration says: what is asked, the choices, the answers."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ratoon.config import Benchmark, ConfigError, ItemColumns, Items


class Question(NamedTuple):
    """`answers` are texts: of a choice its words, not its number, which is `gold`."""

    id: str
    document: str
    question: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    gold: int | None = None


def questions(benchmark: Benchmark, root: Path) -> tuple[Question, ...]:
    """In the order of the file.

    Raises ConfigError with the line of the first record that is not what the declaration says.
    """
    found = list(records(benchmark, root))
    if not isinstance(benchmark.form, Items):
        return tuple(_questions(found, fetched(found[0][1])))
    asked = tuple(_questions(found, benchmark.form.columns))
    if benchmark.form.ask == "choice" and benchmark.form.columns.choices:
        # A standard task is taken as its makers left it, equal choices and all: its known scores are of those.
        for (place, _), question in zip(found, asked, strict=True):
            _told_apart(question.choices, benchmark.form.columns.choices, place)
    return asked


def place_of(benchmark: Benchmark, root: Path, name: str) -> str:
    """File and line of the item of this id."""
    found = zip(records(benchmark, root), questions(benchmark, root), strict=True)
    return next(place for (place, _), one in found if one.id == name)


def records(benchmark: Benchmark, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(its place, a line of the file), for every line that is not empty."""
    assert benchmark.items
    where = f"benchmark {benchmark.name!r}: {benchmark.items}"
    path = root / benchmark.items
    if not path.is_file():
        todo = (
            "put the items there, or correct form.path in data/benchmarks"
            if isinstance(benchmark.form, Items)
            else f"`ratoon bench fetch {benchmark.name}` writes it, from the cache of datasets or the hub"
        )
        raise ConfigError(f"{where}: not found; {todo}")
    empty = True
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                empty = False
                yield _record(line, f"{where}:{number}")
    if empty:
        raise ConfigError(f"{where}: holds no item; a benchmark of nothing protects from nothing")


def _record(line: bytes, place: str) -> tuple[str, dict[str, Any]]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: not JSON: {error}; one object a line is read") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{place}: found {type(record).__name__}; one object a line is read")
    return place, record


def fetched(record: dict[str, Any]) -> ItemColumns:
    """Where things are in the items that `ratoon bench fetch` writes."""
    if "text" in record:
        return ItemColumns(question="text", answer=None, id="id", document="document")
    choices = "choices" if "choices" in record else None
    answer = "gold" if choices else "answers"
    return ItemColumns(question="question", answer=answer, choices=choices, id="id", document="document")


# ---------------------------------------------------------------- columns


def _questions(records: Iterable[tuple[str, dict[str, Any]]], columns: ItemColumns) -> Iterator[Question]:
    seen, first = dict[str, str](), dict[tuple[str, ...], str]()
    for number, (place, record) in enumerate(records):
        name = _text(_value(record, columns.id, place), columns.id, place) if columns.id else str(number)
        if name in seen:
            raise ConfigError(f"{place}: id {name!r} is that of {seen[name]} too; give each item its own")
        seen[name] = place
        made = _question(record, columns, name, place)
        if columns.document:
            document = _text(_value(record, columns.document, place), columns.document, place)
        else:  # asked again, a question tells nothing new: copies are one document
            document = first.setdefault((made.question, *made.choices), name)
        yield made._replace(document=document)


def _question(record: dict[str, Any], columns: ItemColumns, name: str, place: str) -> Question:
    """As if it were a document of its own."""
    question = _text(_value(record, columns.question, place), columns.question, place)
    if not columns.answer:
        return Question(name, name, question)
    if columns.choices:
        texts, gold = _choice(record, columns, place)
        return Question(name, name, question, (texts[gold],), texts, gold)
    return Question(name, name, question, _answers(_value(record, columns.answer, place), columns, place))


def _value(record: dict[str, Any], column: str, place: str) -> Any:
    if column not in record:
        raise ConfigError(f"{place}: no column {column!r}; there are {', '.join(sorted(record)) or 'none'}")
    return record[column]


def _text(value: Any, column: str, place: str) -> str:
    """Numbers are their digits; a list of texts is not one text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{place}: column {column!r} is {type(value).__name__}; a text or a number is read")
    # Arrow holds no lone surrogates.
    return str(value).encode("utf-8", "backslashreplace").decode()


def _answers(value: Any, columns: ItemColumns, place: str) -> tuple[str, ...]:
    assert columns.answer
    if not isinstance(value, list):
        return (_text(value, columns.answer, place),)
    if not value:
        raise ConfigError(f"{place}: column {columns.answer!r} is an empty list; an item needs an answer")
    return tuple(_text(one, columns.answer, place) for one in value)


def _choice(record: dict[str, Any], columns: ItemColumns, place: str) -> tuple[tuple[str, ...], int]:
    """The choices, and which is right: by its text, or looked up by its number or letter."""
    assert columns.answer
    assert columns.choices
    value, choices = _value(record, columns.answer, place), _value(record, columns.choices, place)
    if not isinstance(choices, list) or not choices:
        raise ConfigError(f"{place}: column {columns.choices!r} is no list of choices")
    texts = tuple(_text(choice, columns.choices, place) for choice in choices)
    if isinstance(value, str) and value in texts:
        return texts, texts.index(value)
    number = _number(value)
    if number is None or not 0 <= number < len(texts):
        raise ConfigError(
            f"{place}: column {columns.answer!r} is {value!r}: none of the {len(texts)} choices, nor the number "
            f"(from 0) or letter (from A) of one"
        )
    return texts, number


def _told_apart(choices: tuple[str, ...], column: str, place: str) -> None:
    """Refuses choices among which there is nothing to choose."""
    plain = [choice.strip() for choice in choices]
    if len(plain) < 2:
        problem = "holds one choice, which is always right"
    elif "" in plain:
        problem = f"holds an empty choice, number {plain.index('')}"
    elif twice := next((choice for choice in plain if plain.count(choice) > 1), None):
        problem = f"holds {twice!r} more than once, and one of them counts as wrong"
    else:
        return
    raise ConfigError(f"{place}: column {column!r} {problem}; give two or more choices, each another text")


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    if isinstance(value, str) and len(value) == 1 and value.isascii() and value.isalpha():
        return ord(value.upper()) - ord("A")
    return None
