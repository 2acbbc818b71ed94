"""The passes of `reference` as launches of Triton kernels, for excitations that are ordinary autograd between them.

Maps are (N, C, *spatial), contiguous or channels last, and all maps of a call have one dtype and memory format.
"""

from functools import partial

import torch
from torch import Tensor

from senet.nn.fused import reference
from senet.nn.fused.triton import kernels as maps
from senet.nn.fused.triton.activated_passes import (
    activated_elemt,
    activated_gradient,
    activated_mean,
    activated_reduce,
    activated_scale,
    activated_squeeze,
)
from senet.nn.fused.triton.launch import Launches, Step
from senet.nn.fused.triton.steps import planned_launches, reduce_step, stats_step
from senet.nn.fused.triton.tiles import Plan, plan_for

__all__ = [
    "activated_elemt",
    "activated_gradient",
    "activated_mean",
    "activated_reduce",
    "activated_scale",
    "activated_squeeze",
    "backward_elemt",
    "backward_reduce",
    "elemt",
    "gradient",
    "reduce",
    "scale",
    "squeeze",
    "stats",
]


def _merged_stats(plan: Plan) -> Launches:
    t = plan.reduction
    grid = (plan.N, -(-plan.C // 128))
    merge = Step(maps.merge_stats, grid, ("part", "p", "m", "q", plan.C, t.S, t.per, plan.L), {"BC": 128})
    return Launches(("y", "part", "p", "m", "q"), [stats_step(plan, None), merge])


def stats(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.stats`."""
    plan = plan_for(y, 0)
    m, q = y.new_empty((2, plan.N, plan.C), dtype=torch.float32)
    planned_launches(plan, (_merged_stats,), _merged_stats)((y, y.new_empty(plan.part, dtype=torch.float32), p, m, q))
    return m, q


def _elements(plan: Plan, kernel: str) -> Launches:
    t = plan.elements
    names = ("y", "skip", "out", "p", "a", "b") if kernel == "elemt" else ("h", "y", "dy", "p", "a", "k", "d")
    arguments = (*names, plan.C, plan.L, t.rows, t.blocks, t.T, *plan.strides)
    constants = {"LARGE": plan.large, "BL": t.BL, "BC": t.BC}
    return Launches(names, [Step(getattr(maps, kernel), (t.rows * t.blocks, 1), arguments, constants, t.warps)])


def elemt(y: Tensor, p: Tensor, a: Tensor, b: Tensor, skip: Tensor | None = None) -> Tensor:
    """See `reference.elemt`."""
    out = torch.empty_like(y)
    planned_launches(plan_for(y, 0), (_elements, "elemt"), _elements)((y, skip, out, p, a, b))
    return out


def _backward_reduce(plan: Plan) -> Launches:
    return Launches(("g", "out", "y", "h", "part", "p"), [reduce_step(plan, "p")])


def backward_reduce(g: Tensor, y: Tensor, p: Tensor, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """See `reference.backward_reduce`."""
    plan, h = plan_for(y, 0), g if x is None else torch.empty_like(y)
    part = y.new_empty((plan.N, plan.reduction.S, 2, plan.C), dtype=torch.float32)
    planned_launches(plan, (_backward_reduce,), _backward_reduce)((g, x, y, h, part, p))
    total, products = part.sum(1).unbind(1)
    return (products, total) if x is None else (products, total, h)


def backward_elemt(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """See `reference.backward_elemt`."""
    dy = torch.empty_like(y)
    planned_launches(plan_for(y, 0), (_elements, "backward_elemt"), _elements)((g, y, dy, p, a, k, d))
    return dy


squeeze = partial(reference.squeeze, stats=stats)
scale = partial(reference.scale, elemt=elemt)
reduce = partial(reference.reduce, backward_reduce=backward_reduce)
gradient = partial(reference.gradient, backward_elemt=backward_elemt)
