"""Training text to be shown: what is on the shelf, and what is never shown with which document."""

import pytest
from held_out_text import prose, write_held_out
from training_text import training_texts, write_training

from ratoon.config import ConfigError
from ratoon.evaluation.shelf import Copies, Shelf, cut, shelve, whole_documents


def test_passages_hold_every_word_of_the_training_part_and_none_that_is_held_out(tmp_path):
    texts = training_texts("docs")
    folder = write_training(write_held_out(tmp_path / "docs", {"h": "secret words of what is held out"}), texts)
    shelf = shelve([folder], 90, 1 << 20)
    assert " ".join(shelf.texts).split() == [word for key in sorted(texts) for word in texts[key].split()]
    assert set(shelf.documents) == {f"docs-{key}" for key in texts}
    assert max(map(len, shelf.texts)) < 2 * 90


@pytest.mark.parametrize("text", ["", "   \n", "word", "x" * 1000, "日本語の文章" * 100])
def test_text_without_spaces_is_cut_all_the_same(text):
    pieces = list(cut(text, 50))
    assert "".join(pieces) == text.strip()
    assert all(len(piece) <= 100 for piece in pieces)


def test_of_a_large_edition_a_sample_is_read_that_more_text_hardly_changes(tmp_path):
    texts = training_texts("docs", 400)
    folder = write_training(tmp_path / "docs", texts)
    size = sum(map(len, texts.values()))
    some = shelve([folder], 10_000, size // 4)
    assert 0.15 * size < some.num_bytes < 0.35 * size
    write_training(folder, training_texts("more", 8), "train-00001.parquet")
    again = set(shelve([folder], 10_000, size // 4).texts)
    assert len(again & set(some.texts)) > 0.9 * len(some.texts)


def test_an_edition_without_training_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no train-\*\.parquet here; `ratoon prepare` writes them"):
        shelve([tmp_path], 90, 1 << 20)


def test_how_much_of_a_passage_a_document_holds():
    said = prose("the document", 60)
    edited = said.split()
    edited[30] = "otherwise"
    passages = [" ".join(said.upper().split()[10:40]), " ".join(edited[10:50]), prose("another", 40), "too short"]
    copies = Copies(Shelf(passages, ["a", "b", "c", "d"]), {"held": said})
    shares = [copies.share(number, "held") for number in range(4)]
    assert shares[0] == 1
    assert 0.8 < shares[1] < 1  # 5 of 36 runs hold the other word
    assert shares[2] < 0.1
    assert shares[3] == 1  # says nothing


def test_whole_documents_are_found_where_they_are_and_the_others_left_out(tmp_path):
    folder = write_held_out(tmp_path / "docs", {"a": "one", "b": "two"})
    assert whole_documents([folder], {"docs-a", "from-a-file"}) == {"docs-a": "one"}
