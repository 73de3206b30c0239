"""A packed document reads as if it were alone, in every family, and what would make it leak is noticed."""

import numpy as np
import pytest
import torch
import transformers
from families import END, FAMILIES, build
from torch.nn.functional import cross_entropy
from transformers.integrations.flash_attention import get_target_dtype
from transformers.modeling_flash_attention_utils import _is_packed_sequence
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ratoon.config import ConfigError, TrainConfig
from ratoon.lm import attention
from ratoon.stream.mixture import Batch
from ratoon.stream.rows import positions_in_documents
from ratoon.training.loop import labels, new_state, summed_loss
from ratoon.training.methods.importance import fisher


@pytest.fixture(params=FAMILIES)
def model(request):
    return build(request.param)


@pytest.fixture
def llama():
    return build("llama")


def pack(*rows):
    """Rows of documents of the given lengths, separators included; ids differ throughout a row."""
    random = np.random.default_rng(3)
    return np.array([np.concatenate([[*random.integers(1, 64, n - 1), END] for n in row]) for row in rows])


ROWS = ((7, 1, 1, 9, 2), (20,), (1, 19), (3, 3, 14))
TOKENS = pack(*ROWS)
WHOLE = np.full(len(ROWS), 20)


DOCUMENT = TrainConfig(tokens=1, learning_rate=0.01, rows_per_step=4, attention="document")


def spans(rows=ROWS):
    for row, sizes in enumerate(rows):
        for n in range(len(sizes)):
            yield row, slice(sum(sizes[:n]), sum(sizes[: n + 1]))


def packed_logits(model, tokens=TOKENS):
    positions = torch.from_numpy(positions_in_documents(tokens, END))
    return attention.logits(model, torch.from_numpy(tokens), positions)


# Documents apart


def test_packed_logits_are_those_of_each_document_alone(model):
    packed = packed_logits(model)
    for row, span in spans():
        alone = model(input_ids=torch.from_numpy(TOKENS[row : row + 1, span])).logits[0]
        assert torch.allclose(packed[row, span], alone, atol=1e-5)


def test_changing_a_document_changes_nothing_in_another(model):
    before = packed_logits(model)
    for row, span in spans(ROWS[:1]):
        changed = TOKENS.copy()
        changed[row, span.start : span.stop - 1] = 63 - changed[row, span.start : span.stop - 1]
        after = packed_logits(model, changed)
        same = torch.ones(TOKENS.shape, dtype=torch.bool)
        same[row, span] = False
        assert torch.equal(before[same], after[same])


def test_no_gradient_crosses_a_document_boundary(model):
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda *call: seen.append(call[2]) or call[2].retain_grad())
    tokens, second = pack((9, 11)), slice(9, 20)
    positions = torch.from_numpy(positions_in_documents(tokens, END))
    wanted = labels(torch.from_numpy(tokens), np.array([20]), positions)
    wanted[:, : second.start - 1] = -100  # the loss of the second document alone, its first token's had it one
    found = packed_logits(model, tokens)[:, :-1]
    cross_entropy(found.reshape(-1, 64), wanted.reshape(-1)).backward()
    assert torch.count_nonzero(seen[0].grad[:, : second.start]) == 0
    assert torch.count_nonzero(seen[0].grad[:, second.start : -1]) > 0


def test_rows_without_a_boundary_have_the_bits_of_row_attention(model):
    tokens = pack((20,), (20,))
    plain = attention.logits(model, torch.from_numpy(tokens))
    assert torch.equal(packed_logits(model, tokens), plain)


def test_row_attention_is_the_plain_forward_pass(model):
    ids = torch.from_numpy(TOKENS)
    found = model(input_ids=ids, use_cache=False).logits[:, :-1]
    plain = cross_entropy(found.reshape(-1, 64).float(), ids[:, 1:].reshape(-1), reduction="sum")
    assert summed_loss(model, TOKENS, WHOLE).item() == pytest.approx(plain.item(), rel=1e-6)  # sums another way


def test_the_summed_loss_of_a_packed_row_is_that_of_its_documents(model):
    alone = [summed_loss(model, TOKENS[row : row + 1, s], np.array([s.stop - s.start])).item() for row, s in spans()]
    assert summed_loss(model, TOKENS, WHOLE, END).item() == pytest.approx(sum(alone), rel=1e-5)


# Traps: each is set, and must be noticed

TRAPS = {
    "a mask of ones": lambda call: {**call, "attention_mask": torch.ones_like(call["input_ids"])},
    "a cache object": lambda call: {**call, "use_cache": True},
    "no positions": lambda call: {key: value for key, value in call.items() if key != "position_ids"},
    "positions that go on": lambda call: {
        **call,
        "position_ids": call["position_ids"] + 3 * (call["position_ids"].diff(prepend=call["position_ids"][:, :1]) < 0),
    },
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_model_that_leaks_is_refused_before_it_is_trained(llama, trap, monkeypatch):
    assert attention.isolate(llama) == "sdpa"
    forward = llama.forward

    def leaking(**call):
        return forward(**TRAPS[trap](call) if "position_ids" in call else call)

    monkeypatch.setattr(llama, "forward", leaking)
    with pytest.raises(ConfigError, match=r"llama reads across documents of a row.*allowed for this model: row"):
        new_state(llama, DOCUMENT, separator=END)


def test_a_leak_smaller_than_rounding_is_noticed(llama, monkeypatch):
    forward = llama.forward

    def leaking(**call):
        found = forward(**call)
        found.logits = found.logits + 1e-6 * call["input_ids"][:, :1, None]
        return found

    monkeypatch.setattr(llama, "forward", leaking)
    assert not attention.keeps_apart(llama)


@pytest.mark.parametrize("kind", ["mamba", "bloom"])
def test_families_that_cannot_keep_documents_apart_are_refused(kind):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "n_head": 2, "n_layer": 1}
    made = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, vocab_size=64, **sizes), dtype=torch.float32
    )
    with pytest.raises(ConfigError, match=rf"{kind} reads across documents"):
        attention.isolate(made)


def test_asking_a_model_leaves_it_as_it_was(llama):
    llama.train()
    before, state = [p.clone() for p in llama.parameters()], torch.get_rng_state()
    attention.isolate(llama)
    assert llama.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, llama.parameters(), strict=True))


def test_document_attention_without_a_separator_is_refused(llama):
    with pytest.raises(ConfigError, match=r"train.attention: document: these rows name no separator"):
        new_state(llama, DOCUMENT)


# Routing


def flash_reference(module, query, key, value, mask, scaling=None, cu_seq_lens_q=None, sliding_window=None, **rest):
    """Varlen attention as flash has it; without lengths a row is one text."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap := rest.get("softcap"):
        scores = torch.tanh(scores / softcap) * softcap
    place = torch.arange(query.shape[2])
    ends = place.new_tensor([0]) if cu_seq_lens_q is None else cu_seq_lens_q
    document = torch.searchsorted(ends, place, right=True)
    back = place[:, None] - place
    seen = (document[:, None] == document) & (back >= 0) & (back < (sliding_window or 1000))
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value).transpose(1, 2), None


@pytest.fixture
def flash(monkeypatch):
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_reference", flash_reference)
    return "flash_reference"


def test_flash_attention_is_told_of_every_document_of_every_row(model, flash):
    expected = packed_logits(model)
    model.config._attn_implementation = flash
    assert torch.allclose(packed_logits(model), expected, atol=1e-5)
    assert attention.keeps_apart(model)


def test_slopes_of_general_rows_are_taken_where_attention_has_no_float32(llama, flash, monkeypatch):
    def without_float32(module, query, key, value, mask, **rest):
        assert get_target_dtype(query, module) in (None, torch.bfloat16), "FlashAttention only supports fp16 and bf16"
        found, _ = flash_reference(module, query, key, value, mask, **rest)
        return found.to(torch.bfloat16), None

    expected = fisher(llama, [Batch(TOKENS, WHOLE)], END)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, flash, without_float32)
    llama.config._attn_implementation = flash
    found = fisher(llama, [Batch(TOKENS, WHOLE)], END)
    assert all(torch.allclose(found[name].sum(), expected[name].sum(), rtol=0.2, atol=1e-6) for name in expected)


def test_flash_attention_on_rows_side_by_side_is_noticed(llama, flash, monkeypatch):
    assert not _is_packed_sequence(torch.tensor([[0, 1, 0, 1]] * 2), batch_size=2)
    llama.config._attn_implementation = flash
    monkeypatch.setattr(attention, "is_flash", lambda _: False)
    assert not attention.keeps_apart(llama)


def test_documents_laid_end_to_end_are_cut_where_they_are():
    positions = torch.from_numpy(positions_in_documents(TOKENS, END))
    found = attention.varlen(positions)
    assert found["cu_seq_lens_q"].tolist() == [0, *np.cumsum([size for row in ROWS for size in row])]
    assert found["max_length_q"] >= max(size for row in ROWS for size in row)


@pytest.mark.slow  # transformers compiles it
def test_flex_attention_keeps_documents_apart(llama):
    expected = packed_logits(llama)
    llama.set_attn_implementation("flex_attention")
    with torch.no_grad():  # it has no backward on a CPU
        assert torch.allclose(packed_logits(llama), expected, atol=1e-5)


def test_a_gpu_tries_varlen_first_and_a_cpu_stays_with_a_mask(monkeypatch):
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    assert list(attention.candidates("cuda", "sdpa", True)) == ["flash_attention_2", "sdpa"]
    assert list(attention.candidates("cuda", "sdpa", False)) == ["sdpa"]
    assert list(attention.candidates("cpu", "sdpa", True)) == ["sdpa"]


def test_an_attention_this_machine_cannot_run_is_passed_over(llama, monkeypatch):
    monkeypatch.setattr(attention, "candidates", lambda *_: iter(["flash_attention_2", "sdpa"]))
    assert attention.isolate(llama, bf16=True) == llama.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("bf16", [False, True])
def test_a_model_that_keeps_documents_apart_is_taken_as_it_is(model, bf16):
    own = model.config._attn_implementation
    assert attention.isolate(model, bf16=bf16) == model.config._attn_implementation == own
