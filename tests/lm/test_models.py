import json
import shutil

import pytest

from ratoon.config import Base, ConfigError, PrepareConfig, Source
from ratoon.corpus.clean import clean
from ratoon.corpus.packed import FORMAT, Index, ShardCounts
from ratoon.corpus.sources import ingest
from ratoon.corpus.tokenizer import tokenizer_digest, train_tokenizer
from ratoon.lm.base import check_tokenizer, copy_tokenizer, obtain
from ratoon.lm.llama import new_llama
from ratoon.lm.load import expected_size, load_model, load_tokenizer, non_embedding


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    words = ("root", "shoot", "crop", "field", "cane", "rain")
    texts = [f"the {a} of a {b} is not a {c}" for a in words for b in words for c in words]
    (root / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    source = Source(name="texts", role="general", origins=({"path": "texts.jsonl"},))
    prepare = PrepareConfig(rules={"prose": {}}, held_out={"share": 0.1, "min_documents": 1})
    ingest(source, root, root / "documents")
    clean(source, prepare, root / "documents", root / "clean")
    train_tokenizer([root / "clean"], 280, root / "tiny")
    return root / "tiny"


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    from ratoon.config import Scratch

    shape = {"hidden": 16, "layers": 2, "heads": 2, "feed_forward": 32, "tokens": 1, "learning_rate": 1}
    words = load_tokenizer(tokenizer)
    out = tmp_path_factory.mktemp("models") / "tiny"
    copy_tokenizer(tokenizer, out)
    scratch = Scratch(kind="scratch", rows_per_step=1, **shape)
    new_llama(scratch, len(words), words.eos_token_id).save_pretrained(out)
    return out


def packed_with(digest, folder):
    none = ShardCounts(tokens=0, documents=0, bytes=0)
    folder.mkdir(parents=True)
    index = Index(
        format=FORMAT,
        base="tiny",
        tokenizer=digest,
        vocabulary=280,
        dtype="<u2",
        separator=0,
        row_tokens=8,
        shards={"train": {}, "held_out": {}},
        totals={"train": none, "held_out": none},
    )
    (folder / "rows.json").write_text(index.model_dump_json())
    return folder


def pretrained(path):
    return Base(name="mine", row_tokens=8, weights={"kind": "pretrained", "path": str(path)})


def test_parameters_without_embeddings_are_what_the_laws_call_n(model):
    loaded = load_model(model)
    by_hand = sum(p.numel() for name, p in loaded.named_parameters() if "embed" not in name)
    assert non_embedding(loaded) == by_hand


def test_a_local_directory_is_a_base_as_it_is(model, tmp_path):
    assert obtain(pretrained(model), tmp_path) == model


def test_rows_of_the_models_own_tokenizer_are_taken(model, tokenizer, tmp_path):
    check_tokenizer(model, packed_with(tokenizer_digest(tokenizer), tmp_path / "rows"))


def test_a_base_whose_tokenizer_does_not_match_its_rows_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match=r"packed with tokenizer 0123; the model in .* declare the base"):
        check_tokenizer(model, packed_with("0123", tmp_path / "rows"))


def test_a_model_cut_short_is_refused_with_both_sizes(model, tmp_path):
    short = tmp_path / "short"
    shutil.copytree(model, short)
    file = short / "model.safetensors"
    promised = expected_size(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=f"checkpoint cut short or damaged: {promised - 100:,} bytes, .* {promised}"):
        load_model(short)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no model here"),
        ({"config.json": "{}"}, "no .safetensors file"),
        ({"config.json": "{}", "pytorch_model.bin": "x"}, "found pytorch_model.bin: convert it to safetensors first"),
        ({"config.json": "{}", "model.safetensors": "junk"}, "cut short or damaged"),
    ],
)
def test_a_directory_that_is_no_safe_model_is_refused(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_model(tmp_path)


def test_a_model_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no tokenizer here"):
        load_tokenizer(tmp_path)


def test_a_hub_id_offline_is_told_with_what_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"'some/model' is neither a directory here nor a model the hub gave us"):
        obtain(pretrained("some/model"), tmp_path)
    assert not list((tmp_path / "models" / "weights").iterdir())


def test_a_missing_package_is_told_with_the_command_that_brings_it(tmp_path):
    base = Base(name="mine", row_tokens=8, weights={"kind": "gguf", "package": "no-such-package", "file": "*.gguf"})
    with pytest.raises(ConfigError, match="`pip install no-such-package`"):
        obtain(base, tmp_path)


@pytest.mark.slow
def test_a_gguf_in_a_package_becomes_safetensors_with_its_tokenizer(tmp_path):
    from pathlib import Path

    from ratoon import config

    base = config.base(Path(__file__).parents[2], "smollm2-135m")
    out = obtain(base, tmp_path)
    assert json.loads((out / "config.json").read_text())["hidden_size"] == 576
    words = load_tokenizer(out)
    text = "Ratoon crops grow again:\r\n\tfrom the same root \U0001f331"
    assert words.decode(words.encode(text)) == text
    assert non_embedding(load_model(out)) == 106_203_456
    assert obtain(base, tmp_path) == out
