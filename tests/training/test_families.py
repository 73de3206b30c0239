"""Every family is trained, saved, resumed and released by the same code."""

import pytest
import torch
from families import FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM

from ratoon.training.run import train


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of_any_family_learns_and_loads_in_transformers(family, request_for, tmp_path):
    torch.manual_seed(0)
    config = FAMILIES[family]()
    request = request_for(tokens=12 * 8 * 16)
    config.vocab_size = AutoConfig.from_pretrained(request.model).vocab_size
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / family)
    request = request.model_copy(update={"model": str(tmp_path / family)})
    result = train(request)
    general = [o.loss_nats for o in result.observations if o.evaluated == "general"]
    assert general[-1] < general[0]
    again = AutoModelForCausalLM.from_pretrained(result.model)
    assert again.config.model_type == config.model_type
    shared = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert shared == bool(config.tie_word_embeddings)
