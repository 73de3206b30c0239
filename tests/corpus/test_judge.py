"""Judges: the first reason wins, nobody is asked twice, and what is noted is complete for what is kept."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from small_sources import lines, notes, recipe, sentence, tree

from ratoon.config import DateFilter, LanguageFilter, LicenseFilter, Toxicity
from ratoon.corpus import clean as room
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import SCHEMA, rows
from ratoon.corpus.edition import shards
from ratoon.corpus.judge import COLUMNS, Court, Documents, Findings
from ratoon.corpus.judges import judges
from ratoon.corpus.sources import ingest

HUNDRED = [sentence(i) for i in range(100)]


class Long(NamedTuple):
    """Notes the length; drops what is longer than asked."""

    most: int
    name: str
    heard: list
    fields: tuple[pa.Field, ...] = ()

    def content(self):
        return ("long", self.most)

    def open(self):
        def ask(documents):
            self.heard.append((len(documents), documents.note("size")))
            sizes = [len(text) for text in documents.column("text")]
            notes = {field.name: pa.array(sizes) for field in self.fields}
            return Findings([self.name if size > self.most else None for size in sizes], notes)

        return ask


def batch(*texts):
    found = [{"id": str(i), "text": text, "source": "notes"} for i, text in enumerate(texts)]
    return Documents(pa.RecordBatch.from_pylist(found, SCHEMA).select(list(COLUMNS)))


def test_the_first_reason_wins_and_later_judges_see_only_what_is_left():
    heard: list = []
    court = Court([Long(5, "first", heard), Long(2, "second", heard), Long(2, "third", heard)])
    assert court(batch("1", "123456789", "123", "12")).reasons == [None, "first", "second", None]
    assert [count for count, _ in heard] == [4, 3, 2]


def test_what_is_noted_is_there_for_all_that_is_kept_and_null_where_nobody_looked():
    heard: list = []
    size, again = pa.field("size", pa.int32()), pa.field("again", pa.int64())
    court = Court([Long(5, "first", heard, (size,)), Long(2, "second", heard, (again,))])
    found = court(batch("123456789", "1", "123", "12"))
    assert found.reasons == ["first", None, "second", None]
    assert found.notes["size"].to_pylist() == [9, 1, 3, 2]
    assert found.notes["again"].to_pylist() == [None, 1, 3, 2]
    assert found.notes["size"].type == pa.int32()
    assert heard[1] == (3, [1, 3, 2])


def test_when_nothing_is_left_nobody_is_asked():
    heard: list = []
    court = Court([Long(0, "first", heard), Long(0, "second", heard, (pa.field("size", pa.int64()),))])
    found = court(batch("1", "12"))
    assert found.reasons == ["first", "first"]
    assert found.notes["size"].to_pylist() == [None, None]
    assert len(heard) == 1


def test_a_judge_that_forgets_a_document_or_a_note_is_found_out():
    class Forgetful(Long):
        def open(self):
            return lambda documents: Findings([None])

    with pytest.raises(AssertionError):
        Court([Forgetful(0, "x", [])])(batch("1", "2"))
    with pytest.raises(AssertionError):
        Court([Forgetful(0, "x", [], (pa.field("size", pa.int64()),))])(batch("1"))


def test_verdicts_hold_what_was_noted_of_every_document(tmp_path):
    lines(tmp_path / "raw/a.jsonl", HUNDRED)
    ingest(notes(kind="auto"), tmp_path, tmp_path / "documents")
    config = recipe().model_copy(update={"rules": {kind: {} for kind in ("prose", "web", "code", "table")}})
    ledger = clean(notes(kind="auto"), config, tmp_path / "documents", tmp_path / "clean")
    (path,) = shards(tmp_path / "clean", "verdicts/")
    assert [row["kind"] for row in rows(path)] == ["prose"] * 100
    size = sum(map(len, HUNDRED))
    assert ledger.kept_by["kind"]["prose"].model_dump() == {"documents": 100, "bytes": size}
    assert parquet.read_schema(path).names[: len(room.VERDICTS.names)] == room.VERDICTS.names


def test_filters_that_are_off_leave_verdicts_and_their_names_as_they_are(tmp_path):
    assert [each.fields for each in judges(notes(), recipe())] == [()]
    asked = (("min_bytes", 3), None)
    assert tuple(each.content() for each in judges(notes(), recipe(min_bytes=3))) == (asked,)
    lines(tmp_path / "raw/a.jsonl", HUNDRED)
    ingest(notes(), tmp_path, tmp_path / "documents")
    clean(notes(), recipe(), tmp_path / "documents", tmp_path / "clean")
    assert parquet.read_schema(shards(tmp_path / "clean", "verdicts/")[0]).names == room.VERDICTS.names
    assert b"kept_by" not in tree(tmp_path / "clean")["ledger.json"]


def test_all_judges_together_give_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    for i in range(4):
        lines(tmp_path / f"raw/{i}.jsonl", HUNDRED[i::4])
    source = notes(kind="auto", license="MIT")
    ingest(source, tmp_path, tmp_path / "documents")
    asked = {
        "rules": {kind: {} for kind in ("prose", "web", "code", "table")},
        "language": LanguageFilter(keep=("en",)),
        "dates": DateFilter(max_date="2024-06-30", undated="keep"),
        "licenses": LicenseFilter(allow=("MIT",)),
        "toxicity": Toxicity(),
    }
    config = recipe().model_copy(update=asked)
    for processes in (1, 2):
        clean(source, config, tmp_path / "documents", tmp_path / str(processes), processes=processes)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    (path, *_) = shards(tmp_path / "1", "verdicts/")
    assert parquet.read_schema(path).names[-5:] == [
        "kind",
        "language",
        "language_score",
        "language_mixing",
        "toxicity",
    ]
    # Without the filter's own limits nothing is dropped; each filter has a digest of its own.
    keys = [
        tuple(each.content() for each in judges(source, config.model_copy(update={name: None})))
        for name in asked
        if name != "rules"
    ]
    assert len({*keys, tuple(each.content() for each in judges(source, config))}) == 5
