"""How every model of a line scored on the text of every refresh, kept under `.ratoon/history/<line>/`.

`history.json` (History), `slices/<name>/` (the kept text, and the ids of all that came with it) and
`scores/<row>/<slice>.parquet` (bits and bytes of every document). A slice is what one refresh brought of one source or
portion; it is cut once and stays, so that two rows are compared on the same bytes whatever the corpus has become.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import Field

from ratoon.config import AssessConfig, ConfigError, HistoryConfig, Role
from ratoon.evaluation import matrix, slices
from ratoon.evaluation.held_out import Document, held_out_documents
from ratoon.evaluation.slices import Place
from ratoon.records import Record, read, write

FILE = "history.json"
IDS = "ids.parquet"


class Slice(Record):
    """What one refresh brought of one source or portion, as far as it is kept."""

    name: str
    source: str = Field(description="source or portion")
    role: Role
    watched: bool = Field(False, description="scored, never trained on")
    refresh: str = Field(description="the row it came with")
    number: int = Field(description="of the batch, from 1")
    documents: int
    bytes: int
    arrived: int = Field(description="held-out documents that came; of these the kept ones were chosen")
    first_date: str | None = None
    last_date: str | None = None


class Row(Record):
    """A model of the line. The first is the base."""

    name: str = Field(description="the base's, or of the refresh's folder")
    label: str
    version: int | None = None
    parent: str | None = Field(None, description="name of the row it was continued from; none: the base")
    promoted: bool | None = None
    started: str | None = Field(None, description="of the refresh, ISO 8601")
    slices: tuple[str, ...] = Field((), description="those its text held")
    settings: dict[str, int | str] = Field(default_factory=dict, description="that the scores depend on")
    scores: dict[str, float] = Field(default_factory=dict, description="slice -> bits per byte; left out: not asked")
    spoiled: tuple[str, ...] = Field((), description="slices whose text may be trained on since held_out.share fell")
    waiting: tuple[str, ...] = Field((), description="held-out documents its text held, too few for a slice yet: ids")


class History(Record):
    line: str
    rows: tuple[Row, ...] = ()
    slices: tuple[Slice, ...] = ()

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def with_row(self, row: Row) -> "History":
        """`row` in the place of the one of that name, or at the end."""
        if self.row(row.name) is None:
            return self.model_copy(update={"rows": (*self.rows, row)})
        return self.model_copy(update={"rows": tuple(row if each.name == row.name else each for each in self.rows)})

    def chain(self, name: str) -> list[Row]:
        """From the base to `name`, each continued from the one before."""
        found: list[Row] = []
        row = self.row(name)
        while row is not None and row not in found:
            found.insert(0, row)
            row = self.row(row.parent) if row.parent else None
        return found


def load(folder: Path, line: str) -> History:
    return read(folder / FILE, History) if (folder / FILE).exists() else History(line=line)


def save(folder: Path, history: History) -> None:
    write(folder / FILE, history)


def newest(history: History) -> Row:
    """The last refresh that was scored. Raises ConfigError where there is none."""
    made = [row for row in history.rows if row.slices and row.scores]
    if not made:
        raise ConfigError(f"{history.line}: no refresh was scored on its own text yet; run `ratoon refresh`")
    return max(made, key=lambda row: row.started or "")


# ---------------------------------------------------------------- text that is kept


def gather(
    folder: Path, history: History, places: Mapping[str, Place], refresh: str, config: AssessConfig, share: float
) -> History:
    """Keep what this refresh brought: of every source or portion the held-out documents no slice has seen.

    share   prepare.held_out.share, by which their texts are held out

    What was kept for this refresh before, killed or not, stays as it is.
    """
    asked = config.history or HistoryConfig()
    known = {key for each in history.slices if each.refresh != refresh for key in ids(folder, each)}
    number = _number(history, refresh)
    for source, place in sorted(places.items()):
        name = f"{source}.r{number}"
        if any(each.name == name for each in history.slices):
            continue
        new: list[str] = []
        kept = slices.chosen(_unseen(place.clean, known, new), asked.documents, config.seed)
        if len(kept) < asked.min_documents:
            continue
        made = Slice(
            name=name,
            source=source,
            role=place.role,
            watched=place.watched,
            refresh=refresh,
            number=number,
            documents=len(kept),
            bytes=_keep(folder / "slices" / name, kept, new, config.max_bytes, share),
            arrived=len(new),
            **_dates(kept),
        )
        history = history.model_copy(update={"slices": (*history.slices, made)})
        save(folder, history)
    return history


def waiting(folder: Path, history: History, places: Mapping[str, Place], refresh: str) -> tuple[str, ...]:
    """Ids of the held-out documents of this refresh's text that no slice holds yet: fewer than min_documents of each
    source. They are no slice's, and yet not new to its model."""
    known = {key for each in history.slices for key in ids(folder, each)}
    made = {each.source for each in history.slices if each.refresh == refresh}
    left = (place.clean for source, place in sorted(places.items()) if source not in made)
    return tuple(document.id for clean in left for document in held_out_documents(clean) if document.id not in known)


def _unseen(clean: Path, known: set[str], new: list[str]) -> Iterator[Document]:
    """Documents that no slice has seen; their ids go to `new`."""
    for document in held_out_documents(clean):
        if document.id not in known:
            new.append(document.id)
            yield document


def _number(history: History, refresh: str) -> int:
    own = [each.number for each in history.slices if each.refresh == refresh]
    return own[0] if own else 1 + max((each.number for each in history.slices), default=0)


def _keep(out: Path, kept: list[Document], new: list[str], max_bytes: int, share: float) -> int:
    import pyarrow
    import pyarrow.parquet as parquet

    from ratoon.corpus.clean import held_out, text_key

    keys = [text_key(document.text) for document in kept]
    # None: held out for another reason than its own text, which says nothing of later editions.
    size = slices.keep(kept, max_bytes, out, {"key": [key if held_out(key, share) else None for key in keys]})
    parquet.write_table(pyarrow.table({"id": new}), out / IDS, compression="zstd")
    return size


def _dates(kept: list[Document]) -> dict[str, str | None]:
    dated = sorted(document.date for document in kept if document.date)
    return {"first_date": dated[0] if dated else None, "last_date": dated[-1] if dated else None}


def ids(folder: Path, kept: Slice) -> list[str]:
    """Of all held-out documents that came with it."""
    return list(_column(folder / "slices" / kept.name / IDS, "id"))


def spoiled(folder: Path, history: History, share: float) -> tuple[str, ...]:
    """Slices with text that is no longer held out: it may be trained on, and says nothing of forgetting then."""
    from ratoon.corpus.clean import held_out

    found = []
    for each in history.slices:
        keys = _column(folder / "slices" / each.name / slices.FILE, "key")
        if not each.watched and any(key is not None and not held_out(key, share) for key in keys):
            found.append(each.name)
    return tuple(found)


def _column(file: Path, name: str) -> Iterator:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        yield from parquet.read_table(file, columns=[name]).column(name).to_pylist()
    except (ArrowException, OSError, KeyError) as error:
        raise ConfigError(
            f"{file}: kept text is missing or damaged: {error}\n  bring the file back, or delete the folder "
            f"{file.parents[1].parent} and with it what is known of earlier refreshes"
        ) from error


# ---------------------------------------------------------------- scores


def file_of(folder: Path, row: str, slice_name: str) -> Path:
    return folder / "scores" / row / f"{slice_name}.parquet"


def record(folder: Path, row: Row, scores: Path, names: Mapping[str, str]) -> Row:
    """`row` with what the score folder says; `names`: task -> slice. Every document is kept."""
    import pyarrow
    import pyarrow.parquet as parquet

    found = dict(row.scores)
    for task, name in names.items():
        documents, bits, sizes = slices.bits_of(scores, task)
        file = file_of(folder, row.name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}")
        columns = {"document": documents, "bits": bits, "bytes": sizes}
        parquet.write_table(pyarrow.table(columns), beside, compression="zstd")
        beside.replace(file)
        found[name] = sum(bits) / sum(sizes)
    return row.model_copy(update={"scores": found})


def column(folder: Path, rows: list[Row], kept: Slice) -> matrix.Slice:
    """One slice over the rows of a chain; a row that was not asked is NaN."""
    import pyarrow.parquet as parquet

    documents: list[str] = []
    sizes = np.empty(0)
    bits: dict[int, np.ndarray] = {}
    for number, row in enumerate(rows):
        if kept.name not in row.scores:
            continue
        found = parquet.read_table(file_of(folder, row.name, kept.name))
        if documents and found["document"].to_pylist() != documents:
            raise ConfigError(
                f"{folder}: {rows[number].label} was scored on other documents of {kept.name} than those before it; "
                f"delete {folder / 'scores' / row.name} and run the refresh again with --force"
            )
        documents = found["document"].to_pylist()
        sizes = found["bytes"].to_numpy().astype(np.float64)
        bits[number] = found["bits"].to_numpy()
    table = np.full((len(rows), len(documents)), np.nan)
    for number, values in bits.items():
        table[number] = values
    return matrix.Slice(table, sizes)


def safe(name: str) -> str:
    """As part of a file's name."""
    return re.sub(r"[^\w.-]", "-", name)
