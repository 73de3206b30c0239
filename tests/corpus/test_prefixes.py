"""Prefixes packed beside the rows: of the documents that are there, in their order; nothing changes without them."""

import json

import numpy as np
import pytest
from pydantic import ValidationError
from small_sources import base, notes, recipe, sentence, tree

from ratoon.config import ConfigError, Prefixes, Split
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import shards
from ratoon.corpus.pack import pack
from ratoon.corpus.packed import read_index
from ratoon.corpus.prefixes import prefix
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import load, train_tokenizer
from ratoon.stream import prefixes as read
from ratoon.stream.rows import Rows

URL = Prefixes()


def url(i):
    """Every fourth text is from nowhere."""
    return f"https://user@Site{i % 7}.Example.org:8080/{i}" if i % 4 else None


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    root = tmp_path_factory.mktemp("prefixes")
    for n in range(3):
        (root / "raw").mkdir(exist_ok=True)
        numbers = range(50 * n, 50 * n + 50)
        records = [{"text": sentence(i), "url": url(i), "date": f"2024-01-{i % 28 + 1:02}"} for i in numbers]
        (root / "raw" / f"{n}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    ingest(notes(), root, root / "documents")
    clean(notes(), recipe(), root / "documents", root / "clean")
    train_tokenizer([root / "clean"], 400, root / "tokenizer")
    return root


def packed(room, out, prefixes=URL):
    return pack(notes(), room / "clean", room / "tokenizer", base(), out, prefixes=prefixes)


def written(path):
    """The prefix of each document, as tokens."""
    index = read_index(path)
    found = []
    for name in Rows.open(path).names:
        tokens = np.fromfile(path / "train" / f"{name}.prefixes-{index.prefixes.key}", index.dtype)
        starts = np.fromfile(path / "train" / f"{name}.prefix_starts-{index.prefixes.key}", "<u8")
        found += [tokens[a:b].tolist() for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
    return found


def trained_on(room):
    return [row for path in shards(room / "clean", "train-") for row in rows(path)]


def test_every_document_has_the_prefix_of_its_own_url_and_its_text_stays_what_it_is(room, tmp_path):
    packed(room, tmp_path / "rows")
    encoder = load(room / "tokenizer")[0]
    hosts = {sentence(i): f"site{i % 7}.example.org" if i % 4 else None for i in range(150)}
    expected = [f"URL: {host}\n\n" if (host := hosts[row["text"]]) else "" for row in trained_on(room)]
    found = written(tmp_path / "rows")
    assert [encoder.decode(ids) for ids in found] == expected
    index = read_index(tmp_path / "rows")
    assert index.prefixes.documents == sum(map(bool, expected)) > 50
    assert index.prefixes.tokens == sum(map(len, found))
    assert index.separator not in {token for ids in found for token in ids}


def test_text_behind_its_prefixes_reads_as_the_documents_it_was_packed_from(room, tmp_path):
    packed(room, tmp_path / "rows")
    source = Rows.open(tmp_path / "rows")
    stream = np.concatenate(list(source.documents()))
    found, _ = read.Prefixes(source).put(stream, 0)  # over all shards at once
    parts = zip(written(tmp_path / "rows"), source.documents(), strict=True)
    assert found.tolist() == [token for before, text in parts for token in (*before, *text.tolist())]
    assert len(source.names) == 3


def test_any_stretch_of_any_shard_has_the_prefixes_of_the_documents_it_touches(room, tmp_path):
    packed(room, tmp_path / "rows")
    source = Rows.open(tmp_path / "rows")
    before = written(tmp_path / "rows")
    owner = [(n, p) for n, text in enumerate(source.documents()) for p in range(len(text))]
    stream = np.concatenate(list(source.documents()))
    prefixes = read.Prefixes(source)
    for row_tokens in (1, 7, 100, 1000):
        counted = prefixes.tokens_in(row_tokens)
        assert len(counted) == -(-len(stream) // row_tokens)
        for row in range(0, len(counted), max(1, len(counted) // 60)):
            begin, end = row * row_tokens, min(len(stream), (row + 1) * row_tokens)
            expected, silent = [], []
            for at in range(begin, end):
                document, place = owner[at]
                own = before[document] if at == begin or place == 0 else []
                expected += [*own, int(stream[at])]
                silent += [*[True] * len(own), at == begin and place > 0]
            found, quiet = prefixes.put(stream[begin:end], begin)
            assert found.tolist() == expected
            assert quiet.tolist() == silent
            assert counted[row] == len(expected) - (end - begin)


def test_an_edition_without_prefixes_is_the_same_bytes_as_ever(room, tmp_path):
    plain = packed(room, tmp_path / "plain", None)
    assert pack(notes(), room / "clean", room / "tokenizer", base(), tmp_path / "ever") == plain
    assert tree(tmp_path / "plain") == tree(tmp_path / "ever")
    assert b"prefix" not in (tmp_path / "plain" / "rows.json").read_bytes()
    packed(room, tmp_path / "with")
    both = tree(tmp_path / "plain"), tree(tmp_path / "with")
    assert {name: both[1][name] for name in both[0] if name.endswith((".tokens", ".starts"))} == {
        name: raw for name, raw in both[0].items() if name.endswith((".tokens", ".starts"))
    }


def test_other_prefixes_leave_the_tokens_as_they_are_and_old_ones_go(room, tmp_path):
    packed(room, tmp_path / "rows")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").rglob("*") if path.name != "rows.json"}
    hosts = tree(tmp_path / "rows")
    packed(room, tmp_path / "rows")
    assert {path: path.stat().st_mtime_ns for path in before if path.name != "ledger.json"} == {
        path: time for path, time in before.items() if path.name != "ledger.json"
    }
    packed(room, tmp_path / "rows", Prefixes(field="date", label="On"))
    encoder = load(room / "tokenizer")[0]
    dated = {encoder.decode(ids) for ids in written(tmp_path / "rows")}
    assert dated <= {f"On: 2024-01-{day:02}\n\n" for day in range(1, 29)}
    assert len([name for name in tree(tmp_path / "rows") if "prefixes-" in name]) == 3
    packed(room, tmp_path / "rows")
    assert tree(tmp_path / "rows") == hosts


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("host", "http://a.org/x", "URL: a.org\n\n"),
        ("host", "http://[broken", ""),
        ("host", "package==1.0/file.py", ""),
        ("host", None, ""),
        ("url", "package==1.0/file.py", "URL: package==1.0/file.py\n\n"),
        ("language", "de", "Language: de\n\n"),
        ("license", "a\n\n b", "License: a b\n\n"),
        ("date", "  ", ""),
        ("source", "x" * 254, ""),
        ("metadata.author", '{"author": "Ann"}', "Author: Ann\n\n"),
        ("metadata.author", '{"author": ["Ann"]}', ""),
        ("metadata.author", '{"year": 3}', ""),
        ("metadata.year", '{"year": 3}', "Year: 3\n\n"),
    ],
)
def test_a_prefix_is_one_line_and_an_empty_one_or_nothing(field, value, found):
    assert prefix(value, Prefixes(field=field)) == found


def test_a_field_that_no_document_has_is_refused_and_the_earlier_edition_stays(room, tmp_path):
    packed(room, tmp_path / "rows", None)
    before = tree(tmp_path / "rows")
    with pytest.raises(ConfigError, match=r"prefixes\.field: no document of 'notes' .* has 'metadata\.author'; name a"):
        packed(room, tmp_path / "rows", Prefixes(field="metadata.author"))
    assert tree(tmp_path / "rows") == before


def test_a_field_that_documents_never_have_is_refused_at_the_door():
    with pytest.raises(ValidationError, match="field"):
        Prefixes(field="text")
    assert URL.of("notes") is URL
    assert Prefixes(sources=("web",)).of("notes") is None


def test_a_file_of_prefixes_that_is_cut_short_is_refused(room, tmp_path):
    packed(room, tmp_path / "rows")
    path = next((tmp_path / "rows" / "train").glob("*.prefixes-*"))
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ConfigError, match=r"prefixes-.*: \d+ bytes, \d+ expected; fetch the rows again or pack"):
        read.Prefixes(Rows.open(tmp_path / "rows"))


def test_prefixes_are_the_same_bytes_however_many_are_encoded_at_once(room, tmp_path, monkeypatch):
    packed(room, tmp_path / "rows")
    monkeypatch.setattr("ratoon.corpus.prefixes.AT_ONCE", 7)
    packed(room, tmp_path / "few")
    assert tree(tmp_path / "few") == tree(tmp_path / "rows")


def test_each_portion_of_a_source_has_the_prefixes_of_its_own_documents(tmp_path):
    (tmp_path / "raw").mkdir()
    records = [{"text": sentence(i), "language": "de" if i % 3 else "fr"} for i in range(120)]
    (tmp_path / "raw" / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    source = notes(split=Split(languages=["de", "fr"]))
    ingest(source, tmp_path, tmp_path / "documents", processes=1)
    clean(source, recipe(), tmp_path / "documents", tmp_path / "clean", processes=1)
    train_tokenizer([tmp_path / "clean"], 300, tmp_path / "tokenizer")
    asked = Prefixes(field="language")
    pack(source, tmp_path / "clean", tmp_path / "tokenizer", base(), tmp_path / "rows", prefixes=asked)
    encoder = load(tmp_path / "tokenizer")[0]
    for name in ("de", "fr"):
        found = {encoder.decode(ids) for ids in written(tmp_path / "rows" / name)}
        assert found == {f"Language: {name}\n\n"}


def test_a_shard_of_no_documents_is_passed_over(room, tmp_path):
    packed(room, tmp_path / "rows")
    source = Rows.open(tmp_path / "rows")
    stream, before = np.concatenate(list(source.documents())), read.Prefixes(source)
    empty = source.names[0] + "-and-nothing"  # between the first and the second
    raw = json.loads((tmp_path / "rows" / "rows.json").read_text())
    raw["shards"]["train"][empty] = {"tokens": 0, "documents": 0, "bytes": 0}
    (tmp_path / "rows" / "rows.json").write_text(json.dumps(raw))
    for name, content in (("tokens", b""), ("starts", bytes(8))):
        (tmp_path / "rows" / "train" / f"{empty}.{name}").write_bytes(content)
    found = read.Prefixes(Rows.open(tmp_path / "rows"))
    assert [each.tolist() for each in found.put(stream, 0)] == [each.tolist() for each in before.put(stream, 0)]
    assert found.tokens_in(16).tolist() == before.tokens_in(16).tolist()
