"""Dates: the future has no part in the past, and what has no date is not of today."""

import json

import pytest
from small_sources import notes, recipe, sentence

from ratoon.config import ConfigError, DateFilter, NearDuplicates, parse
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.filters.dates import dates, days
from ratoon.corpus.sources import ingest

EARLY = [{"text": sentence(i), "date": f"2024-0{1 + i % 6}-15"} for i in range(80)]
# Later texts repeat earlier ones, word for word and nearly, shorter and longer, and bring new ones.
LATE = [{"text": row["text"], "date": "2024-07-01"} for row in EARLY[::2]]
LATE += [{"text": row["text"] + " And more of it, later.", "date": "2025"} for row in EARLY[::3]]
LATE += [{"text": sentence(i), "date": "2024-07-01T00:30:00Z"} for i in range(200, 240)]


def prepare(tmp_path, name, files, **changes):
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    for file, found in files.items():
        (raw / file).write_text("".join(json.dumps(row) + "\n" for row in found))
    ingest(notes(), tmp_path / name, tmp_path / name / "documents")
    config = recipe().model_copy(update=changes)
    return clean(notes(), config, tmp_path / name / "documents", tmp_path / name / "clean")


def parts(directory):
    """Shards of text, by what their name begins with, which is the shard they were made of."""
    return {p.name: p.read_bytes() for which in ("train-", "held_out-") for p in shards(directory, which)}


def verdicts(directory):
    return [row for path in shards(directory, "verdicts/") for row in rows(path)]


@pytest.mark.parametrize("near", [None, NearDuplicates()])
def test_text_after_max_date_changes_no_byte_of_what_earlier_text_became(tmp_path, near):
    asked = {"dates": DateFilter(max_date="2024-06-30"), "dedup": recipe().dedup.model_copy(update={"near": near})}
    before = prepare(tmp_path, "before", {"m.jsonl": EARLY}, **asked)
    after = prepare(tmp_path, "after", {"b.jsonl": LATE[::2], "m.jsonl": EARLY, "y.jsonl": LATE[1::2]}, **asked)
    assert parts(tmp_path / "after/clean") == parts(tmp_path / "before/clean")
    told = [row for row in verdicts(tmp_path / "after/clean") if row["reason"] != "after_max_date"]
    assert told == verdicts(tmp_path / "before/clean")
    assert after.funnel.dropped == before.funnel.dropped | {"after_max_date": len(LATE)}


def test_text_after_max_date_in_the_same_shard_changes_no_byte_either(tmp_path):
    asked = {"dates": DateFilter(max_date="2024-06-30")}
    prepare(tmp_path, "before", {"m.jsonl": EARLY}, **asked)
    # raw/z.jsonl falls into the bucket of raw/m.jsonl: the shard has another name, its documents are the same.
    prepare(tmp_path, "after", {"m.jsonl": [*EARLY, *LATE[:50]], "z.jsonl": LATE[50:]}, **asked)
    before, after = (parts(tmp_path / name / "clean") for name in ("before", "after"))
    assert sorted(after.values()) == sorted(before.values())


def test_without_the_filter_later_text_does_change_it(tmp_path):
    prepare(tmp_path, "before", {"m.jsonl": EARLY})
    prepare(tmp_path, "after", {"a.jsonl": LATE, "m.jsonl": EARLY})
    assert parts(tmp_path / "after/clean") != parts(tmp_path / "before/clean")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024-06-30", "2024-06-30", "2024-06-30"),
        (" 20240630 ", "2024-06-30", "2024-06-30"),
        ("2024-06-30T23:59:59", "2024-06-30", "2024-06-30"),
        ("2024-06-30 23:59:59.123456", "2024-06-30", "2024-06-30"),
        ("2024-06-30T23:30:00-02:00", "2024-07-01", "2024-07-01"),
        ("2024-07-01T00:30:00+02:00", "2024-06-30", "2024-06-30"),
        ("2024-06-30T12:00:00Z", "2024-06-30", "2024-06-30"),
        ("2024-W26-7", "2024-06-30", "2024-06-30"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2024", "2024-01-01", "2024-12-31"),
    ],
)
def test_dates_are_read_in_their_iso_forms(text, first, last):
    found = days(text)
    assert found
    assert tuple(day.isoformat() for day in found) == (first, last)


@pytest.mark.parametrize(
    "text",
    ["", " ", "yesterday", "30.06.2024", "2024-13", "2024-00", "0000", "2024-02-30", "1719705600", "9999999999999",
     "1711110211726", "171111021", "17111102117", "171111021172612", "20240630101112",
     "0001-01-01T00:00:00+14:00", "2024-06-30" * 1000, "\u202e2024", "٢٠٢٤-٠٦-٣٠x", "\0"],
)  # fmt: skip
def test_what_is_no_date_is_none(text):
    assert days(text) is None


def test_both_days_belong_to_what_is_kept_and_a_month_that_may_be_outside_does_not():
    ask = dates(DateFilter(min_date="2023-03-10", max_date="2024-06-30")).reason
    assert [ask(text) for text in ("2023-03-10", "2024-06-30", "2024-06", "2023-04")] == [None] * 4
    assert [ask(text) for text in ("2023-03-09", "2023-03", "2023")] == ["before_min_date"] * 3
    assert [ask(text) for text in ("2024-07-01", "2024", "2024-06-30T23:00:00-05:00")] == ["after_max_date"] * 3


def test_text_without_a_date_is_dropped_unless_told_to_keep_it():
    asked = dates(DateFilter(max_date="2024-06-30"))
    assert [asked.reason(text) for text in (None, "", "last week")] == ["undated", "undated", "unreadable_date"]
    kept = dates(DateFilter(max_date="2024-06-30", undated="keep"))
    assert [kept.reason(text) for text in (None, "", "last week", "2025")] == [None, None, None, "after_max_date"]
    assert asked.content() != kept.content()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"max_date": "2024-6-1"}, "max_date"),
        ({"max_date": "2024-06-31"}, "max_date"),
        ({"max_date": 2024}, "max_date"),
        ({"min_date": "2025-01-01", "max_date": "2024-01-01"}, "min_date 2025-01-01 is after max_date 2024-01-01"),
        ({"undated": "maybe"}, "undated"),
    ],
)
def test_a_wrong_filter_is_refused_with_its_place(said, message):
    with pytest.raises(ConfigError, match=message):
        parse(DateFilter, said, "params.yaml: prepare.dates")


def test_a_day_may_be_given_as_yaml_reads_it():
    import yaml

    assert parse(DateFilter, yaml.safe_load("max_date: 2024-06-30"), "params.yaml").max_date == "2024-06-30"
