"""A base that cannot be continued here is refused with the reason, before anything is packed for it."""

import json

import pytest
from families import FAMILIES, build
from safetensors.torch import load_file, save_file

from ratoon.config import Base, ConfigError
from ratoon.lm.base import obtain
from ratoon.lm.load import load_model
from ratoon.lm.suitable import license_of


@pytest.fixture
def declare(tmp_path):
    """A directory like a model's, and its declaration; `config` and `tokenizer` are laid over a fitting one."""

    def make(family="llama", card=None, license=None, row_tokens=32, added=(), vocab=None, **config):
        folder = tmp_path / "model"
        build(family).save_pretrained(folder)
        own = {**json.loads((folder / "config.json").read_text()), **config}
        (folder / "config.json").write_text(json.dumps(own))
        words = {f"w{n}": n for n in range(64)} if vocab is None else vocab
        tokenizer = {"model": {"type": "BPE", "vocab": words}, "added_tokens": [{"id": n} for n in added]}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        if card is not None:
            (folder / "README.md").write_text(card)
        weights = {"kind": "pretrained", "path": str(folder)}
        return Base(name="given", row_tokens=row_tokens, license=license, weights=weights), folder

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_taken_as_it_is(declare, family, tmp_path):
    base, folder = declare(family)
    assert obtain(base, tmp_path) == folder


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"row_tokens": 65}, "row_tokens 65 is more than the model's max_position_embeddings of 64; give at most 64"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by gptq"),
        ({"vision_config": {}}, "more than text"),
        ({"model_type": "t5"}, "t5, no causal language model"),
        ({"model_type": "bert", "is_encoder_decoder": True}, "no causal language model"),
        ({"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.py"}}, "code of its own, which is never run"),
        ({"added": (64,)}, "an id 64 and the model 64 embeddings"),
        ({"vocab": [["w", 0.0]] * 65}, "an id 64 and the model 64 embeddings"),
        ({"card": "---\nlicense: llama3\n---\n", "license": "mit"}, "'mit', and the model card in .* says 'llama3'"),
    ],
)
def test_what_cannot_be_continued_is_refused_with_the_reason(declare, tmp_path, asked, said):
    base, _ = declare(**asked)
    with pytest.raises(ConfigError, match=f"models/bases/given.yaml: .*{said}"):
        obtain(base, tmp_path)


def test_a_family_with_learned_positions_is_asked_for_its_own_limit(declare, tmp_path):
    base, _ = declare("gpt2", row_tokens=65)
    with pytest.raises(ConfigError, match="n_positions of 64"):
        obtain(base, tmp_path)


def test_an_embedding_padded_beyond_the_tokenizer_is_no_mistake(declare, tmp_path):
    base, folder = declare(vocab={"a": 0, "b": 1})
    assert obtain(base, tmp_path) == folder


def without(folder, name, instead=None):
    """The model in `folder` saved with a tensor lost, or under another name."""
    tensors = load_file(folder / "model.safetensors")
    lost = tensors.pop(name)
    save_file(tensors | ({instead: lost} if instead else {}), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "instead", "said"),
    [
        ("lm_head.weight", None, r": lm_head\.weight; each would begin as random numbers"),
        ("lm_head.weight", "head.weight", r": lm_head\.weight; there instead, .*LlamaForCausalLM: head\.weight; each"),
        ("model.layers.1.mlp.up_proj.weight", None, r": model\.layers\.1\.mlp\.up_proj\.weight; each"),
    ],
)
def test_a_base_is_never_filled_up_with_random_numbers(declare, tmp_path, name, instead, said):
    base, folder = declare(tie_word_embeddings=False)
    build("llama", tie_word_embeddings=False).save_pretrained(folder)
    without(folder, name, instead)
    for opened in (lambda: obtain(base, tmp_path), lambda: load_model(folder)):
        with pytest.raises(ConfigError, match=rf"weights are missing from its \.safetensors{said}"):
            opened()


def test_a_head_that_is_the_embedding_need_not_be_there_twice(declare, tmp_path):
    base, folder = declare("qwen2", tie_word_embeddings=True)
    build("qwen2", tie_word_embeddings=True).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert obtain(base, tmp_path) == folder
    load_model(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_missed_a_weight_of(declare, tmp_path, family):
    base, folder = declare(family)
    names = load_file(folder / "model.safetensors")
    lost = next(name for name in names if "norm" in name or "ln_" in name)
    without(folder, lost)
    with pytest.raises(ConfigError, match=f"missing from its .safetensors: {lost}; each"):
        obtain(base, tmp_path)


def test_a_weight_of_another_shape_than_config_says_is_refused(declare, tmp_path):
    base, _ = declare(intermediate_size=40)
    with pytest.raises(ConfigError, match="transformers cannot load this model"):
        obtain(base, tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ['{"version":', "[]"])
def test_a_damaged_file_of_a_base_is_told_by_its_name(declare, tmp_path, file, text):
    base, folder = declare()
    (folder / file).write_text(text)
    with pytest.raises(
        ConfigError, match=f"{folder}/{file}: (not readable as JSON: Expecting|found list, expected keys)"
    ):
        obtain(base, tmp_path)


@pytest.mark.parametrize(
    ("card", "declared", "found"),
    [
        ("---\ntags: [x]\nlicense: Apache-2.0  # as is\n---\n# Model", None, "apache-2.0"),
        ("---\nlicense: apache-2.0\n---\n", "Apache-2.0", "Apache-2.0"),
        ("# Model\nlicense: mit\n", None, None),
        (None, None, None),
        (None, "mit", "mit"),
    ],
)
def test_the_licence_is_the_declared_one_or_the_card_s(declare, tmp_path, card, declared, found):
    base, folder = declare(card=card, license=declared)
    obtain(base, tmp_path)
    assert license_of(folder, base) == found
