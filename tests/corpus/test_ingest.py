"""Text in: what is read, what is dropped with a reason, what is refused, and what is not done twice."""

import gzip
import json
import os
import random
import resource
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zstandard
from small_sources import lines, notes, sentence, tree

from ratoon.config import Amend, Columns, ConfigError, Dataset, Files, Packages
from ratoon.corpus import units, workers
from ratoon.corpus.documents import SCHEMA, identify, rows, tally_of
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.sources import ingest

TEN = [sentence(i) for i in range(10)]


def documents(out):
    return [row for path in shards(out) for row in rows(path)]


def texts(out):
    return sorted(row["text"] for row in documents(out))


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "documents" / "notes"


def as_lines(items):
    return "".join(json.dumps({"text": text}) + "\n" for text in items).encode()


def as_parquet(items):
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": list(items)}), sink)
    return sink.getvalue().to_pybytes()


def as_csv(items):
    return ("text\r\n" + "".join(f'"{text}"\r\n' for text in items)).encode()


WRITERS = {"jsonl": as_lines, "ndjson": as_lines, "parquet": as_parquet, "csv": as_csv}
PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("form", [*WRITERS, "txt", "md", "rst", "markdown"])
def test_every_format_gives_the_same_documents_plain_or_compressed(raw, out, tmp_path, form, packed):
    if form in WRITERS:
        (raw / f"a.{form}{packed}").write_bytes(PACKERS[packed](WRITERS[form](TEN)))
    else:
        for i, text in enumerate(TEN):
            (raw / f"{i}.{form}{packed}").write_bytes(PACKERS[packed](text.encode()))
    ledger = ingest(notes(), tmp_path, out)
    assert texts(out) == sorted(TEN)
    assert ledger.funnel.documents_kept == 10
    assert ledger.funnel.bytes_kept == sum(len(text.encode()) for text in TEN)


def test_a_document_has_the_schema_and_keeps_all_that_came_with_it(raw, out, tmp_path):
    record = {
        "text": "caf\u00e9 \u2615\r\n\tend ",
        "url": "http://x/1",
        "date": "2024-05-01",
        "score": 3,
        "tags": ["a"],
    }
    (raw / "a.jsonl").write_text(json.dumps(record) + "\n" + json.dumps({"text": "bare"}))
    ingest(notes(license="MIT", language="en"), tmp_path, out)
    first, second = sorted(documents(out), key=lambda row: row["text"], reverse=True)
    assert parquet.read_schema(shards(out)[0]).names == SCHEMA.names
    assert first == {
        "id": identify("notes", record["text"]),
        "text": record["text"],
        "source": "notes",
        "url": "http://x/1",
        "date": "2024-05-01",
        "language": "en",
        "license": "MIT",
        "metadata": '{"score": 3, "tags": ["a"]}',
    }
    assert (second["url"], second["date"], second["metadata"]) == ("raw/a.jsonl:2", None, None)


def test_columns_are_read_under_the_names_declared_for_them(raw, out, tmp_path):
    table = pa.table({"body": ["one text"], "when": [pa.scalar(0, pa.timestamp("s")).as_py()], "nan": [float("nan")]})
    parquet.write_table(table, raw / "a.parquet")
    origin = Files(path="raw", columns=Columns(text="body", date="when"))
    ingest(notes(origins=(origin,)), tmp_path, out)
    (row,) = documents(out)
    assert (row["text"], row["date"], row["metadata"]) == ("one text", "1970-01-01T00:00:00", '{"nan": null}')


BAD_LINES = {
    "invalid UTF-8": b'{"text": "caf\xe9"}',
    "not JSON": b'{"text": "cut',
    "not a JSON object": b'["text"]',
    "no text": b'{"body": "x"}',
    "text is not a string": b'{"text": 7}',
    "empty text": b'{"text": " \\n "}',
    "NUL bytes": b'{"text": "a\\u0000b"}',
    "not valid Unicode": b'{"text": "\\ud800"}',
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_single_bad_line_is_dropped_with_its_reason_and_place(raw, out, tmp_path, reason):
    body = as_lines(TEN[:5]) + BAD_LINES[reason] + b"\n" + as_lines(TEN[5:])
    (raw / "a.jsonl").write_bytes(body)
    ledger = ingest(notes(max_bad_share=0.1), tmp_path, out)
    assert texts(out) == sorted(TEN)
    assert ledger.funnel.dropped == {reason: 1}
    assert ledger.examples == {reason: ["raw/a.jsonl:6"]}


@pytest.mark.parametrize("nested", [301, 500, 2000])
def test_a_line_of_json_nested_without_end_is_dropped(raw, out, tmp_path, nested):
    deep = '{"text": "a text", "tree": ' + "[" * (nested - 1) + "]" * (nested - 1) + "}\n"
    (raw / "a.jsonl").write_bytes(deep.encode() + as_lines(TEN))
    ledger = ingest(notes(max_bad_share=0.1), tmp_path, out)
    assert texts(out) == sorted(TEN)
    assert ledger.funnel.dropped == {"not JSON": 1}


def test_a_line_of_json_may_nest_deep_and_hold_many_lists(raw, out, tmp_path):
    deep = '{"text": "deep", "tree": ' + "[" * 299 + "]" * 299 + "}\n"
    wide = '{"text": "wide", "trees": [' + ", ".join(["[[]]"] * 400) + "]}\n"
    (raw / "a.jsonl").write_text(deep + wide)
    ingest(notes(), tmp_path, out, asked=Amend(mask=("email", "card")))
    assert texts(out) == ["deep", "wide"]


def test_a_file_whose_name_is_not_utf8_is_read_and_named(raw, out, tmp_path):
    with open(os.fsencode(raw) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"in the caf")
    with open(os.fsencode(raw) + b"/th\xe9.jsonl", "wb") as file:
        file.write(b"no JSON\n")
    ledger = ingest(notes(max_bad_share=0.5), tmp_path, out)
    assert [(row["text"], row["url"]) for row in documents(out)] == [("in the caf", "raw/caf\\xe9.txt")]
    assert ledger.examples == {"not JSON": ["raw/th\\xe9.jsonl:1"]}


def test_a_bad_file_of_text_costs_only_itself(raw, out, tmp_path):
    (raw / "good.txt").write_text("good")
    (raw / "latin.txt").write_bytes(b"caf\xe9")
    (raw / "nul.txt").write_bytes(bytes(1 << 20))
    (raw / "empty.txt").write_bytes(b"")
    ledger = ingest(notes(max_bad_share=0.9), tmp_path, out)
    assert texts(out) == ["good"]
    assert ledger.funnel.dropped == {"NUL bytes": 1, "empty text": 1, "invalid UTF-8": 1}
    assert ledger.funnel.bytes_in == 4 + 4 + (1 << 20)


def test_a_bad_csv_row_costs_only_itself(raw, out, tmp_path):
    (raw / "a.csv").write_bytes(b'text,n\n"one, quoted",1\nbad\xff,2\ntwo\nthree,3\n')
    ledger = ingest(notes(max_bad_share=0.9), tmp_path, out)
    assert texts(out) == ["one, quoted", "three"]
    assert ledger.funnel.dropped == {"invalid UTF-8": 1, "not CSV: 1 cells under 2 column names": 1}
    assert ledger.examples["invalid UTF-8"] == ["raw/a.csv:3"]


def test_a_cell_of_parquet_that_python_cannot_hold_costs_no_record(raw, out, tmp_path):
    def cells(number, kind):
        return pa.array([number], pa.int64()).view(kind)

    columns = {
        "text": ["a text"],
        "day": pa.array([5_000_000], pa.int32()).cast(pa.date32()),
        "long": cells(2**62, pa.duration("s")),
        "moment": cells(2**40, pa.timestamp("s", "UTC")),
        "nowhere": cells(0, pa.timestamp("s", "Nowhere/X")),
        "days": pa.array([[5_000_000]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
    }
    parquet.write_table(pa.table(columns), raw / "a.parquet")
    ingest(notes(origins=(Files(path="raw", columns=Columns(date="day")),)), tmp_path, out)
    (row,) = documents(out)
    kept = json.loads(row["metadata"])
    assert (row["text"], row["date"]) == ("a text", "15659-07-15")
    assert (kept["long"], kept["nowhere"], kept["days"]) == (str(2**62), None, None)
    assert isinstance(kept["moment"], str)


def test_two_columns_of_the_name_of_the_text_are_refused(raw, out, tmp_path):
    schema = pa.schema([("text", pa.string()), ("text", pa.string())])
    parquet.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], schema=schema), raw / "a.parquet")
    with pytest.raises(ConfigError, match=r"raw/a.parquet: several columns are named 'text'; write the file with one"):
        ingest(notes(), tmp_path, out)


def rows_of_csv(number, broken):
    return "number,text\n" + "".join(f"{i},{chr(34) * (i in broken)}plain document {i}\n" for i in range(number))


def test_a_quote_never_closed_in_a_csv_is_refused_at_the_row_that_opens_it(raw, out, tmp_path):
    (raw / "a.csv").write_text(rows_of_csv(5000, {300}))
    with pytest.raises(ConfigError) as error:
        ingest(notes(), tmp_path, out)
    assert "raw/a.csv:302: a quote opened in this row is never closed" in str(error.value)
    assert "line 5001\n  close it" in str(error.value)


def test_a_csv_row_that_swallows_others_counts_as_many_records_as_lines(raw, out, tmp_path):
    (raw / "a.csv").write_text(text := rows_of_csv(1000, {100, 900}))
    with pytest.raises(ConfigError, match=r"801 of 1000 records are unreadable \(80.1%\)"):
        ingest(notes(), tmp_path, out)
    ledger = ingest(notes(max_bad_share=0.9), tmp_path, out)
    assert ledger.funnel.documents_kept == 199
    assert ledger.funnel.dropped == {"not CSV": 801}
    assert ledger.funnel.dropped_bytes == {"not CSV": sum(map(len, text.splitlines(keepends=True)[101:902]))}
    assert set(ledger.examples["not CSV"]) == {"raw/a.csv:102"}


def test_a_quote_within_a_csv_row_costs_only_that_row(raw, out, tmp_path):
    (raw / "a.csv").write_bytes('text,n\none,1\n"caf\u00e9" x,2\nthree,3\n'.encode())
    ledger = ingest(notes(max_bad_share=0.9), tmp_path, out)
    assert texts(out) == ["one", "three"]
    assert (ledger.funnel.dropped, ledger.funnel.dropped_bytes) == ({"not CSV": 1}, {"not CSV": 12})
    assert ledger.examples["not CSV"] == ["raw/a.csv:3"]


def test_a_null_in_a_parquet_column_is_a_record_without_text(raw, out, tmp_path):
    parquet.write_table(pa.table({"text": ["a", None]}), raw / "a.parquet")
    assert ingest(notes(max_bad_share=0.5), tmp_path, out).funnel.dropped == {"no text": 1}


def test_more_bad_records_than_declared_are_refused_with_reasons_and_examples(raw, out, tmp_path):
    (raw / "a.jsonl").write_bytes(as_lines(TEN) + b"no json\n" + BAD_LINES["no text"] + b"\n")
    with pytest.raises(ConfigError) as error:
        ingest(notes(), tmp_path, out)
    for part in (
        "source 'notes': 2 of 12 records are unreadable (16.7%), more than max_bad_share 1.0%",
        "1 not JSON: raw/a.jsonl:11",
        "1 no text: raw/a.jsonl:12",
        "raise max_bad_share",
    ):
        assert part in str(error.value)


def corrupted(blob):
    middle = len(blob) // 2
    return blob[:middle] + bytes(byte ^ 255 for byte in blob[middle : middle + 64]) + blob[middle + 64 :]


LONG = as_lines(random.Random(0).randbytes(40).hex() for _ in range(3000))

FATAL = {
    "a truncated .gz": ({"a.jsonl.gz": gzip.compress(LONG)[:-9]}, "a.jsonl.gz: damaged or cut short"),
    "a truncated .zst": ({"a.jsonl.zst": zstandard.compress(LONG)[:-9]}, "a.jsonl.zst: damaged or cut short"),
    "a .gz cut inside a text": ({"a.txt.gz": gzip.compress(LONG)[:500]}, "a.txt.gz: damaged or cut short"),
    "a .gz with flipped bits": ({"a.jsonl.gz": corrupted(gzip.compress(LONG))}, "a.jsonl.gz: damaged or cut short"),
    "a .gz that is none": ({"a.jsonl.gz": LONG}, "a.jsonl.gz: damaged or cut short"),
    "a truncated Parquet": ({"a.parquet": as_parquet(TEN)[:-20]}, "a.parquet: damaged or cut short"),
    "Parquet without the column": (
        {"a.parquet": as_parquet(TEN).replace(b"text", b"body")},
        "a.parquet: no column 'text'; it has 'body'",
    ),
    "CSV without the column": ({"a.csv": b"body,n\nx,1\n"}, "a.csv: no column 'text'; it has 'body', 'n'"),
    "an empty CSV": ({"a.csv": b""}, "a.csv: no column 'text'; it has none"),
    "an empty folder": ({}, "raw: 0 files, none readable; readable are .csv"),
    "only unknown files": ({"a.pdf": b"x"}, "raw: 1 files, none readable"),
    "only empty records": ({"a.jsonl": b"\n\n"}, "no documents in any of its origins"),
}


@pytest.mark.parametrize("case", FATAL)
def test_a_source_that_cannot_be_read_is_refused_and_its_earlier_edition_stays(raw, out, tmp_path, case):
    lines(raw / "earlier.jsonl", TEN)
    ingest(notes(), tmp_path, out)
    before = tree(out.parent)
    (raw / "earlier.jsonl").unlink()
    files, message = FATAL[case]
    for name, content in files.items():
        (raw / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        ingest(notes(), tmp_path, out)
    assert str(error.value).startswith("source 'notes': ")
    assert message in str(error.value)
    assert tree(out.parent) == before


def test_a_parquet_column_of_numbers_is_no_text(raw, out, tmp_path):
    parquet.write_table(pa.table({"text": [1, 2]}), raw / "a.parquet")
    with pytest.raises(ConfigError, match="column 'text' holds int64, not strings"):
        ingest(notes(), tmp_path, out)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere: not found; put the text there"),
        ("nowhere/*.txt", "not found"),
        ("raw/a.pdf", "format not known by its suffix; readable are .csv .jsonl"),
        ("memory://nothing-here", "not found"),
        ("nope://x", "Protocol not known: nope"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(raw, out, tmp_path, path, message):
    (raw / "a.pdf").write_bytes(b"x")
    with pytest.raises(ConfigError) as error:
        ingest(notes(path), tmp_path, out)
    assert message in str(error.value)
    assert not out.exists()


def test_a_link_to_nowhere_is_an_unreadable_file_and_refused(raw, out, tmp_path):
    lines(raw / "a.jsonl", TEN)
    (raw / "b.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"raw/b.jsonl: could not be read: No such file"):
        ingest(notes(), tmp_path, out)


def test_a_file_nobody_may_read_is_refused(raw, out, tmp_path, monkeypatch):
    lines(raw / "a.jsonl", TEN)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=r"raw/a.jsonl: could not be read: .*Permission denied"):
        ingest(notes(), tmp_path, out)


def test_an_optional_path_may_hold_nothing_yet(raw, out, tmp_path):
    lines(tmp_path / "a.jsonl", TEN)
    (raw / ".gitkeep").touch()
    absent, empty = Files(path="absent", optional=True), Files(path="raw", optional=True)
    ingest(notes(origins=(absent, empty, Files(path="a.jsonl"))), tmp_path, out)
    assert texts(out) == sorted(TEN)


def test_folders_are_read_to_the_bottom_through_links_and_hidden_files_left_alone(raw, out, tmp_path):
    lines(raw / "a" / "b" / "1.jsonl", TEN[:3])
    lines(tmp_path / "elsewhere" / "2.jsonl", TEN[3:])
    (raw / "link").symlink_to(tmp_path / "elsewhere")
    (raw / "loop").symlink_to(raw)
    lines(raw / ".cache" / "3.jsonl", ["hidden"])
    (raw / "readme.pdf").write_bytes(b"12345")
    ledger = ingest(notes(), tmp_path, out)
    assert texts(out) == sorted(TEN)
    assert ledger.funnel.dropped == {"unknown suffix": 1}
    assert ledger.examples["unknown suffix"] == ["raw/readme.pdf"]


def test_globs_and_urls_are_read_like_folders(raw, out, tmp_path):
    lines(raw / "a" / "1.jsonl", TEN[:2])
    lines(raw / "a" / "[2].jsonl", TEN[2:4])
    lines(raw / "other.jsonl", ["other"])
    fsspec.filesystem("memory").pipe("/ingest/x/3.jsonl.gz", gzip.compress(as_lines(TEN[4:7])))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("in/4.jsonl", as_lines(TEN[7:]))
    paths = ("raw/**/1.jsonl", "raw/a/[2].jsonl", "memory://ingest", f"zip://in::{tmp_path}/z.zip")
    ingest(notes(origins=tuple(Files(path=path) for path in paths)), tmp_path, out)
    assert texts(out) == sorted(TEN)


@pytest.mark.parametrize("form", ["txt", "csv", "jsonl.gz"])
def test_a_document_of_50_mb_on_one_line_passes(raw, out, tmp_path, form):
    big = "word and " * (50_000_000 // 9)
    plain = {"txt": str.encode, "jsonl": lambda t: as_lines([t]), "csv": lambda t: as_csv([t])}[form.split(".")[0]](big)
    (raw / f"a.{form}").write_bytes(gzip.compress(plain, 1) if form.endswith("gz") else plain)
    assert ingest(notes(), tmp_path, out).funnel.bytes_kept == len(big)
    assert documents(out)[0]["text"] == big


def test_text_is_kept_as_it_is_but_for_a_byte_order_mark(raw, out, tmp_path):
    text = "  \ufefftab\t\r\nmac\rnel\x85ps\u2029 e\u0301 \U0001f9ed \n\n"
    (raw / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (raw / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + as_lines(["line"]))
    (raw / "c.csv").write_bytes(b"\xef\xbb\xbf" + as_csv(["cell"]))
    ingest(notes(), tmp_path, out)
    assert texts(out) == sorted([text, "line", "cell"])


def test_the_same_input_gives_the_same_bytes_whatever_the_number_of_processes(raw, tmp_path):
    for i in range(4):
        lines(raw / f"{i}.jsonl", [sentence(100 * i + k) for k in range(20)])
    alone = ingest(notes(), tmp_path, tmp_path / "alone", processes=1)
    both = ingest(notes(), tmp_path, tmp_path / "both", processes=2)
    assert alone == both
    assert tree(tmp_path / "alone") == tree(tmp_path / "both")


def test_a_new_file_is_all_that_is_read_and_the_result_is_as_if_made_at_once(raw, out, tmp_path, monkeypatch):
    for i in range(12):
        lines(raw / f"{i}.jsonl", [sentence(100 * i + k) for k in range(5)])
    ingest(notes(), tmp_path, out)
    made = []
    monkeypatch.setattr("ratoon.corpus.sources.write_unit", _spy(made))
    ingest(notes(), tmp_path, out)
    assert made == []
    lines(raw / "new.jsonl", ["new"])
    ingest(notes(), tmp_path, out)
    assert len(made) == 1
    ingest(notes(), tmp_path, tmp_path / "at-once")
    assert tree(out) == tree(tmp_path / "at-once")
    (raw / "new.jsonl").unlink()
    ingest(notes(), tmp_path, out)
    assert "new" not in texts(out)


def _spy(made):
    from ratoon.corpus.sources import write_unit

    def spy(source, unit, *others):
        made.append(unit.shard)
        write_unit(source, unit, *others)

    return spy


def test_a_large_file_is_a_unit_of_its_own(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "LARGE_BYTES", 1000)
    lines(raw / "large.jsonl", [sentence(k) for k in range(100)])
    lines(raw / "small.jsonl", TEN[:1])
    names = [unit.name for unit in units.plan(notes(), tmp_path).units]
    assert [name.split("-")[0] for name in names] == ["files", "large"]


def test_a_shard_damaged_on_disk_is_made_anew(raw, out, tmp_path):
    lines(raw / "a.jsonl", TEN)
    ingest(notes(), tmp_path, out)
    before = tree(out)
    (shard,) = shards(out)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    ingest(notes(), tmp_path, out)
    assert tree(out) == before


@pytest.mark.parametrize("seed", range(8))
def test_the_ledger_adds_up_whatever_comes_in(raw, out, tmp_path, seed):
    draw = random.Random(seed)
    kinds = [*BAD_LINES.values(), *(as_lines([sentence(i)]).strip() for i in range(8))]
    picked = [draw.choice(kinds) for _ in range(draw.randrange(1, 200))] + [as_lines(["one good"]).strip()]
    for i in range(3):
        (raw / f"{i}.jsonl").write_bytes(b"\n".join(picked[i::3]) + b"\n")
    ledger = ingest(notes(max_bad_share=1), tmp_path, out)
    assert ledger.funnel.documents_in == len(picked)
    assert ledger.funnel.documents_kept == len(documents(out)) == sum(kind in kinds[8:] for kind in picked) + 1
    assert ledger.funnel.bytes_kept == sum(len(row["text"].encode()) for row in documents(out))
    assert sum(tally_of(path).documents for path in shards(out)) == ledger.funnel.documents_kept
    assert read_ledger(out) == ledger


def test_a_full_disk_is_said_and_leaves_the_earlier_edition(raw, out, tmp_path):
    lines(raw / "a.jsonl", TEN)
    ingest(notes(), tmp_path, out)
    before = tree(out.parent)
    draw = random.Random(0)
    lines(raw / "b.jsonl", [draw.randbytes(500).hex() for _ in range(1000)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not write .*; the earlier edition is untouched"):
            ingest(notes(), tmp_path, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(out.parent) == before


def test_what_a_killed_process_left_is_swept_away(raw, out, tmp_path):
    lines(raw / "a.jsonl", TEN)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    left = out.with_name(f".{out.name}.{pid}")
    (left / "sub").mkdir(parents=True)
    ingest(notes(), tmp_path, out)
    assert not left.exists()


def test_progress_ends_at_its_total(raw, out, tmp_path):
    for i in range(5):
        lines(raw / f"{i}.jsonl", TEN)
    heard = []
    ingest(notes(), tmp_path, out, report=lambda done, total, what, seen: heard.append((done, total, what)))
    size = sum(path.stat().st_size for path in raw.iterdir())
    assert heard[-1][:2] == (size, size)
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)


def test_an_error_in_another_process_arrives_whole(tmp_path):
    with pytest.raises(ConfigError, match="package 'no-such-thing' is not installed"):
        list(workers.each(units.packages.installed, [("no-such-thing", "code")] * 2, [1, 1], 2))


# ---------------------------------------------------------------- the hub


def test_a_hub_dataset_is_read_at_the_commit_its_revision_stands_for(out, tmp_path, monkeypatch):
    asked = {}

    def load_dataset(name, config, **options):
        asked.update(options, name=name, config=config)
        return iter([{"content": text, "id": i} for i, text in enumerate(TEN)])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("ratoon.corpus.hub.revision", lambda origin: "c0ffee" * 6)
    origin = Dataset(dataset="org/some-text", config="en", columns=Columns(text="content"))
    ingest(notes(origins=(origin,)), tmp_path, out)
    assert texts(out) == sorted(TEN)
    assert asked == {
        "name": "org/some-text",
        "config": "en",
        "split": "train",
        "revision": "c0ffee" * 6,
        "streaming": True,
    }
    with pytest.raises(ConfigError, match=r"dataset 'org/some-text': no column 'text'; it has 'content', 'id'"):
        ingest(notes(origins=(Dataset(dataset="org/some-text"),)), tmp_path, out)


def test_without_a_network_a_hub_dataset_says_what_to_do_instead(out, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"(?s)dataset 'org/x': could not be read from the hub .*into data/raw"):
        ingest(notes(origins=(Dataset(dataset="org/x"),)), tmp_path, out)


def test_a_package_that_is_not_installed_is_refused(out, tmp_path):
    origin = Packages(packages=("no-such-thing",), content="prose")
    with pytest.raises(ConfigError, match=r"source 'notes': package 'no-such-thing' is not installed; pip install it"):
        ingest(notes(origins=(origin,)), tmp_path, out)
