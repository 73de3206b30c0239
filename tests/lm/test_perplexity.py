"""Bits per byte under a model: what a plain reading of the same model gives, and the stage that keeps them."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
import yaml

from ratoon import stages
from ratoon.config import ConfigError, ModelPerplexity
from ratoon.corpus.edition import read_ledger, shards
from ratoon.corpus.tokenizer import train_tokenizer
from ratoon.layout import Layout
from ratoon.lm.load import load_model
from ratoon.lm.perplexity import CHARS, measure

ROW = 32
TEXTS = [
    *(f"Note {i}: the river and the {'stone ' * (i % 7)}bridge, {'æøå ' * (i % 3)}again {i}." for i in range(40)),
    "a",
    "",
    "The same words again and again. " * 60,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model with random weights and a tokenizer trained on some text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("model")
    folder = root / "tiny"
    table = pa.table({"id": [f"{i:032x}" for i in range(len(TEXTS))], "text": TEXTS})
    (root / "clean").mkdir()
    parquet.write_table(table, root / "clean" / "train-a.parquet")
    ledger = {"source": "a", "role": "general", "stage": "clean", "config": "", "shards": {"train-a.parquet": ""}}
    funnel = {"documents_in": 1, "bytes_in": 1, "documents_kept": 1, "bytes_kept": 1}
    (root / "clean" / "ledger.json").write_text(json.dumps({**ledger, "funnel": funnel}))
    train_tokenizer([root / "clean"], 300, folder)
    shape = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=ROW,
        initializer_range=0.3,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


def asked(**changes):
    return ModelPerplexity(kind="model", base="tiny", **{"max_tokens": 100, **changes})


def scored(model, texts, **changes):
    return measure(model, ROW, asked(**changes)).open().scores(pa.array(texts, pa.string()))[""]


def plainly(model, text, most=100):
    """One token at a time, without batches."""
    scorer = measure(model, ROW, asked()).open()
    ids = [scorer.separator, *scorer.encoder.encode(text, add_special_tokens=False).ids[:most]]
    read = scorer.encoder.decode(ids[1:])
    whole, bits = load_model(model), 0.0
    for at in range(1, len(ids)):
        first = (at - 1) // ROW * ROW
        with torch.inference_mode():
            logits = whole(torch.tensor([ids[first:at]])).logits[0, -1].double()
        bits -= float(logits.log_softmax(-1)[ids[at]]) / math.log(2)
    return bits / len(read.encode()) if len(ids) > 1 else math.nan


def test_a_score_is_what_a_reading_token_by_token_gives(model):
    found = scored(model, TEXTS)
    for text, bits in zip(TEXTS, found, strict=True):
        assert bits == pytest.approx(plainly(model, text), abs=1e-4, nan_ok=True)
    assert np.isnan(found[TEXTS.index("")])


def test_neither_neighbours_nor_the_size_of_batches_change_a_score(model):
    found = scored(model, TEXTS)
    for batch_tokens in (1, 64, 100_000):
        assert scored(model, TEXTS, batch_tokens=batch_tokens) == pytest.approx(found, abs=2e-4, nan_ok=True)
    assert scored(model, TEXTS[::-1])[::-1] == pytest.approx(found, abs=2e-4, nan_ok=True)
    assert scored(model, TEXTS).tobytes() == found.tobytes()


def test_of_a_long_text_the_beginning_is_measured_and_no_more_is_read(model):
    long = "river and stone. " * 4000
    head = long[: CHARS * 20]
    (whole,) = scored(model, [long], max_tokens=20)
    assert whole == scored(model, [head], max_tokens=20)[0] == pytest.approx(plainly(model, long, 20), abs=1e-4)


def test_other_weights_and_other_settings_are_another_scorer(model, tmp_path):
    first = measure(model, ROW, asked())
    assert first.content() == measure(model, ROW, asked(sources=("web",))).content()
    assert first.content() != measure(model, ROW, asked(max_tokens=99)).content()
    assert first.content() != measure(model, ROW // 2, asked()).content()
    copy = tmp_path / "other"
    whole = load_model(model)
    with torch.no_grad():
        whole.lm_head.weight[0, 0] += 1
    whole.save_pretrained(copy)
    for file in model.glob("tokenizer*"):
        (copy / file.name).write_bytes(file.read_bytes())
    assert measure(copy, ROW, asked()).content() != first.content()


def test_the_cost_is_told_before_it_is_paid(model):
    found = measure(model, ROW, asked())
    assert found.parameters == sum(p.numel() for p in load_model(model).parameters())
    told = found._replace(parameters=135_000_000).cost(1_000_000, 10**10)
    assert told == "100.0 M tokens through 135.0 M parameters, 2.7e+16 FLOPs, about 375.0 hours of a core"


def test_a_device_that_is_not_there_is_refused(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda was asked for and this machine has no usable GPU"):
        scored(model, ["text"], device="cuda")


def project(root, model, **base):
    files = {
        "data/sources/notes.yaml": {"name": "notes", "role": "domain", "origins": [{"path": "raw"}]},
        "models/bases/tiny.yaml": {
            "name": "tiny",
            "row_tokens": ROW,
            "weights": {"kind": "pretrained", "path": str(model)},
            **base,
        },
        "params.yaml": {
            **yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text()),
            "refresh": {"base": "tiny", "sources": ["notes", "other"]},
            "prepare": {
                "bases": ["tiny"],
                "rules": {"prose": {}},
                "scores": {"ppl": {"kind": "model", "base": "tiny", "max_tokens": 100}},
            },
            "budgets": {},
        },
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(yaml.safe_dump(content))
    (root / "raw").mkdir()
    for i, text in enumerate(filter(None, TEXTS)):
        (root / "raw" / f"{i:02}.txt").write_text(text)
    stages.ingest(root, "notes")
    return root


def test_the_stage_scores_with_a_declared_base_once_and_says_what_it_costs(model, tmp_path, capsys, monkeypatch):
    root = project(tmp_path, model)
    stages.scorers(root)
    ledger = stages.score(root, "notes")
    assert "score notes: ppl: 0.0 M tokens through 0.0 M parameters" in capsys.readouterr().err
    tables = [parquet.read_table(path) for path in shards(Layout(root).documents("notes"))]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    found = [parquet.read_table(path)["ppl"].to_pylist() for path in shards(Layout(root).scores("notes"))]
    expected = [bits if bits == bits else None for bits in scored(model, texts).astype(np.float32).tolist()]
    assert [bits for part in found for bits in part] == pytest.approx(expected, abs=2e-4)
    assert not any(name.startswith("models/") for name in ledger.shards)
    monkeypatch.setattr("ratoon.corpus.scores.stage.write_scores", None)
    assert stages.score(root, "notes") == ledger == read_ledger(Layout(root).scores("notes"))


def test_a_base_that_has_no_weights_yet_is_refused_with_the_way_out(model, tmp_path):
    size = {"hidden": 8, "layers": 1, "heads": 1, "feed_forward": 8, "tokens": 1, "learning_rate": 1e-3}
    root = project(tmp_path, model, weights={"kind": "scratch", **size, "rows_per_step": 1})
    with pytest.raises(ConfigError, match=r"scores.ppl: base 'tiny' has no weights yet(.|\n)*prepare once without"):
        stages.score(root, "notes")
