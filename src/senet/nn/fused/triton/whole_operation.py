"""Batch norm, SE, the sum and ReLU as one operation: launches of Triton kernels, without autograd.

Maps are (N, C, *spatial), contiguous or channels last, and all maps of a call have one dtype and memory format. All
that depends on shapes is a `Plan`, made once.

    forward   stats, gather_stats, fc1, fc2, scale              or for small N C: stats, excite, scale
    backward  reduce, gates, hidden, coefficients, gradient     or reduce, excite_backward, gradient
"""

import torch
from torch import Tensor

from senet.nn.fused.interface import Excitation, Gradients, Needs, Running
from senet.nn.fused.triton.launch import Launches
from senet.nn.fused.triton.steps import (
    excite_backward_steps,
    excite_steps,
    gather_stats_step,
    gradient_step,
    planned_launches,
    reduce_step,
    scale_step,
    stats_step,
)
from senet.nn.fused.triton.tiles import Plan, plan_for

__all__ = ["backward", "evaluate", "fits", "forward"]

# Maximum hidden width: wider layers do not fit in a program's registers.
_WIDEST = 128

_FORWARD = ("y", "part", "keep", "out", "skip", "weight", "bias", "rmean", "rvar", "count", "w1", "b1", "w2", "b2")
_BACKWARD = (
    *("g", "y", "out", "h", "part", "keep", "work", "bias", "w1", "w2"),
    *("dw1", "db1", "dw2", "db2", "dweight", "dbias", "dy"),
)


def fits(channels: int, hidden: int, samples: int = 1) -> bool:
    """Return whether `forward`, `backward` and `evaluate` support these sizes; a hidden width of 0 is no excitation."""
    # Offsets into `keep` are 32 bits wide: up to three rows of C and one of H for each sample, and a few more.
    return hidden <= _WIDEST and (3 * samples + 2**13) * max(channels, hidden) < 2**31


def _forward(plan: Plan, evaluation: bool, cumulative: bool, gate: str, activation: str) -> Launches:
    if plan.H:
        steps = [
            stats_step(plan, "count"),
            *excite_steps(plan, activation, evaluation, cumulative),
            scale_step(plan, gate),
        ]
    else:
        steps = [gather_stats_step(plan, evaluation, cumulative), scale_step(plan, gate)]
        if not evaluation:
            steps.insert(0, stats_step(plan, "count"))
    return Launches(_FORWARD, steps, ("eps", "momentum", "gain"))


_NONE = Excitation(None, None, None, None, 1.0, "none", "none")  # type: ignore[arg-type]


def forward(
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    se: Excitation | None,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute batch norm with the batch's statistics, SE, the sum with a skip, and ReLU; all but y may be None.

    Args:
        y: (N, C, *spatial).
        weight, bias: (C,).
        running: statistics, updated in place.
        eps: value added to the variance.
        se: the excitation; None for batch norm alone.
        skip: map of y's shape, dtype and memory format, added before a ReLU; None omits sum and ReLU.

    Returns:
        The output, of y's shape, dtype and memory format; and one float32 buffer for `backward`.
    """
    plan = plan_for(y, 0 if se is None else se.w1.shape[0])
    w1, b1, w2, b2, gain, gate, activation = se or _NONE
    mean, var, count, momentum = running or (None, None, None, 0.0)
    cumulative = momentum is None and count is not None
    keep = y.new_empty(plan.keep, dtype=torch.float32)
    part = y.new_empty(plan.part, dtype=torch.float32)
    out = torch.empty_like(y)
    launches = planned_launches(plan, (_forward, False, cumulative, gate, activation), _forward)
    # A momentum of None without a count keeps the statistics unchanged, as in batch norm.
    launches(
        (y, part, keep, out, skip, weight, bias, mean, var, count, w1, b1, w2, b2),
        (eps, 0.0 if momentum is None else momentum, gain),
    )
    return out, keep


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
    """Compute `forward` with the running statistics mean and var (C,), which are unchanged."""
    plan = plan_for(y, 0 if se is None else se.w1.shape[0])
    w1, b1, w2, b2, gain, gate, activation = se or _NONE
    keep = y.new_empty(plan.keep, dtype=torch.float32)
    part = y.new_empty(plan.part, dtype=torch.float32) if se is not None else None
    out = torch.empty_like(y)
    launches = planned_launches(plan, (_forward, True, False, gate, activation), _forward)
    launches((y, part, keep, out, skip, weight, bias, mean, var, None, w1, b1, w2, b2), (eps, 0.0, gain))
    return out


def _backward(plan: Plan, parameters: bool, map_: bool, gate: str, activation: str) -> Launches:
    steps = [reduce_step(plan, "keep")]
    if parameters or map_:
        steps += excite_backward_steps(plan, gate, activation)
    if map_:
        steps.append(gradient_step(plan, gate))
    return Launches(_BACKWARD, steps, ("gain",))


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
    """Return the gradients of `forward`, from the gradient of its output.

    Args:
        g: the gradient of `out`, with its shape, dtype and memory format.
        y, weight, bias, se, eps: the arguments of `forward`.
        out: the output of `forward` if it had a skip, else None.
        keep: the second result of `forward`.
        needs: the gradients to compute.
    """
    plan = plan_for(y, 0 if se is None else se.w1.shape[0])
    w1, b1, w2, b2, gain, gate, activation = se or _NONE
    h = g if out is None else torch.empty_like(y)
    part = y.new_empty(plan.part, dtype=torch.float32)
    work = y.new_empty(plan.work, dtype=torch.float32)
    dy = torch.empty_like(y) if needs.y else None
    dweight, dbias = _like(weight, needs.weight), _like(bias, needs.bias)
    dw1, db1, dw2, db2 = _like(w1, needs.w1), _like(b1, needs.b1), _like(w2, needs.w2), _like(b2, needs.b2)
    launches = planned_launches(plan, (_backward, any(needs[1:7]), needs.y, gate, activation), _backward)
    launches((g, y, out, h, part, keep, work, bias, w1, w2, dw1, db1, dw2, db2, dweight, dbias, dy), (gain,))
    return Gradients(dy, dweight, dbias, dw1, db1, dw2, db2, h if out is not None and needs.skip else None)
