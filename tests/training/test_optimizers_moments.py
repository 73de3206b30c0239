"""What an optimizer remembers in 16 and 8 bits: right on average, near in size, never 0 where it divides."""

import pytest
import torch

from ratoon.training.optimizers.moments import SQUARE, begin, decode, encode, keep, levels, recall
from ratoon.training.optimizers.rounding import Chance, to_bf16


def test_rounding_by_chance_is_right_on_average_and_leaves_bf16_alone():
    values = torch.tensor([1.001, -1.001, 3.14159e-20, -7.7e8, 0.0]).repeat(20_000, 1)
    whole = slice(0, values.numel())
    rounded = to_bf16(values.view(-1), Chance.of(0), whole).double().view_as(values)
    assert torch.allclose(rounded.mean(0), values[0].double(), rtol=1e-4)
    assert len(rounded[:, 0].unique()) == 2
    exact = torch.randn(1000).bfloat16()
    assert torch.equal(to_bf16(exact.float(), Chance.of(1), slice(0, 1000)), exact)


def test_noise_is_the_same_whoever_asks_fair_and_another_for_another():
    cpu, whole = torch.device("cpu"), slice(0, 1 << 16)
    one = Chance.of(1, 2, 3, "weight").bits(whole, cpu)
    assert torch.equal(one[5:9], Chance.of(1, 2, 3, "weight").bits(slice(5, 9), cpu))
    others = [Chance.of(1, 2, 4, "weight"), Chance.of(1, 3, 3, "weight"), Chance.of(1, 2, 3, "exp_avg")]
    for noise in [one, *(other.bits(whole, cpu) for other in others)]:
        counts = torch.bincount(noise >> 8, minlength=256)
        assert ((counts - 256).square() / 256).sum() < 360  # chi-squared of 255, beyond which 1 in 100,000 lies
        neighbours = torch.corrcoef(torch.stack([noise[1:], noise[:-1]]).double())[0, 1]
        assert abs(neighbours) < 0.02
    for other in others:
        assert abs(torch.corrcoef(torch.stack([one, other.bits(whole, cpu)]).double())[0, 1]) < 0.02


@pytest.mark.parametrize("signed", [True, False])
def test_8_bits_hold_a_number_of_any_size_within_a_few_percent(signed):
    assert len(levels(signed, torch.device("cpu")).unique()) == 256
    values = torch.logspace(-2, 0, 1000) * (torch.tensor([1, -1]).repeat(500) if signed else 1)
    codes, scale = encode(values, signed=signed)
    found = decode(codes, scale, signed=signed)
    assert ((found - values) / values).abs().max() < 0.05
    assert codes.dtype == torch.uint8


@pytest.mark.parametrize("signed", [True, False])
def test_the_table_of_codes_is_as_good_as_a_search_for_the_nearest(signed):
    values = torch.cat([torch.rand(20_000), torch.logspace(-9, 0, 5000), torch.zeros(3)])
    values = values * (torch.randint(0, 2, values.shape) * 2 - 1) if signed else values
    table = levels(signed, torch.device("cpu"))
    share = (padded := torch.nn.functional.pad(values, (0, -len(values) % 256))).view(-1, 256)
    nearest = table[(share / share.abs().amax(1, keepdim=True).clamp(min=1e-30)).view(-1, 1).sub(table).abs().argmin(1)]
    nearest = (nearest.view_as(share) * share.abs().amax(1, keepdim=True)).view(-1)[: len(values)]
    codes, scale = encode(values, signed=signed)
    apart = (decode(codes, scale, signed=signed) - values).abs() - (nearest - values).abs()
    assert len(padded) > len(values)
    assert (apart <= 2e-3 * values.abs() + 1e-6).all()


def test_a_second_moment_never_becomes_0_in_8_bits():
    memory, whole = {}, slice(0, 8192)
    begin(memory, (SQUARE,), 8192, "8bit", torch.device("cpu"))
    assert (recall(memory, SQUARE, whole) == 0).all()
    square = torch.full((8192,), 1e-20)
    square[::256] = 1.0
    square[1] = 0.0
    keep(memory, SQUARE, square, whole, Chance.of(0))
    found = recall(memory, SQUARE, whole)
    assert found[1] == 0
    assert (found[2:] > 0).all()
