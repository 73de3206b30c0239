"""Tokenizer and packing: any text comes back, and no token is lost or invented."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from small_sources import base, lines, notes, recipe, sentence, tree

from ratoon.config import ConfigError
from ratoon.corpus import pack as room
from ratoon.corpus.clean import clean
from ratoon.corpus.documents import rows
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.pack import pack
from ratoon.corpus.packed import read_index
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import SEPARATOR, load, tokenizer_digest, train_tokenizer
from ratoon.stream.rows import Rows

ROOT = Path(__file__).parents[2]
ODD = [
    "  leading and trailing  ",
    "a\r\nb\rc\n\n\td\u2028e\x0b",
    "caf\u00e9 e\u0301 \u00df \u4e2d\u6587 \U0001f469\u200d\U0001f680 \U0001f1ea\U0001f1fa",
    f"it says {SEPARATOR} here, and don't 've's 1234 __init__",
    "\ufeffmark \x01\x7f \ud7ff\ue000\U0010ffff",
    " .  ,  !",
]


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    """A clean edition of four shards with every odd text in it, and a tokenizer trained on it."""
    root = tmp_path_factory.mktemp("pack")
    for i in range(4):
        lines(root / "raw" / f"{i}.jsonl", [*(sentence(60 * i + k) for k in range(60)), *ODD[i::4]])
    ingest(notes(), root, root / "documents")
    clean(notes(), recipe(), root / "documents", root / "clean")
    train_tokenizer([root / "clean"], 512, root / "tokenizer")
    return root


def part(edition, which):
    return [row["text"] for path in shards(edition / "clean", f"{which}-") for row in rows(path)]


def test_any_text_decodes_back_to_itself(edition):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(edition / "tokenizer"))
    for text in [*ODD, *part(edition, "train")[:20], "\x00", ""]:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer) == 512
    assert tokenizer.eos_token == tokenizer.pad_token == SEPARATOR
    assert tokenizer.bos_token is None
    assert tokenizer("plain")["input_ids"] == tokenizer.encode("plain", add_special_tokens=False)


def test_the_same_text_gives_the_same_tokenizer_in_another_process(edition, tmp_path):
    code = (
        "import sys; from pathlib import Path; from ratoon.corpus.tokenizer import train_tokenizer\n"
        "print(train_tokenizer([Path(sys.argv[1])], 512, Path(sys.argv[2])))"
    )
    for seed in "12":
        out = tmp_path / seed
        arguments = [sys.executable, "-c", code, str(edition / "clean"), str(out)]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": seed}
        printed = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout
        assert printed.strip() == tokenizer_digest(edition / "tokenizer")
        assert tree(out) == tree(edition / "tokenizer")


def test_the_digest_knows_a_tokenizer_by_what_it_does(edition, tmp_path):
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(str(edition / "tokenizer"))
    saved.model_max_length = 77
    saved.save_pretrained(str(tmp_path / "saved"))
    assert tokenizer_digest(tmp_path / "saved") == tokenizer_digest(edition / "tokenizer")
    train_tokenizer([edition / "clean"], 400, tmp_path / "other")
    assert tokenizer_digest(tmp_path / "other") != tokenizer_digest(edition / "tokenizer")


def test_a_sample_of_the_text_trains_too_and_held_out_text_is_never_seen(edition, tmp_path):
    assert train_tokenizer([edition / "clean"], 300, tmp_path / "sample", max_bytes=8000)
    from ratoon.corpus.tokenizer import _sample

    seen = set(_sample([edition / "clean"], 8000))
    assert 4000 < sum(len(text.encode()) for text in seen) < 12000
    assert seen < set(part(edition, "train"))


def test_too_little_text_for_the_vocabulary_is_refused_and_nothing_is_written(edition, tmp_path):
    with pytest.raises(ConfigError, match=r"gives a vocabulary of \d+, not 60000; add general text or ask for"):
        train_tokenizer([edition / "clean"], 60000, tmp_path / "t")
    assert not list(tmp_path.iterdir())


def test_every_token_of_every_document_is_there_once_and_one_separator_after_each(edition, tmp_path):
    ledger = pack(notes(), edition / "clean", edition / "tokenizer", base(), tmp_path / "rows")
    encoder, separator = load(edition / "tokenizer")
    for which, num_tokens in (("train", ledger.tokens), ("held_out", ledger.held_out_tokens)):
        texts = part(edition, which)
        packed = Rows.open(tmp_path / "rows", which)
        assert [encoder.decode(list(ids[:-1])) for ids in packed.documents()] == texts
        expected = [[*encoder.encode(text, add_special_tokens=False).ids, separator] for text in texts]
        assert [list(ids) for ids in packed.documents()] == expected
        assert packed.num_tokens == num_tokens == sum(map(len, expected))
        assert packed.num_bytes == sum(len(text.encode()) for text in texts)
        read, valid = packed.read(np.arange(packed.num_rows))
        assert [i for row, n in zip(read, valid, strict=True) for i in row[:n]] == list(chain.from_iterable(expected))
    assert read_ledger(tmp_path / "rows") == ledger
    assert ledger.funnel.documents_kept == ledger.funnel.documents_in == 240 + len(ODD)


def test_a_text_that_spells_the_separator_does_not_end_its_document(edition, tmp_path):
    pack(notes(), edition / "clean", edition / "tokenizer", base(), tmp_path / "rows")
    for which in ("train", "held_out"):
        packed = Rows.open(tmp_path / "rows", which)
        read, valid = packed.read(np.arange(packed.num_rows))
        separators = sum(int((row[:n] == packed.separator).sum()) for row, n in zip(read, valid, strict=True))
        assert separators == packed.num_documents


def test_a_long_document_is_read_in_pieces_and_gives_the_tokens_of_the_whole(edition, monkeypatch):
    encoder, _ = load(edition / "tokenizer")
    text = " ".join([*ODD, *part(edition, "train")[:50]])
    whole = encoder.encode(text, add_special_tokens=False).ids
    assert room.separable(encoder)
    for size in (1, 7, 100, len(text)):
        monkeypatch.setattr(room, "PIECE_CHARS", size)
        cut = list(room.pieces(text))
        assert "".join(cut) == text
        assert [i for piece in cut for i in encoder.encode(piece, add_special_tokens=False).ids] == whole
        assert len(cut) > 1 or size == len(text)


def test_a_tokenizer_with_rules_of_its_own_gets_every_document_whole():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    encoder = Tokenizer(models.BPE())
    for step in (pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel(use_regex=False)):
        encoder.pre_tokenizer = step
        assert not room.separable(encoder)
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert room.separable(encoder)
    encoder.normalizer = normalizers.NFC()
    assert not room.separable(encoder)


def test_packing_again_makes_nothing_and_new_text_only_its_own_shards(edition, tmp_path, monkeypatch):
    out = tmp_path / "rows"
    first = pack(notes(), edition / "clean", edition / "tokenizer", base(), out)
    made = []
    fill = room._fill
    monkeypatch.setattr(room, "_fill", lambda packer, encoder, path: made.append(path) or fill(packer, encoder, path))
    assert pack(notes(), edition / "clean", edition / "tokenizer", base(), out) == first
    assert made == []
    lines(tmp_path / "raw" / "new.jsonl", [sentence(i) for i in range(900, 940)])
    for path in (edition / "raw").iterdir():
        (tmp_path / "raw" / path.name).write_bytes(path.read_bytes())
    ingest(notes(), tmp_path, tmp_path / "documents")
    clean(notes(), recipe(), tmp_path / "documents", tmp_path / "clean")
    pack(notes(), tmp_path / "clean", edition / "tokenizer", base(), out)
    assert len(made) == 2  # its training part and its held-out part
    pack(notes(), tmp_path / "clean", edition / "tokenizer", base(), tmp_path / "at-once")
    assert tree(out) == tree(tmp_path / "at-once")


def test_another_row_length_keeps_the_tokens(edition, tmp_path):
    pack(notes(), edition / "clean", edition / "tokenizer", base(16), tmp_path / "rows")
    before = tree(tmp_path / "rows" / "train")
    pack(notes(), edition / "clean", edition / "tokenizer", base(32), tmp_path / "rows")
    assert tree(tmp_path / "rows" / "train") == before
    assert Rows.open(tmp_path / "rows").row_tokens == 32


def test_the_index_says_what_the_rows_are(edition, tmp_path):
    pack(notes(), edition / "clean", edition / "tokenizer", base(), tmp_path / "rows")
    index = read_index(tmp_path / "rows")
    assert (index.base, index.vocabulary, index.dtype, index.row_tokens) == ("tiny", 512, "<u2", 16)
    assert index.tokenizer == tokenizer_digest(edition / "tokenizer")


def test_limits_and_additions_of_a_borrowed_tokenizer_play_no_part(edition, tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    borrowed = Tokenizer.from_file(str(edition / "tokenizer" / "tokenizer.json"))
    borrowed.enable_truncation(3)
    borrowed.enable_padding(length=9)
    borrowed.post_processor = TemplateProcessing(single=f"{SEPARATOR} $A", special_tokens=[(SEPARATOR, 0)])
    (tmp_path / "borrowed").mkdir()
    borrowed.save(str(tmp_path / "borrowed" / "tokenizer.json"))
    config = {"eos_token": {"content": SEPARATOR, "lstrip": False}}
    (tmp_path / "borrowed" / "tokenizer_config.json").write_text(json.dumps(config))
    pack(notes(), edition / "clean", edition / "tokenizer", base(), tmp_path / "a")
    pack(notes(), edition / "clean", tmp_path / "borrowed", base(), tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "names no eos_token; documents are separated by it"),
        ({"eos_token": None}, "names no eos_token"),
        ({"eos_token": "<end>"}, "its eos_token '<end>' is not in the vocabulary"),
    ],
)
def test_a_tokenizer_without_a_separator_is_refused(edition, tmp_path, config, message):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.json").write_bytes((edition / "tokenizer" / "tokenizer.json").read_bytes())
    (tmp_path / "t" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        pack(notes(), edition / "clean", tmp_path / "t", base(), tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def test_a_missing_or_broken_tokenizer_is_refused(edition, tmp_path):
    with pytest.raises(ConfigError, match=r"tokenizer.json: not found; packing needs a fast tokenizer"):
        pack(notes(), edition / "clean", tmp_path, base(), tmp_path / "rows")
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ConfigError, match=r"tokenizer.json: not readable as a tokenizer"):
        pack(notes(), edition / "clean", tmp_path, base(), tmp_path / "rows")


def test_progress_ends_at_its_total(edition, tmp_path):
    heard = []
    ledger = pack(
        notes(), edition / "clean", edition / "tokenizer", base(), tmp_path / "rows", lambda *said: heard.append(said)
    )
    assert heard[-1][:2] == (ledger.funnel.bytes_kept, ledger.funnel.bytes_kept)
