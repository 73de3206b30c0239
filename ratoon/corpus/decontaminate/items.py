"""What is looked for: the items of declared benchmarks."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ratoon.config import Benchmark, ConfigError, Items


class Item(NamedTuple):
    """`answer` is text: of a choice its words, not its number."""

    id: str
    question: str
    answer: str = ""


class Target(NamedTuple):
    """Items that are looked for together."""

    name: str
    items: tuple[Item, ...]
    coverage: float
    least: int  # items of fewer words are not looked for
    kind: str = "benchmark"  # or held_out: documents that only other documents must not hold


def read(benchmark: Benchmark, root: Path) -> tuple[Item, ...]:
    """The items of a benchmark of kind items, in the order of its file.

    Raises ConfigError with the line of the first record that is not what the declaration says.
    """
    form = benchmark.form
    assert isinstance(form, Items)
    where = f"benchmark {benchmark.name!r}: {form.path}"
    path = root / form.path
    if not path.is_file():
        raise ConfigError(f"{where}: not found; put the items there, or correct form.path in data/benchmarks")
    found = tuple(_items(_records(path, where), form, where))
    if not found:
        raise ConfigError(f"{where}: holds no item; a benchmark of nothing protects from nothing")
    return found


def _records(path: Path, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{where}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{place}: not JSON: {error}; one object a line is read") from None
            if not isinstance(record, dict):
                raise ConfigError(f"{place}: found {type(record).__name__}; one object a line is read")
            yield place, record


def _items(records: Iterable[tuple[str, dict[str, Any]]], form: Items, where: str) -> Iterator[Item]:
    columns, seen = form.columns, dict[str, str]()
    for number, (place, record) in enumerate(records):
        id_ = _text(_value(record, columns.id, place), columns.id, place) if columns.id else str(number)
        if id_ in seen:
            raise ConfigError(f"{place}: id {id_!r} is that of {seen[id_]} too; give each item its own")
        seen[id_] = place
        question = _text(_value(record, columns.question, place), columns.question, place)
        yield Item(id_, question, _answer(record, form, place) if columns.answer else "")


def _value(record: dict[str, Any], column: str, place: str) -> Any:
    if column not in record:
        raise ConfigError(f"{place}: no column {column!r}; there are {', '.join(sorted(record)) or 'none'}")
    return record[column]


def _text(value: Any, column: str, place: str) -> str:
    """Numbers are their digits; a list of texts, such as answers that are right alike, is not one text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{place}: column {column!r} is {type(value).__name__}; a text or a number is read")
    # Arrow holds no lone surrogates.
    return str(value).encode("utf-8", "backslashreplace").decode()


def _answer(record: dict[str, Any], form: Items, place: str) -> str:
    """The text of the answer: looked up in the choices where it is their number or letter."""
    assert form.columns.answer
    value = _value(record, form.columns.answer, place)
    if not form.columns.choices:
        return _text(value, form.columns.answer, place)
    choices = _value(record, form.columns.choices, place)
    if not isinstance(choices, list) or not choices:
        raise ConfigError(f"{place}: column {form.columns.choices!r} is no list of choices")
    texts = [_text(choice, form.columns.choices, place) for choice in choices]
    if isinstance(value, str) and value in texts:
        return value
    number = _number(value)
    if number is None or not 0 <= number < len(texts):
        raise ConfigError(
            f"{place}: column {form.columns.answer!r} is {value!r}: none of the {len(texts)} choices, nor the number "
            f"(from 0) or letter (from A) of one"
        )
    return texts[number]


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    if isinstance(value, str) and len(value) == 1 and value.isascii() and value.isalpha():
        return ord(value.upper()) - ord("A")
    return None
