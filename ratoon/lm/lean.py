"""Halves of a Llama's layer that hold little for the way back, and take few passes through memory.

    attention   q, k, v = R (n W^T),  n = g x / rms(x)         rotated by place; held: x, 1 / rms
    feed        y = x + (silu(n Wg^T) * n Wu^T) Wd^T           held: x, 1 / rms, n Wg^T, n Wu^T

What transformers' modules hold beside (squares, normed rows, the parts of a rotation, silu, its product) is reckoned
again from these, in place where it can be. A rotation turns pairs of numbers that lie half a head apart; here they lie
side by side, so that it is one product of complex numbers. The order within a head is queries' and keys' alike, and
attention sums over it.

Equal to transformers' to rounding, gradients included. Float32, no autocast, no second derivative.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu


def queries_keys_values(
    x_BTH: Tensor, scale_H: Tensor, epsilon: float, weights: tuple[Tensor, Tensor, Tensor], turn_BTd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, heads, T, D) each, the first two rotated.

    turn_BTd  complex, D / 2 a place: what pairs are multiplied by; B may be 1
    """
    return _Attention.apply(x_BTH, scale_H, epsilon, *weights, turn_BTd)  # type: ignore[no-any-return]


def feed_forward(
    x_BTH: Tensor, scale_H: Tensor, epsilon: float, gate_FH: Tensor, up_FH: Tensor, down_HF: Tensor
) -> Tensor:
    """x and what a gated feed-forward block adds to it."""
    return _FeedForward.apply(x_BTH, scale_H, epsilon, gate_FH, up_FH, down_HF)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, epsilon: float, q: Tensor, k: Tensor, v: Tensor, turn: Tensor
    ) -> tuple[Tensor, ...]:
        head = 2 * turn.shape[-1]
        rows = x.reshape(-1, x.shape[-1])
        rms = inverse_rms(rows, epsilon)
        normed = (rows * rms).mul_(scale)
        found = [torch.mm(normed, paired(weight, head).t()).view(*x.shape[:2], -1) for weight in (q, k)]
        found = [rotated(one, turn, out=one) for one in found]
        found.append(torch.mm(normed, v.t()).view(*x.shape[:2], -1))
        ctx.save_for_backward(x, rms, scale, q, k, v, turn)
        return tuple(one.unflatten(-1, (-1, head)).transpose(1, 2) for one in found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, rms, scale, *weights, turn = ctx.saved_tensors
        head = 2 * turn.shape[-1]
        rows_BTO = [slope.transpose(1, 2).reshape(*x.shape[:2], -1) for slope in slopes]
        # Not where they lie: what autograd hands on may be another's too.
        rows_BTO[:2] = [rotated(one, turn.conj().resolve_conj()) for one in rows_BTO[:2]]
        given = [one.reshape(-1, one.shape[-1]) for one in rows_BTO]
        unit = x.reshape(-1, x.shape[-1]) * rms
        normed = unit * scale
        # Of matrices that are not trained none.
        wanted = ctx.needs_input_grad[3:6]
        grown = [torch.mm(slope.t(), normed) if asked else None for slope, asked in zip(given, wanted, strict=True)]
        grown[:2] = [None if one is None else halved(one, head) for one in grown[:2]]
        back = torch.mm(given[0], paired(weights[0], head), out=normed)
        for slope, weight in ((given[1], paired(weights[1], head)), (given[2], weights[2])):
            torch.addmm(back, slope, weight, out=back)  # not addmm_, which torch's counter of operations leaves out
        back, of_scale = through_norm(back, unit, scale)
        return back.mul_(rms).view_as(x), of_scale, None, *grown, None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, epsilon: float, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        rms = inverse_rms(rows, epsilon)
        normed = (rows * rms).mul_(scale)
        opened, raised = torch.mm(normed, gate.t()), torch.mm(normed, up.t())
        ctx.save_for_backward(x, rms, scale, gate, up, down, opened, raised)
        return torch.addmm(rows, silu(opened).mul_(raised), down.t()).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_BTH: Tensor) -> tuple[Tensor | None, ...]:
        x, rms, scale, gate, up, down, opened, raised = ctx.saved_tensors
        slope = slope_BTH.reshape(-1, x.shape[-1])
        of_gate, of_up, of_down = ctx.needs_input_grad[3:6]
        back = torch.mm(slope, down)
        gated = silu(opened)
        grown_down = torch.mm(slope.t(), gated * raised) if of_down else None
        to_up = gated.mul_(back)
        to_gate = torch.ops.aten.silu_backward.grad_input(back.mul_(raised), opened, grad_input=back)
        unit = x.reshape(-1, x.shape[-1]) * rms
        normed = unit * scale
        grown_gate = torch.mm(to_gate.t(), normed) if of_gate else None
        grown_up = torch.mm(to_up.t(), normed) if of_up else None
        back = torch.mm(to_gate, gate, out=normed)
        total, of_scale = through_norm(torch.addmm(back, to_up, up, out=back), unit, scale)
        return torch.addcmul(slope, total, rms).view_as(x), of_scale, None, grown_gate, grown_up, grown_down


def inverse_rms(x_NH: Tensor, epsilon: float) -> Tensor:
    """(N, 1)"""
    norm_N1 = torch.linalg.vector_norm(x_NH, dim=-1, keepdim=True)
    return norm_N1.square_().div_(x_NH.shape[-1]).add_(epsilon).rsqrt_()


def through_norm(slope_NH: Tensor, unit_NH: Tensor, scale_H: Tensor) -> tuple[Tensor, Tensor]:
    """(slope of x times its rms, slope of scale), from that of scale * unit, which is overwritten. unit  x / rms"""
    product_NH = slope_NH * unit_NH
    along_N1 = torch.mv(product_NH, scale_H).div_(len(scale_H))[:, None]
    return slope_NH.mul_(scale_H).addcmul_(unit_NH, along_N1, value=-1), product_NH.sum(dim=0)


def paired(weight_OH: Tensor, head: int) -> Tensor:
    """Rows that lie half a head apart, side by side."""
    return weight_OH.view(-1, 2, head // 2, weight_OH.shape[-1]).transpose(1, 2).reshape(weight_OH.shape)


def halved(weight_OH: Tensor, head: int) -> Tensor:
    """The way back from `paired`."""
    return weight_OH.view(-1, head // 2, 2, weight_OH.shape[-1]).transpose(1, 2).reshape(weight_OH.shape)


def rotated(y_BTO: Tensor, turn_BTd: Tensor, out: Tensor | None = None) -> Tensor:
    """Heads, whose pairs lie side by side, turned by place."""
    heads = y_BTO.shape[-1] // (2 * turn_BTd.shape[-1])
    turn = turn_BTd[:, :, None].expand(-1, -1, heads, -1)
    if len(turn) == 1:  # one long row of numbers a token instead of a short one a head: twice as fast
        turn = turn.reshape(1, turn.shape[1], -1)
    out = torch.empty_like(y_BTO) if out is None else out
    places = [torch.view_as_complex(one.view(*one.shape[:2], *turn.shape[2:], 2)) for one in (y_BTO, out)]
    torch.mul(places[0], turn, out=places[1])
    return out
