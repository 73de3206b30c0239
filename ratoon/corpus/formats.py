"""Files to records: text, JSON lines, Parquet and CSV, plain or compressed.

A record that cannot be read is an answer (`Bad`), not an error; a file that cannot be read at all raises
ConfigError. Text is kept as it is, newlines included; only a byte order mark at the head of a file is not text.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from ratoon.config import Columns, ConfigError, WebPages

BOM = b"\xef\xbb\xbf"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
ARCHIVES = frozenset({".warc", ".wet"})
# Objects and lists within each other in a line of JSON. Below it no reader of ours runs out of stack, wherever it is
# called from, so that what is dropped depends on the line alone.
MOST_NESTED = 300

INVALID_UTF8, NUL, EMPTY = "invalid UTF-8", "NUL bytes", "empty text"
NOT_JSON, NOT_OBJECT, NO_TEXT, NOT_STRING = "not JSON", "not a JSON object", "no text", "text is not a string"
NOT_CSV, NOT_UNICODE = "not CSV", "not valid Unicode"


class Record(NamedTuple):
    """One text with everything that came with it."""

    place: str  # file, or file:line
    text: str
    fields: dict[str, Any]


class Bad(NamedTuple):
    place: str
    reason: str
    num_bytes: int


Reader = Callable[[BinaryIO, str, Columns], Iterator[Record | Bad]]


def suffix(name: str) -> str:
    """The suffix that decides the format: '.jsonl' for 'a.jsonl.gz'."""
    path = _member(name)
    return PurePosixPath(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


def _member(name: str) -> PurePosixPath:
    """The file itself in a chained URL: the first link with a path ('zip://a.txt::s3://b/c.zip' is a.txt)."""
    links = name.lower().split("::")
    return PurePosixPath(next((link for link in links if "://" in link), links[0]))


def compression_of(name: str) -> str | None:
    return COMPRESSIONS.get(_member(name).suffix)


def readable(name: str) -> bool:
    return suffix(name) in READERS or suffix(name) in ARCHIVES


def allowed() -> str:
    return f"{' '.join(sorted([*READERS, *ARCHIVES]))}, each also with .gz or .zst"


def read(file: BinaryIO, name: str, columns: Columns, web: WebPages = WebPages()) -> Iterator[Record | Bad]:  # noqa: B008
    """The records of the open file `name`, in order.

    Raises ConfigError for a file that is damaged, cut short or lacks the declared column.
    """
    if suffix(name) in ARCHIVES:
        from ratoon.corpus.web.archive import read_archive

        yield from (sound(item) for item in read_archive(file, name, columns, web))
        return
    compression = compression_of(name)
    # Arrow's stream, unlike zstandard's own, tells a cut file from one that ends.
    plain: Any = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression) if compression else file
    buffered: Any = io.BufferedReader(plain, 1 << 20) if compression else file
    try:
        yield from (sound(item) for item in READERS[suffix(name)](buffered, name, columns))
    except (pa.ArrowInvalid, EOFError) as error:
        raise ConfigError(f"{name}: damaged or cut short ({error}); fetch the file again or remove it") from error
    except (ConnectionError, TimeoutError):
        raise  # may heal
    except OSError as error:
        # Arrow reports damage inside a compressed stream as an OSError without errno.
        if error.errno is not None or not compression:
            raise ConfigError(f"{name}: could not be read: {error.strerror or error}; check the file") from error
        raise ConfigError(f"{name}: damaged or cut short ({error}); fetch the file again or remove it") from error


def sound(item: Record | Bad) -> Record | Bad:
    """The record itself, unless its text is empty or no text at all."""
    if isinstance(item, Bad):
        return item
    try:
        size = len(item.text.encode())
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return Bad(item.place, NOT_UNICODE, len(item.text.encode("utf-8", "replace")))
    if "\0" in item.text:
        return Bad(item.place, NUL, size)
    return item if item.text.strip() else Bad(item.place, EMPTY, size)


def read_text(file: BinaryIO, name: str, columns: Columns) -> Iterator[Record | Bad]:
    """The whole file is one document."""
    raw = file.read().removeprefix(BOM)
    try:
        yield Record(name, raw.decode(), {})
    except UnicodeDecodeError as error:
        yield Bad(f"{name}: byte {error.start}", INVALID_UTF8, len(raw))


def read_json_lines(file: BinaryIO, name: str, columns: Columns) -> Iterator[Record | Bad]:
    for number, raw in enumerate(file, start=1):
        line = raw.removeprefix(BOM) if number == 1 else raw
        if line.strip():
            yield _json_line(line, f"{name}:{number}", columns.text)


def _json_line(line: bytes, place: str, column: str) -> Record | Bad:
    if b"\0" in line:
        return Bad(place, NUL, len(line))
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError:
        return Bad(place, INVALID_UTF8, len(line))
    except (ValueError, RecursionError):
        return Bad(place, NOT_JSON, len(line))
    if _too_deep(fields, line):
        return Bad(place, NOT_JSON, len(line))
    if not isinstance(fields, dict):
        return Bad(place, NOT_OBJECT, len(line))
    return take(fields, place, column, len(line))


def _too_deep(value: Any, line: bytes) -> bool:
    if line.count(b"[") + line.count(b"{") <= MOST_NESTED:
        return False
    level = [value]
    for _ in range(MOST_NESTED):
        level = [item for each in level for item in _items(each) if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def take(fields: dict[str, Any], place: str, column: str, num_bytes: int) -> Record | Bad:
    """The record whose text is in `column`; the other fields stay with it."""
    text = fields.pop(column, None)
    if text is None:
        return Bad(place, NO_TEXT, num_bytes)
    if not isinstance(text, str):
        return Bad(place, NOT_STRING, num_bytes)
    return Record(place, text, fields)


def read_parquet(file: BinaryIO, name: str, columns: Columns) -> Iterator[Record | Bad]:
    import pyarrow.parquet as parquet

    # Parquet is read from its end, so one that is compressed as a whole is unpacked in memory first.
    table = parquet.ParquetFile(file if file.seekable() else pa.BufferReader(file.read()))
    schema = table.schema_arrow
    if columns.text not in schema.names:
        raise ConfigError(_no_column(name, columns.text, schema.names))
    if schema.names.count(columns.text) > 1:
        raise ConfigError(f"{name}: several columns are named {columns.text!r}; write the file with one of each name")
    kind = schema.field(columns.text).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ConfigError(f"{name}: column {columns.text!r} holds {kind}, not strings; name another as columns.text")
    number = 0
    for batch in table.iter_batches(batch_size=256):
        for index in range(batch.num_rows):
            number += 1
            try:
                fields = {key: _cell(batch.column(i)[index]) for i, key in enumerate(schema.names)}
            except UnicodeDecodeError:
                yield Bad(f"{name}:{number}", INVALID_UTF8, 0)
            else:
                yield take(fields, f"{name}:{number}", columns.text, 0)


def _cell(cell: Any) -> Any:
    """As Python has it; what Python cannot hold (a day after 9999, a long duration) as Arrow writes it, else None."""
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError, KeyError):  # KeyError: a time zone nobody knows
        try:
            return cell.cast(pa.string()).as_py()
        except pa.ArrowException:
            return None


def read_csv(file: BinaryIO, name: str, columns: Columns) -> Iterator[Record | Bad]:
    # Invalid bytes pass as surrogates, so that one bad cell costs one record and not the file.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True)
    with _long_fields():
        header = _header(reader, name, columns.text)
        while True:
            lines.sizes.clear()
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                yield from _swallowed(lines, name, reader.line_num, error)
                continue
            if row:
                yield _csv_row(header, row, f"{name}:{reader.line_num}", columns.text)
    text.detach()


class _Lines:
    """The lines of a file for a reader of rows, and what the row being read has taken of them."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text = text
        self.sizes: list[int] = []  # bytes of each
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not (line := self.text.readline()):
            self.ended = True
            raise StopIteration
        self.sizes.append(_size(line))
        return line


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _swallowed(lines: _Lines, name: str, last: int, error: csv.Error) -> Iterator[Bad]:
    """A row that is no CSV: a record lost for each of its lines, so that their share shows how much went with it."""
    first = last - len(lines.sizes) + 1
    if lines.ended:
        raise ConfigError(
            f"{name}:{first}: a quote opened in this row is never closed, and takes all that follows with it to the "
            f"end of the file, line {last}\n  close it, double a quote that is text, or fetch the whole file again"
        ) from error
    for size in lines.sizes:
        yield Bad(f"{name}:{first}", NOT_CSV, size)


def _header(reader: Any, name: str, column: str) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise ConfigError(f"{name}: the first line is no CSV header ({error}); write the column names there") from error
    if column not in header:
        raise ConfigError(_no_column(name, column, header))
    return header


def _csv_row(header: list[str], row: list[str], place: str, column: str) -> Record | Bad:
    num_bytes = sum(map(_size, row))
    if len(row) != len(header):
        return Bad(place, f"{NOT_CSV}: {len(row)} cells under {len(header)} column names", num_bytes)
    if any("\udc80" <= letter <= "\udcff" for cell in row if not cell.isascii() for letter in cell):
        return Bad(place, INVALID_UTF8, num_bytes)
    return take(dict(zip(header, row, strict=True)), place, column, num_bytes)


@contextmanager
def _long_fields() -> Iterator[None]:
    # The csv module refuses cells above 128 KiB unless told otherwise, for the whole process at once.
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _no_column(name: str, column: str, found: list[str]) -> str:
    return (
        f"{name}: no column {column!r}; it has {', '.join(map(repr, found)) or 'none'}\n"
        f"  to read another one, name it as columns.text in the source's declaration"
    )


def as_json(fields: dict[str, Any]) -> str | None:
    """Fields as JSON text any reader accepts, None for none; what JSON has no word for becomes a string."""
    return json.dumps(_plain(fields), default=str, sort_keys=True) if fields else None


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".markdown": read_text,
    ".rst": read_text,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".csv": read_csv,
}
