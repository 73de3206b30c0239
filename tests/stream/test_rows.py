"""Rows: every token of the stream in one row, whatever is asked first; a damaged edition is refused."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ratoon.config import ConfigError
from ratoon.corpus.packed import FORMAT, INDEX, Index, ShardCounts, ShardPacker, dtype_for
from ratoon.stream.rows import Rows

SEPARATOR = 9
ROOT = Path(__file__).parents[2]


def write(path, shards, vocabulary=10, row_tokens=4):
    """Rows of `shards`: name -> documents, each a list of token ids. Held out: one document, 1 2 3."""
    parts = {"train": shards, "held_out": {"x": [[1, 2, 3]]}}
    counts = {part: {} for part in parts}
    for part, named in parts.items():
        for name, documents in named.items():
            packer = ShardPacker(path / part / name, vocabulary, SEPARATOR)
            for document in documents:
                packer.add(iter([document]))
            packer.close()
            size = sum(map(len, documents))
            counts[part][name] = ShardCounts(tokens=packer.num_tokens, documents=len(documents), bytes=2 * size)
    index = Index(
        format=FORMAT,
        base="tiny",
        tokenizer="0" * 12,
        vocabulary=vocabulary,
        dtype=dtype_for(vocabulary),
        separator=SEPARATOR,
        row_tokens=row_tokens,
        shards=counts,
        totals={part: total(of.values()) for part, of in counts.items()},
    )
    (path / INDEX).write_text(index.model_dump_json())
    return path


def total(counts):
    items = list(counts)
    return ShardCounts(**{key: sum(getattr(item, key) for item in items) for key in ("tokens", "documents", "bytes")})


SHARDS = {"b": [[5, 6], [7]], "a": [[1], [2, 3, 4, 1, 2, 3], []], "c": [[8]], "d": []}
STREAM = [1, 9, 2, 3, 4, 1, 2, 3, 9, 9, 5, 6, 9, 7, 9, 8, 9]


@pytest.fixture
def packed(tmp_path):
    return write(tmp_path, SHARDS)


@pytest.mark.parametrize("row_tokens", [1, 2, 3, 4, 5, 16, 17, 18, 1000])
def test_valid_tokens_of_all_rows_are_the_stream(packed, row_tokens):
    rows = Rows.open(packed, row_tokens=row_tokens)
    tokens, valid = rows.read(np.arange(rows.num_rows))
    assert tokens.shape == (rows.num_rows, row_tokens)
    assert tokens.dtype == valid.dtype == np.int64
    assert np.concatenate([row[:n] for row, n in zip(tokens, valid, strict=True)]).tolist() == STREAM
    assert rows.num_tokens == valid.sum() == len(STREAM)


def test_only_the_last_row_is_short_and_separators_fill_it(packed):
    rows = Rows.open(packed)
    tokens, valid = rows.read(np.arange(rows.num_rows))
    assert valid.tolist() == [4, 4, 4, 4, 1]
    assert tokens[-1].tolist() == [9, 9, 9, 9]


def test_a_row_is_the_same_in_whatever_order_and_company_it_is_read(packed):
    rows = Rows.open(packed)
    whole, _ = rows.read(np.arange(rows.num_rows))
    for asked in ([3], [4, 0, 2], [1, 1, 1], []):
        tokens, valid = rows.read(np.array(asked, np.int64))
        assert tokens.tolist() == whole[asked].tolist()
        assert len(valid) == len(asked)


def test_documents_come_in_order_with_their_separator_last(packed):
    found = [ids.tolist() for ids in Rows.open(packed).documents()]
    assert found == [[1, 9], [2, 3, 4, 1, 2, 3, 9], [9], [5, 6, 9], [7, 9], [8, 9]]
    assert Rows.open(packed).num_documents == 6


def test_the_parts_are_apart(packed):
    rows = Rows.open(packed, "held_out")
    assert rows.read(np.arange(1))[0].tolist() == [[1, 2, 3, 9]]
    assert (rows.num_tokens, rows.num_bytes) == (4, 6)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(2**16, "<u2"), (2**16 + 1, "<u4")])
def test_the_largest_id_of_a_vocabulary_survives(tmp_path, vocabulary, dtype):
    rows = Rows.open(write(tmp_path, {"a": [[vocabulary - 1, 0]]}, vocabulary))
    assert rows.index.dtype == dtype
    assert rows.read(np.arange(1))[0][0, :3].tolist() == [vocabulary - 1, 0, SEPARATOR]


def test_a_part_of_nothing_has_no_rows(tmp_path):
    rows = Rows.open(write(tmp_path, {}))
    assert (rows.num_rows, rows.num_tokens, list(rows.documents())) == (0, 0, [])


@pytest.mark.parametrize("asked", [[-1], [0, 5]])
def test_a_row_there_is_not_is_refused(packed, asked):
    with pytest.raises(IndexError, match="of 5"):
        Rows.open(packed).read(np.array(asked))


def test_rows_travel_to_another_process_as_a_path_not_as_data(tmp_path):
    rows = Rows.open(write(tmp_path, {"a": [[1] * 100_000]}), row_tokens=7)
    sent = pickle.dumps(rows)
    assert len(sent) < 500
    assert pickle.loads(sent).read(np.arange(3))[0].tolist() == rows.read(np.arange(3))[0].tolist()


DAMAGE = {
    "a short file": (
        lambda p: _cut(p / "train" / "a.tokens"),
        r"a.tokens: 19 bytes, 20 expected; fetch the rows again",
    ),
    "a missing file": (lambda p: (p / "train" / "a.tokens").unlink(), r"a.tokens: listed in rows.json but not there"),
    "a missing index": (lambda p: (p / INDEX).unlink(), r"rows.json: not found; `ratoon prepare` packs"),
    "a cut index": (lambda p: _cut(p / INDEX), r"rows.json: not a record of packed rows"),
    "another format": (lambda p: _replace(p / INDEX, '"format":1', '"format":7'), r"format 7, this version reads 1"),
    "an index of something else": (lambda p: (p / INDEX).write_text("[]"), r"rows.json: not a record of packed rows"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_edition_is_refused_on_opening(packed, case):
    damage, message = DAMAGE[case]
    damage(packed)
    with pytest.raises(ConfigError, match=message):
        Rows.open(packed)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: _cut(path), "bytes, 32 expected"),
        (lambda path: path.write_bytes(np.array([0, 2, 9, 11], "<u8").tobytes()), "does not end where its tokens do"),
    ],
)
def test_damaged_boundaries_are_refused_when_documents_are_asked_for(packed, damage, message):
    damage(packed / "train" / "a.starts")
    with pytest.raises(ConfigError, match=message):
        list(Rows.open(packed).documents())


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def test_a_row_of_no_tokens_is_refused(packed):
    with pytest.raises(ConfigError, match="a row has at least one token"):
        Rows.open(packed, row_tokens=0)


def test_reading_rows_needs_nothing_heavy():
    code = "import sys, ratoon.stream.rows; print(sorted({'torch', 'pyarrow', 'tokenizers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
