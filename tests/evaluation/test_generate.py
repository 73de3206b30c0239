"""Texts written in batches: each the one transformers writes alone."""

import pytest
import torch
from families import END, FAMILIES, build

from ratoon.evaluation.generate import UNEVEN, Draw, Prompt, Writer, batches

LENGTHS = (3, 9, 5, 5, 1, 12)


class Words:
    """As a tokenizer: a token is a letter or sign."""

    eos_token_id = END

    def decode(self, tokens, skip_special_tokens=True):
        return "".join(chr(63 + token) for token in tokens)


def prompts_of(max_tokens=10, until=()):
    draw = torch.Generator().manual_seed(1)
    return [Prompt(torch.randint(1, 64, (n,), generator=draw).tolist(), max_tokens, until) for n in LENGTHS]


def alone(model, prompt):
    tokens = torch.tensor([prompt.tokens])
    whole = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=prompt.max_tokens, do_sample=False
    )
    return [token for token in whole[0, len(prompt.tokens) :].tolist() if token != END]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_output_is_that_of_transformers_generate(family):
    model = build(family)
    found = Writer(model, Words(), 64).write(prompts_of())
    assert [list(output.tokens) for output in found] == [alone(model, prompt) for prompt in prompts_of()]


def test_a_model_without_a_cache_writes_the_same():
    model = build("llama")
    expected = Writer(model, Words(), 64).write(prompts_of())
    read = model.forward

    def forgetful(*args, use_cache=None, past_key_values=None, **more):
        assert past_key_values is None
        answer = read(*args, use_cache=False, **more)
        answer.past_key_values = None
        return answer

    model.forward = forgetful
    for one, two in zip(Writer(model, Words(), 64).write(prompts_of()), expected, strict=True):
        assert (one.tokens, one.finished) == (two.tokens, two.finished)
        assert one.loglik_nats == pytest.approx(two.loglik_nats, rel=1e-5)


def test_what_is_sampled_does_not_depend_on_the_batch_and_follows_the_seed():
    model = build("qwen2")
    many = Writer(model, Words(), 64).write(prompts_of(), Draw(1.0, seed=3))
    ones = Writer(model, Words(), 64, max_rows=1).write(prompts_of(), Draw(1.0, seed=3))
    other = Writer(model, Words(), 64).write(prompts_of(), Draw(1.0, seed=4))
    assert [it.tokens for it in many] == [it.tokens for it in ones]
    assert [it.tokens for it in many] != [it.tokens for it in other]


def test_samples_follow_the_models_probabilities():
    model = build("llama")
    with torch.no_grad():
        expected = (model(torch.tensor([[5, 6, 7]])).logits[0, -1] / 2).softmax(-1)
    found = Writer(model, Words(), 64, max_rows=2000).write([Prompt([5, 6, 7], 1)] * 2000, Draw(2.0))
    drawn = torch.bincount(torch.tensor([it.tokens[0] if it.tokens else END for it in found]), minlength=64) / 2000
    assert (drawn - expected).abs().sum() / 2 < 0.08  # total variation; of 2000 draws over 64 words about 0.04


def test_a_text_ends_before_the_string_that_was_named():
    model = build("llama")
    whole = Writer(model, Words(), 64).write(prompts_of())
    end = max((it.text for it in whole), key=len)[2:4]
    for before, after in zip(whole, Writer(model, Words(), 64).write(prompts_of(until=(end,))), strict=True):
        assert after.text == before.text.split(end)[0]
        assert after.finished == (before.finished or end in before.text)


def test_a_long_prompt_loses_its_beginning_to_leave_room():
    model = build("llama")
    long = Prompt(list(range(1, 60)), 10)
    (found,) = Writer(model, Words(), 32).write([long])
    assert list(found.tokens) == alone(model, Prompt(long.tokens[-22:], 10))


def test_prompts_share_a_batch_only_with_those_of_about_their_length():
    prompts = [Prompt([1] * n, 5) for n in (40, 1, 2, 39, 90, 3)]
    found = list(batches(prompts, max_rows=2))
    assert sorted(number for batch in found for number in batch) == list(range(6))
    for batch in found:
        lengths = [len(prompts[number].tokens) for number in batch]
        assert max(lengths) - min(lengths) <= UNEVEN
        assert len(batch) <= 2


def test_the_log_likelihood_of_an_output_is_that_of_its_tokens():
    model = build("gemma")
    (found,) = Writer(model, Words(), 64).write([Prompt([4, 9], 6)])
    tokens = torch.tensor([[4, 9, *found.tokens, *([END] if found.finished else [])]])
    with torch.no_grad():
        logs_TV = model(tokens[:, :-1]).logits[0].log_softmax(-1)
    right = logs_TV.gather(1, tokens[0, 1:, None])[1:].sum().item()
    assert found.loglik_nats == pytest.approx(right, rel=1e-5)
