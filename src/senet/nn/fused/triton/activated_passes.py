"""The passes of `reference_activated` as launches of Triton kernels.

Maps are (N, C, *spatial), contiguous or channels last, and all maps of a call have one dtype and memory format. A pass
is one `Launches`, with the kernels of the (N, C) and (C,) values around it.
"""

import torch
from torch import Tensor

from senet.nn.fused.interface import MapActivation
from senet.nn.fused.triton import activated_kernels as kernels
from senet.nn.fused.triton.launch import Launches, Step
from senet.nn.fused.triton.steps import planned_launches, stats_step
from senet.nn.fused.triton.tiles import Plan, plan_for

__all__ = [
    "activated_elemt",
    "activated_gradient",
    "activated_mean",
    "activated_reduce",
    "activated_scale",
    "activated_squeeze",
]


def _reduction_step(plan: Plan, kernel: str, activation: str) -> Step:
    """Sums over space in parts, by `mean` or `sums`, whose five sums take the registers of twice the warps."""
    t = plan.reduction
    maps = ("y", "part") if kernel == "mean" else ("g", "y", "part")
    arguments = (*maps, "p", "a", "b", plan.C, plan.L, t.S, t.per, t.units, t.group, t.blocks, *plan.strides)
    tile = {"ONE": t.one, "LARGE": plan.large, "STAGES": min(t.stages, 2), "BL": t.BL, "BC": t.BC}
    warps = t.warps if kernel == "mean" else 2 * t.warps
    return Step(getattr(kernels, kernel), (t.programs, 1), arguments, {"ACTIVATION": activation} | tile, warps)


def _elements_step(plan: Plan, kernel: str, activation: str) -> Step:
    """A map written by `scale` or `gradient`."""
    t = plan.elements
    tensors = ("y", "out", "s", "p", "a", "b")
    if kernel == "gradient":
        tensors = ("g", "y", "dy", "p", "a", "b", "by", "plus", "k", "d")  # type: ignore[assignment]
    arguments = (*tensors, plan.C, plan.L, t.rows, t.blocks, t.T, *plan.strides)
    constants = {"ACTIVATION": activation, "LARGE": plan.large, "BL": t.BL, "BC": t.BC}
    return Step(getattr(kernels, kernel), (t.rows * t.blocks, 1), arguments, constants, t.warps)


def _mean_steps(plan: Plan, activation: str) -> list[Step]:
    merge = ("part", "z", plan.C, plan.reduction.S, plan.L)
    grid = (plan.N, -(-plan.C // 128))
    return [_reduction_step(plan, "mean", activation), Step(kernels.merge_mean, grid, merge, {"BC": 128})]


def _mean(plan: Plan, activation: str) -> Launches:
    return Launches(("y", "part", "p", "a", "b", "z"), _mean_steps(plan, activation))


def activated_mean(y: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation) -> Tensor:
    """See `reference_activated.activated_mean`."""
    plan = plan_for(y, 0)
    z = y.new_empty((plan.N, plan.C), dtype=torch.float32)
    part = y.new_empty(plan.part, dtype=torch.float32)
    planned_launches(plan, (_mean, activation), _mean)((y, part, p, a, b, z))
    return z


def _squeeze(plan: Plan, activation: str) -> Launches:
    t, e = plan.reduction, plan.between
    numbers = (plan.N, plan.C, t.S, t.per, plan.L, plan.values, plan.unbiased)
    arguments = ("part", "factors", "weight", "bias", "eps", *numbers)
    tile = {"BN": e.BN, "SB": e.SB, "BC": e.BC}
    gather = Step(kernels.gather, (e.channel_programs, 1), arguments, tile, e.settle_warps)
    steps = [stats_step(plan, None), gather, *_mean_steps(plan, activation)]
    return Launches(("y", "part", "factors", "weight", "bias", "p", "a", "b", "z"), steps, ("eps",))


def activated_squeeze(
    y: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: MapActivation
) -> tuple[Tensor, ...]:
    """See `reference_activated.activated_squeeze`."""
    plan = plan_for(y, 0)
    factors = y.new_empty((6, plan.C), dtype=torch.float32)
    p, mean, a, b, r, var = factors.unbind()
    z = y.new_empty((plan.N, plan.C))
    part = y.new_empty(plan.part, dtype=torch.float32)
    launches = planned_launches(plan, (_squeeze, activation), _squeeze)
    launches((y, part, factors, weight.contiguous(), bias.contiguous(), p, a, b, z), (eps,))
    return z, p, mean, a, b, r, var


def _scale(plan: Plan, activation: str) -> Launches:
    return Launches(("y", "out", "s", "p", "a", "b"), [_elements_step(plan, "scale", activation)])


def activated_scale(y: Tensor, s: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation) -> Tensor:
    """See `reference_activated.activated_scale`."""
    plan, out = plan_for(y, 0), torch.empty_like(y)
    planned_launches(plan, (_scale, activation), _scale)((y, out, s.contiguous(), p, a, b))
    return out


def _reduce(plan: Plan, activation: str) -> Launches:
    e, S = plan.between, plan.reduction.S
    arguments = ("part", "s", "ds", "da", "db", "f0", "f1", plan.N, plan.C, S)
    tile = {"BN": e.BN, "SB": e.SB, "BC": e.BC}
    merge = Step(kernels.merge_sums, (e.channel_programs, 1), arguments, tile, e.settle_warps)
    steps = [_reduction_step(plan, "sums", activation), merge]
    return Launches(("g", "y", "part", "p", "a", "b", "s", "ds", "da", "db", "f0", "f1"), steps)


def activated_reduce(
    g: Tensor, y: Tensor, s: Tensor, p: Tensor, a: Tensor, b: Tensor, activation: MapActivation
) -> tuple[Tensor, ...]:
    """See `reference_activated.activated_reduce`."""
    plan = plan_for(y, 0)
    part = y.new_empty((plan.reduction.units, 5, plan.C), dtype=torch.float32)
    ds, f0, f1 = y.new_empty((3, plan.N, plan.C), dtype=torch.float32).unbind()
    da, db = y.new_empty((2, plan.C), dtype=torch.float32).unbind()
    launches = planned_launches(plan, (_reduce, activation), _reduce)
    launches((g, y, part, p, a, b, s.contiguous(), ds, da, db, f0, f1))
    return ds, da, db, f0, f1


def _elemt(plan: Plan, activation: str) -> Launches:
    names = ("g", "y", "dy", "p", "a", "b", "by", "plus", "k", "d")
    return Launches(names, [_elements_step(plan, "gradient", activation)])


def activated_elemt(
    g: Tensor,
    y: Tensor,
    p: Tensor,
    a: Tensor,
    b: Tensor,
    by: Tensor,
    plus: Tensor,
    k: Tensor,
    c: Tensor,
    activation: MapActivation,
) -> Tensor:
    """See `reference_activated.activated_elemt`."""
    plan, dy = plan_for(y, 0), torch.empty_like(y)
    planned_launches(plan, (_elemt, activation), _elemt)((g, y, dy, p, a, b, by, plus, k, c))
    return dy


_SUMS = ("s", "dz", "da", "db", "f0", "f1", "mean", "a", "r", "by", "plus", "k", "d", "dweight", "dbias")


def _gradient(plan: Plan, activation: str) -> Launches:
    e = plan.between
    arguments = (*_SUMS, plan.N, plan.C, plan.L, plan.values)
    tile = {"BN": e.BN, "BC": e.BC}
    coefficients = Step(kernels.coefficients, (e.channel_programs, 1), arguments, tile, e.settle_warps)
    return Launches(("g", "y", "dy", "p", "b", *_SUMS), [coefficients, _elements_step(plan, "gradient", activation)])


def activated_gradient(
    g: Tensor,
    y: Tensor,
    p: Tensor,
    a: Tensor,
    b: Tensor,
    s: Tensor,
    dz: Tensor,
    da: Tensor,
    db: Tensor,
    f0: Tensor,
    f1: Tensor,
    mean: Tensor,
    r: Tensor,
    activation: MapActivation,
) -> tuple[Tensor, ...]:
    """See `reference_activated.activated_gradient`."""
    plan, dy = plan_for(y, 0), torch.empty_like(y)
    by, plus = y.new_empty((2, plan.N, plan.C), dtype=torch.float32).unbind()
    k, c, dweight, dbias = y.new_empty((4, plan.C), dtype=torch.float32).unbind()
    launches = planned_launches(plan, (_gradient, activation), _gradient)
    sums = (x.contiguous() for x in (s, dz, da, db, f0, f1))  # autograd may expand zeros
    launches((g, y, dy, p, b, *sums, mean, a, r, by, plus, k, c, dweight, dbias))
    return dy, dweight, dbias, by, plus, k, c
