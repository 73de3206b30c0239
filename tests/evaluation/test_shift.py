"""How far weights moved: against the definition, on models where the answer is known."""

import pytest
import torch
from safetensors.torch import save_file

from ratoon.config import ConfigError
from ratoon.evaluation import shift as module
from ratoon.evaluation.shift import shift

LAYER = "model.layers.0.self_attn.q_proj.weight"


def write(folder, tensors, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    save_file(tensors, folder / name)
    return folder


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {
        "model.embed_tokens.weight": torch.randn(50, 8),
        LAYER: torch.randn(8, 8),
        "model.layers.1.mlp.up_proj.weight": torch.randn(16, 8),
        "model.norm.weight": torch.ones(8),
    }


def moved(found, name):
    return next(each for each in (*found.kinds, *found.movers) if each.name == name)


def test_a_model_is_where_it_is(weights, tmp_path):
    found = shift(write(tmp_path / "a", weights), write(tmp_path / "b", weights))
    assert found.total.distance == 0
    assert found.total.cosine == pytest.approx(1)
    assert found.total.numbers == sum(w.numel() for w in weights.values())
    assert not found.new_tokens


def test_distance_and_cosine_are_those_of_their_definition(weights, tmp_path):
    after = {name: w + 0.1 * torch.randn_like(w) for name, w in weights.items()}
    found = shift(write(tmp_path / "a", weights), write(tmp_path / "b", after))
    p, c = (torch.cat([w.flatten() for w in each.values()]).double() for each in (weights, after))
    assert found.total.distance == pytest.approx(float((c - p).norm() / p.norm()))
    assert found.total.cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(c, p, dim=0)))
    assert {each.name for each in found.kinds} == {"embedding", "attention", "feed-forward", "norm"}
    assert [each.name for each in found.layers] == ["0", "1"]


def test_what_moved_farthest_comes_first(weights, tmp_path):
    after = {**weights, LAYER: 1.5 * weights[LAYER]}
    found = shift(write(tmp_path / "a", weights), write(tmp_path / "b", after))
    assert found.movers[0].name == LAYER
    assert found.movers[0].distance == pytest.approx(0.5)
    assert found.movers[0].cosine == pytest.approx(1)
    assert moved(found, "norm").distance == 0


def test_a_few_rows_at_a_time_give_the_same_and_shards_do_not_matter(weights, tmp_path, monkeypatch):
    after = {name: 1.1 * w for name, w in weights.items()}
    a, b = write(tmp_path / "a", weights), write(tmp_path / "b", after)
    whole = shift(a, b)
    monkeypatch.setattr(module, "AT_ONCE", 16)
    parts = tmp_path / "parts"
    for number, (name, w) in enumerate(after.items()):
        write(parts, {name: w}, f"model-{number}.safetensors")
    again = shift(a, parts)
    assert again.total.distance == pytest.approx(whole.total.distance)
    assert [each.name for each in again.kinds] == [each.name for each in whole.kinds]


def test_new_tokens_are_told_apart_and_do_not_count_as_movement(weights, tmp_path):
    grown = torch.cat([weights["model.embed_tokens.weight"], 2 * weights["model.embed_tokens.weight"][:10]])
    found = shift(
        write(tmp_path / "a", weights), write(tmp_path / "b", {**weights, "model.embed_tokens.weight": grown})
    )
    assert found.total.distance == 0
    (new,) = found.new_tokens
    lengths = weights["model.embed_tokens.weight"].norm(dim=1)
    assert (new.rows, new.norm) == (10, pytest.approx(float(2 * lengths[:10].mean() / lengths.mean())))


def test_tensors_of_one_side_and_of_another_shape_are_listed(weights, tmp_path):
    after = {**weights, LAYER: torch.randn(16, 8), "lm_head.weight": torch.randn(50, 8)}
    after.pop("model.norm.weight")
    found = shift(write(tmp_path / "a", weights), write(tmp_path / "b", after))
    assert found.reshaped == (LAYER,)
    assert found.only_candidate == ("lm_head.weight",)
    assert found.only_parent == ("model.norm.weight",)


def test_a_parent_of_zeros_has_no_relative_distance(weights, tmp_path):
    zeros = {name: torch.zeros_like(w) for name, w in weights.items()}
    found = shift(write(tmp_path / "a", zeros), write(tmp_path / "b", weights))
    assert found.total.distance is None
    assert found.total.cosine is None


def test_models_with_nothing_in_common_are_refused(weights, tmp_path):
    other = {f"transformer.{name}": w for name, w in weights.items()}
    with pytest.raises(ConfigError, match="no tensor has the same name"):
        shift(write(tmp_path / "a", weights), write(tmp_path / "b", other))
