"""A row's score is the mean over its tokens, wherever documents and shards begin."""

import json

import numpy as np
import pytest

from ratoon.config import ConfigError
from ratoon.corpus.packed import FORMAT, INDEX, SCORES_FORMAT, Index, Scores, ShardCounts, ShardPacker
from ratoon.stream.rows import Rows
from ratoon.stream.scores import has_score, row_scores, suffix_of


def edition(path, shards, scores):
    """Documents by their lengths, per shard, and a score of each."""
    counts = {}
    for name, lengths in shards.items():
        packer = ShardPacker(path / "train" / name, 10, 9)
        for length in lengths:
            packer.add(iter([[1] * (length - 1)]))
        packer.close()
        counts[name] = ShardCounts(tokens=sum(lengths), documents=len(lengths), bytes=1)
        np.array(scores[name], "<f4").tofile(path / "train" / f"{name}.good-0123")
    total = ShardCounts(tokens=sum(c.tokens for c in counts.values()), documents=1, bytes=1)
    index = Index(
        format=FORMAT,
        base="tiny",
        tokenizer="none",
        vocabulary=10,
        dtype="<u2",
        separator=9,
        row_tokens=4,
        shards={"train": counts, "held_out": {}},
        totals={"train": total, "held_out": total},
        scores=Scores(format=SCORES_FORMAT, suffixes={"good": "good-0123"}),
    )
    (path / INDEX).write_text(index.model_dump_json())
    return path


def by_token(shards, scores, row_tokens):
    """The same, one token at a time."""
    each = [s for name in sorted(shards) for n, s in zip(shards[name], scores[name], strict=True) for _ in range(n)]
    rows = [each[begin : begin + row_tokens] for begin in range(0, len(each), row_tokens)]
    kept = [[x for x in row if not np.isnan(x)] for row in rows]
    return [float(np.mean(row)) if row else np.nan for row in kept]


SHARDS = {"b": [1, 1, 5, 2], "a": [3, 9, 1], "d": [], "c": [4]}
SCORES = {"b": [0.5, -1, np.nan, 2], "a": [1, 3, np.nan], "d": [], "c": [np.nan]}


@pytest.mark.parametrize("row_tokens", [1, 2, 3, 4, 5, 13, 26, 100])
def test_a_row_has_the_mean_of_its_tokens(tmp_path, row_tokens):
    rows = Rows.open(edition(tmp_path, SHARDS, SCORES), row_tokens=row_tokens)
    assert row_scores(rows, "good").tolist() == pytest.approx(by_token(SHARDS, SCORES, row_tokens), nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_many_documents_over_many_shards_are_counted_as_token_by_token(tmp_path, seed):
    random = np.random.default_rng(seed)
    shards = {f"s{n}": random.integers(1, 30, random.integers(0, 9)).tolist() for n in range(7)}
    scores = {name: np.where(random.random(len(of)) < 0.2, np.nan, random.random(len(of)).astype(np.float32))
              for name, of in shards.items()}  # fmt: skip
    rows = Rows.open(edition(tmp_path, shards, scores), row_tokens=int(random.integers(1, 20)))
    assert row_scores(rows, "good").tolist() == pytest.approx(by_token(shards, scores, rows.row_tokens), nan_ok=True)


def test_an_edition_without_scores_is_read_as_ever_and_has_none(tmp_path):
    path = edition(tmp_path, SHARDS, SCORES)
    raw = json.loads((path / INDEX).read_text())
    del raw["scores"]
    (path / INDEX).write_text(json.dumps(raw))
    rows = Rows.open(path)
    assert "scores" not in rows.index.model_dump()
    assert not has_score(rows, "good")
    with pytest.raises(ConfigError, match=r"no score 'good'; there are none yet\n  a score is packed with the rows"):
        row_scores(rows, "good")


def test_a_score_by_another_name_and_another_format_are_refused(tmp_path):
    path = edition(tmp_path, SHARDS, SCORES)
    with pytest.raises(ConfigError, match="no score 'god'; did you mean 'good'"):
        suffix_of(Rows.open(path), "god")
    raw = json.loads((path / INDEX).read_text())
    raw["scores"]["format"] = 7
    (path / INDEX).write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="scores of format 7, this version reads 1; pack the source anew"):
        row_scores(Rows.open(path), "good")


def test_scores_of_other_documents_are_refused(tmp_path):
    path = edition(tmp_path, SHARDS, SCORES)
    (path / "train" / "a.good-0123").write_bytes(b"1234")
    with pytest.raises(ConfigError, match="4 bytes, 12 expected"):
        row_scores(Rows.open(path), "good")
