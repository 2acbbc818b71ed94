"""Batch norm, SE, the sum and ReLU as launches of Triton kernels, without autograd.

`forward`, `backward` and `evaluate` are the whole operation, excitation included; the six passes of `formulas` serve
the other excitations, which are ordinary autograd between them. Maps are (N, C, *spatial), contiguous or channels last,
and all maps of a call have one dtype and memory format. All that depends on shapes is a `Plan`, made once.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from senet.fusion import formulas
from senet.fusion import triton_excitation as excitation
from senet.fusion import triton_kernels as maps
from senet.fusion.operands import Excitation, Gradients, Needs, Running
from senet.fusion.tiles import Plan, plan_for
from senet.fusion.triton_launch import launch

__all__ = [
    "affine",
    "backward",
    "evaluate",
    "fits",
    "forward",
    "gradient",
    "moments",
    "reduce",
    "scale",
    "spread",
    "squeeze",
    "sums",
]

# Of the hidden layer: wider ones do not fit in a program's registers.
_WIDEST = 256


def fits(channels: int, hidden: int, samples: int = 1) -> bool:
    """Whether `forward`, `backward` and `evaluate` take an excitation of these widths, 0 is none, and the samples."""
    # Offsets into what they keep for each sample are 32 bits wide.
    return hidden <= _WIDEST and (2 * samples + 4) * channels + samples * hidden < 2**31


def _launch(kernel: Any, grid: tuple[int, ...], warps: int, *arguments: Any, **constants: Any) -> None:
    launch(kernel, grid, arguments, constants, warps)


def _stats(plan: Plan, y: Tensor, count: Tensor | None) -> Tensor:
    t = plan.reduction
    part = torch.empty(plan.part, dtype=torch.float32, device=y.device)
    _launch(
        maps.stats, (t.programs,), t.warps, y, part, count, plan.C, plan.L, t.S, t.per, t.units, t.group, t.blocks,
        *plan.strides, ONE=t.one, LARGE=plan.large, STAGES=t.stages, BL=t.BL, BC=t.BC,
    )  # fmt: skip
    return part


def _settle(
    plan: Plan,
    part: Tensor | None,
    keep: Tensor,
    weight: Tensor | None,
    running: Running | None,
    eps: float,
    evaluation: bool = False,
) -> None:
    t, e = plan.reduction, plan.excitation
    mean, var, count, momentum = running or (None, None, None, 0.0)
    if momentum is None and count is None:
        momentum = 0.0  # as batch norm does
    _launch(
        excitation.settle, (e.channel_programs,), 4, part, keep, weight, mean, var, count, plan.N, plan.C, t.S, t.per,
        plan.L, plan.values, eps, momentum, plan.unbiased, EVAL=evaluation, GATED=plan.H > 0, BN=e.BN, SB=e.SB, BC=e.BC,
    )  # fmt: skip


def _excite(plan: Plan, part: Tensor, keep: Tensor, bias: Tensor | None, se: Excitation) -> None:
    e, N, C, H = plan.excitation, plan.N, plan.C, plan.H
    _launch(
        excitation.fc1, (e.sample_tiles * e.hidden_tiles, e.K), 4, keep, bias, se.w1, part, N, C, H, e.hidden_tiles,
        e.per, BN=16, BK=e.BK, BH=16,
    )  # fmt: skip
    _launch(
        excitation.fc2, (e.sample_tiles * e.wide_blocks, 1), 4, keep, part, se.b1, se.w2, se.b2, N, C, H, e.K,
        e.wide_blocks, ACTIVATION=se.activation, BN=16, BK=min(64, e.BH), BC=64,
    )  # fmt: skip


def _scale(
    plan: Plan, y: Tensor, skip: Tensor | None, keep: Tensor, bias: Tensor | None, se: Excitation | None
) -> Tensor:
    t, out = plan.elements, torch.empty_like(y)
    _launch(
        maps.scale, (t.rows * t.blocks,), t.warps, y, skip, out, keep, bias, 1.0 if se is None else se.gain, plan.N,
        plan.C, plan.L, t.rows, t.blocks, t.T, *plan.strides, GATE="none" if se is None else se.gate, LARGE=plan.large,
        BL=t.BL, BC=t.BC,
    )  # fmt: skip
    return out


def forward(
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    se: Excitation | None,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Batch norm by the statistics of the batch, then SE, then the sum with a skip and ReLU; all but y may be None.

    Args:
        y: (N, C, *spatial).
        weight, bias: (C,).
        running: statistics, updated in place.
        eps: added to the variance.
        se: the excitation; None is a batch norm alone.
        skip: of y's shape, dtype and memory format, added before a ReLU; None leaves both out.

    Returns:
        The output, of y's shape, dtype and memory format; and one float32 buffer for `backward`.
    """
    plan = plan_for(y, 0 if se is None else se.w1.shape[0])
    keep = torch.empty(plan.keep, dtype=torch.float32, device=y.device)
    part = _stats(plan, y, running and running.count)
    _settle(plan, part, keep, weight, running, eps)
    if se is not None:
        _excite(plan, part, keep, bias, se)
    return _scale(plan, y, skip, keep, bias, se), keep


def evaluate(
    y: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    se: Excitation | None,
    skip: Tensor | None,
) -> Tensor:
    """`forward` by the running statistics mean and var (C,), which stay."""
    plan = plan_for(y, 0 if se is None else se.w1.shape[0])
    keep = torch.empty(plan.keep, dtype=torch.float32, device=y.device)
    part = None if se is None else _stats(plan, y, None)
    _settle(plan, part, keep, weight, Running(mean, var, None, 0.0), eps, evaluation=True)
    if se is not None and part is not None:
        _excite(plan, part, keep, bias, se)
    return _scale(plan, y, skip, keep, bias, se)


def _sums(plan: Plan, g: Tensor, out: Tensor | None, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Part of `reduce`, and g before the ReLU whose output is `out`."""
    t, h = plan.reduction, g if out is None else torch.empty_like(y)
    part = torch.empty(t.units * 2 * plan.C, dtype=torch.float32, device=y.device)
    _launch(
        maps.reduce, (t.programs,), t.warps, g, out, y, h, part, p, plan.C, plan.L, t.S, t.per, t.units, t.group,
        t.blocks, *plan.strides, ONE=t.one, LARGE=plan.large, STAGES=t.stages, BL=t.BL, BC=t.BC,
    )  # fmt: skip
    return part, h


def _like(parameter: Tensor | None, needed: bool) -> Tensor | None:
    return torch.empty_like(parameter) if needed and parameter is not None else None


def backward(
    g: Tensor,
    y: Tensor,
    out: Tensor | None,
    keep: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    se: Excitation | None,
    eps: float,
    needs: Needs,
) -> Gradients:
    """Gradients of `forward`, from that of its output.

    Args:
        g: the gradient of `out`, of its shape, dtype and memory format.
        y, weight, bias, se, eps: as given to `forward`.
        out: its output where there was a skip, else None.
        keep: its second result.
        needs: the gradients to compute.
    """
    plan = plan_for(y, 0 if se is None else se.w1.shape[0])
    e, t, N, C, H = plan.excitation, plan.reduction, plan.N, plan.C, plan.H
    part, h = _sums(plan, g, out, y, keep)
    dskip = h if out is not None and needs.skip else None
    work = torch.empty(plan.work, dtype=torch.float32, device=y.device)
    dweight, dbias = _like(weight, needs.weight), _like(bias, needs.bias)
    w1, b1, w2, b2, gain, gate, activation = se or (None,) * 7
    dw1, db1, dw2, db2 = (
        _like(x, need) for x, need in zip((w1, b1, w2, b2), (needs.w1, needs.b1, needs.w2, needs.b2), strict=True)
    )
    if se is None:
        _launch(
            excitation.plain_coefficients, (e.channel_programs,), 4, part, work, keep, dweight, dbias, N, C, t.S,
            plan.values, BN=e.BN, SB=e.SB, BC=e.BC,
        )  # fmt: skip
    else:
        pieces = work[(4 + 2 * N) * C :]
        _launch(
            excitation.gates, (e.channel_programs,), e.warps, part, keep, bias, work, dw2, db2, gain, N, C, H, t.S,
            GATE=gate, ACTIVATION=activation, BN=e.dot_samples, SB=e.dot_units, BC=16, BH=e.BH,
        )  # fmt: skip
        _launch(
            excitation.hidden, (e.sample_tiles * e.hidden_tiles, e.K), 4, work, w2, pieces, N, C, H, e.hidden_tiles,
            e.per, BN=16, BK=e.BK, BH=16,
        )  # fmt: skip
        _launch(
            excitation.coefficients, (e.channel_programs,), e.warps, work, keep, bias, pieces, w1, dw1, db1, dweight,
            dbias, N, C, H, e.K, plan.values, ACTIVATION=activation, BN=e.dot_samples, BC=16, BH=e.BH,
        )  # fmt: skip
    dy = None
    if needs.y:
        dy, t2 = torch.empty_like(y), plan.elements
        _launch(
            maps.spread, (t2.rows * t2.blocks,), t2.warps, h, y, dy, keep, work, 1.0 if gain is None else gain, N, C,
            plan.L, t2.rows, t2.blocks, t2.T, *plan.strides, GATE=gate or "none", LARGE=plan.large, BL=t2.BL, BC=t2.BC,
        )  # fmt: skip
    return Gradients(dy, dweight, dbias, dw1, db1, dw2, db2, dskip)


def moments(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """See `formulas.moments`."""
    plan = plan_for(y, 0)
    part, t = _stats(plan, y, None), plan.reduction
    m, q = torch.empty(2, plan.N, plan.C, dtype=torch.float32, device=y.device)
    grid = (plan.N, -(-plan.C // 128))
    _launch(maps.moments, grid, 4, part, p, m, q, plan.C, t.S, t.per, plan.L, BC=128)
    return m, q


def affine(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor | None = None) -> Tensor:
    """See `formulas.affine`."""
    plan, out = plan_for(y, 0), torch.empty_like(y)
    t = plan.elements
    _launch(
        maps.affine, (t.rows * t.blocks,), t.warps, y, skip, out, p, a, b, plan.C, plan.L, t.rows, t.blocks, t.T,
        *plan.strides, LARGE=plan.large, BL=t.BL, BC=t.BC,
    )  # fmt: skip
    return out


def sums(g: Tensor, y: Tensor, p: Tensor, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """See `formulas.sums`."""
    plan = plan_for(y, 0)
    part, h = _sums(plan, g, x, y, p)
    total, products = part.view(plan.N, plan.reduction.S, 2, plan.C).sum(1).unbind(1)
    return (products, total) if x is None else (products, total, h)


def spread(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """See `formulas.spread`."""
    plan, dy = plan_for(y, 0), torch.empty_like(y)
    t = plan.elements
    _launch(
        maps.elementwise, (t.rows * t.blocks,), t.warps, g, y, dy, p, a, k, d, plan.C, plan.L, t.rows, t.blocks, t.T,
        *plan.strides, LARGE=plan.large, BL=t.BL, BC=t.BC,
    )  # fmt: skip
    return dy


squeeze = partial(formulas.squeeze, moments=moments)
scale = partial(formulas.scale, affine=affine)
reduce = partial(formulas.reduce, sums=sums)
gradient = partial(formulas.gradient, spread=spread)
