"""Scores packed with the rows: of the documents that are there, in their order, and nothing changes without them."""

import shutil

import numpy as np
import pyarrow.parquet as parquet
import pytest
from scored_texts import KINDS, LAW, SEA, SHARE, config, documents, written
from small_sources import base, notes, tree

from ratoon.config import ConfigError
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.pack import pack
from ratoon.corpus.packed import read_index
from ratoon.corpus.scores.stage import score
from ratoon.corpus.tokenizer import load, train_tokenizer
from ratoon.stream.rows import Rows
from ratoon.stream.scores import row_scores

NAMES = ["classifier", "perplexity", "retrieval"]
ASKED = config(SHARE, **{name: {"kind": name, **KINDS[name]} for name in NAMES})


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    root = tmp_path_factory.mktemp("packed-scores")
    mixed = written(SEA, 60, 11) + written(LAW, 60, 12)
    found = documents(root, sea=written(SEA, 150, 1), law=written(LAW, 150, 2), notes=mixed) / "notes"
    score(notes(), ASKED, found, root / "scores")
    clean(notes(), ASKED, found, root / "clean")
    train_tokenizer([root / "clean"], 400, root / "tokenizer")
    return root


def packed(room, out, scores="scores"):
    ledger = pack(notes(), room / "clean", room / "tokenizer", base(), out, scores=room / scores if scores else None)
    return ledger, Rows.open(out)


def test_every_document_has_the_score_its_text_was_given(room, tmp_path):
    ledger, found = packed(room, tmp_path / "rows")
    assert sorted(found.index.scores.suffixes) == NAMES  # which document is nearest is no order
    given = {row["id"]: row for path in shards(room / "scores") for row in parquet.read_table(path).to_pylist()}
    ids = {row["text"]: row["id"] for path in shards(room / "clean", "train-") for row in rows(path)}
    encoder = load(room / "tokenizer")[0]
    texts = [encoder.decode(tokens[:-1]) for tokens in found.documents()]
    for name in NAMES:
        files = [tmp_path / "rows" / "train" / f"{s}.{found.index.scores.suffixes[name]}" for s in found.names]
        numbers = np.concatenate([np.fromfile(file, "<f4") for file in files])
        assert numbers.tolist() == [np.float32(given[ids[text]][name]) for text in texts]
        assert len(row_scores(found, name)) == found.num_rows
    assert {name for name in ledger.shards if "classifier" in name} <= {*tree(tmp_path / "rows")}


def test_rows_of_the_sea_are_scored_above_those_of_the_law(room, tmp_path):
    _, found = packed(room, tmp_path / "rows")
    scores = row_scores(found, "classifier")
    tokens, _ = found.read(np.argsort(scores))
    quarter = len(tokens) // 4
    words = load(room / "tokenizer")[0].decode_batch([tokens[:quarter].ravel(), tokens[-quarter:].ravel()])
    least, greatest = ({word for word in text.split() if word in {*SEA, *LAW}} for text in words)
    assert len(least & {*LAW}) > len(least & {*SEA})
    assert len(greatest & {*SEA}) > len(greatest & {*LAW})


def test_without_scores_an_edition_is_the_same_bytes_as_ever(room, tmp_path):
    plain, _ = packed(room, tmp_path / "plain", None)
    score(notes(), config(SHARE), room / "documents" / "notes", room / "none")
    none, _ = packed(room, tmp_path / "none", "none")
    assert tree(tmp_path / "plain") == tree(tmp_path / "none")
    assert plain == none
    assert b"scores" not in (tmp_path / "plain" / "rows.json").read_bytes()


def test_new_scores_leave_the_tokens_as_they_are_and_old_ones_go(room, tmp_path):
    packed(room, tmp_path / "rows", None)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").rglob("*.tokens")}
    packed(room, tmp_path / "rows")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").rglob("*.tokens")} == before
    with_scores = tree(tmp_path / "rows")
    packed(room, tmp_path / "rows")
    assert tree(tmp_path / "rows") == with_scores
    packed(room, tmp_path / "rows", None)
    assert read_index(tmp_path / "rows").scores is None
    assert not [name for name in tree(tmp_path / "rows") if "classifier" in name]


def test_scores_of_other_documents_are_refused(room, tmp_path):
    shutil.copytree(room / "scores", room / "other", dirs_exist_ok=True)
    name = next(name for name in read_ledger(room / "other").shards if name.endswith(".parquet"))
    table = parquet.read_table(room / "other" / name)
    parquet.write_table(table.slice(0, len(table) // 2), room / "other" / name)
    with pytest.raises(ConfigError, match=r"no scores of \d+ of \d+ documents of train-.*run `ratoon prepare score"):
        packed(room, tmp_path / "rows", "other")
