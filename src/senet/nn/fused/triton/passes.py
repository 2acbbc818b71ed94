"""Batch norm, SE, the sum and ReLU as launches of Triton kernels, without autograd.

`forward`, `backward` and `evaluate` are the whole operation, excitation included; the six passes of `reference` serve
the other excitations, which are ordinary autograd between them. Maps are (N, C, *spatial), contiguous or channels last,
and all maps of a call have one dtype and memory format. All that depends on shapes is a `Plan`, made once.

    forward   stats, gather_stats, fc1, fc2, scale                  or for small N C: stats, excite, scale
    backward  reduce, gates, hidden, coefficients, gradient     or reduce, excite_backward, gradient
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from senet.nn.fused import reference
from senet.nn.fused.operands import Excitation, Gradients, Needs, Running
from senet.nn.fused.triton import excitation, excitation_backward
from senet.nn.fused.triton import kernels as maps
from senet.nn.fused.triton.launch import Launches, Step
from senet.nn.fused.triton.tiles import Plan, plan_for

__all__ = [
    "backward",
    "backward_elemt",
    "backward_reduce",
    "elemt",
    "evaluate",
    "fits",
    "forward",
    "gradient",
    "reduce",
    "scale",
    "squeeze",
    "stats",
]

# Of the hidden layer: wider ones do not fit in a program's registers.
_WIDEST = 128

_FORWARD = ("y", "part", "keep", "out", "skip", "weight", "bias", "rmean", "rvar", "count", "w1", "b1", "w2", "b2")
_BACKWARD = (
    *("g", "y", "out", "h", "part", "keep", "work", "bias", "w1", "w2"),
    *("dw1", "db1", "dw2", "db2", "dweight", "dbias", "dy"),
)


def fits(channels: int, hidden: int, samples: int = 1) -> bool:
    """Whether `forward`, `backward` and `evaluate` take an excitation of these widths, 0 is none, and the samples."""
    # Offsets into what is kept for each sample are 32 bits wide: up to three rows of C, and one of H, and a few more.
    return hidden <= _WIDEST and (3 * samples + 2**13) * max(channels, hidden) < 2**31


def _launches(plan: Plan, key: tuple[object, ...], build: Callable[..., Launches]) -> Launches:
    found = plan.launches.get(key)
    if found is None:
        found = plan.launches[key] = build(plan, *key[1:])
    return found


def _stats(plan: Plan, count: Any) -> Step:
    t = plan.reduction
    return Step(
        maps.stats,
        (t.programs, 1),
        ("y", "part", count, plan.C, plan.L, t.S, t.per, t.units, t.group, t.blocks, *plan.strides),
        {"ONE": t.one, "LARGE": plan.large, "STAGES": t.stages, "BL": t.BL, "BC": t.BC},
        t.warps,
    )


def _gather_stats(plan: Plan, evaluation: bool, cumulative: bool) -> Step:
    t, e = plan.reduction, plan.between
    numbers = (plan.N, plan.C, t.S, t.per, plan.L, plan.values, plan.unbiased)
    return Step(
        excitation.gather_stats,
        (e.channel_programs, 1),
        ("part", "keep", "weight", "rmean", "rvar", "count", "eps", "momentum", *numbers),
        {"EVAL": evaluation, "CUMULATIVE": cumulative, "GATED": plan.H > 0, "BN": e.BN, "SB": e.SB, "BC": e.BC},
        e.settle_warps,
    )


def _excite(plan: Plan, activation: str, evaluation: bool, cumulative: bool) -> list[Step]:
    """Statistics and excitation."""
    t, e, N, C, H = plan.reduction, plan.between, plan.N, plan.C, plan.H
    constants = {"EVAL": evaluation, "CUMULATIVE": cumulative, "ACTIVATION": activation}
    if e.small:
        tensors = ("part", "keep", "weight", "bias", "rmean", "rvar", "count", "w1", "b1", "w2", "b2")
        numbers = (N, C, H, t.S, t.per, plan.L, plan.values, plan.unbiased)
        tile = {"BN": e.BN, "SB": e.SB, "BC": e.BC, "BH": e.BH}
        arguments = (*tensors, "eps", "momentum", *numbers)
        return [Step(excitation.excite, (-(-N // 16), 1), arguments, constants | tile, 8)]
    tiles, blocks = -(-H // 16), -(-C // 64)
    return [
        _gather_stats(plan, evaluation, cumulative),
        Step(
            excitation.fc1,
            (-(-N // 16) * tiles, e.K),
            ("keep", "bias", "w1", "part", N, C, H, tiles, e.per),
            {"BN": 16, "BK": e.BK, "BH": 16},
        ),
        Step(
            excitation.fc2,
            (-(-N // 16) * blocks, 1),
            ("keep", "part", "b1", "w2", "b2", N, C, H, blocks),
            {"ACTIVATION": activation, "K": e.K, "BN": 16, "BK": min(64, e.BH), "BC": 64},
        ),
    ]


def _scale(plan: Plan, gate: str) -> Step:
    t = plan.elements
    return Step(
        maps.scale,
        (t.rows * t.blocks, 1),
        ("y", "skip", "out", "keep", "bias", "gain", plan.N, plan.C, plan.L, t.rows, t.blocks, t.T, *plan.strides),
        {"GATE": gate, "LARGE": plan.large, "BL": t.BL, "BC": t.BC},
        t.warps,
    )


def _forward(plan: Plan, evaluation: bool, cumulative: bool, gate: str, activation: str) -> Launches:
    if plan.H:
        steps = [_stats(plan, "count"), *_excite(plan, activation, evaluation, cumulative), _scale(plan, gate)]
    else:
        steps = [_gather_stats(plan, evaluation, cumulative), _scale(plan, gate)]
        if not evaluation:
            steps.insert(0, _stats(plan, "count"))
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
    w1, b1, w2, b2, gain, gate, activation = se or _NONE
    mean, var, count, momentum = running or (None, None, None, 0.0)
    cumulative = momentum is None and count is not None
    keep = y.new_empty(plan.keep, dtype=torch.float32)
    part = y.new_empty(plan.part, dtype=torch.float32)
    out = torch.empty_like(y)
    launches = _launches(plan, (_forward, False, cumulative, gate, activation), _forward)
    # A momentum of None without a count leaves the statistics as they are, as batch norm does.
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
    launches = _launches(plan, (_forward, True, False, gate, activation), _forward)
    launches((y, part, keep, out, skip, weight, bias, mean, var, None, w1, b1, w2, b2), (eps, 0.0, gain))
    return out


def _reduce(plan: Plan, p: str) -> Step:
    t = plan.reduction
    return Step(
        maps.reduce,
        (t.programs, 1),
        ("g", "out", "y", "h", "part", p, plan.C, plan.L, t.S, t.per, t.units, t.group, t.blocks, *plan.strides),
        {"ONE": t.one, "LARGE": plan.large, "STAGES": min(t.stages, 2), "BL": t.BL, "BC": t.BC},
        t.warps,
    )


def _unexcite(plan: Plan, gate: str, activation: str) -> list[Step]:
    """Gradients of the excitation and of batch norm."""
    t, e, N, C, H = plan.reduction, plan.between, plan.N, plan.C, plan.H
    functions = {"GATE": gate, "ACTIVATION": activation}
    tile = {"BN": e.dot_samples, "SB": e.dot_units}
    grid = (e.channel_programs, 1)
    if not H:
        plain = ("part", "work", "keep", "dweight", "dbias", N, C, t.S, plan.values)
        return [
            Step(
                excitation_backward.plain_coefficients, grid, plain, {"BN": e.BN, "SB": e.SB, "BC": 16}, e.settle_warps
            )
        ]
    if e.small:
        tensors = ("part", "keep", "bias", "work", "w1", "w2", "dw1", "db1", "dw2", "db2", "dweight", "dbias")
        arguments = (*tensors, "gain", N, C, H, t.S, plan.values)
        return [
            Step(
                excitation_backward.excite_backward,
                grid,
                arguments,
                functions | tile | {"BK": e.BK, "BC": 16, "BH": e.BH},
                e.warps,
            )
        ]
    tiles = -(-H // 16)
    return [
        Step(
            excitation_backward.gates,
            grid,
            ("part", "keep", "bias", "work", "dw2", "db2", "gain", N, C, H, t.S),
            functions | tile | {"BC": 16, "BH": e.BH},
            e.warps,
        ),
        Step(
            excitation_backward.hidden,
            (-(-N // 16) * tiles, e.K),
            ("work", "w2", N, C, H, tiles, e.per),
            {"BN": 16, "BK": e.BK, "BH": 16},
        ),
        Step(
            excitation_backward.coefficients,
            grid,
            ("work", "keep", "bias", "w1", "dw1", "db1", "dweight", "dbias", N, C, H, plan.values),
            {"ACTIVATION": activation, "K": e.K, "BN": e.dot_samples, "BC": 16, "BH": e.BH},
            e.warps,
        ),
    ]


def _gradient(plan: Plan, gate: str) -> Step:
    t = plan.elements
    return Step(
        maps.gradient,
        (t.rows * t.blocks, 1),
        ("h", "y", "dy", "keep", "work", "gain", plan.N, plan.C, plan.L, t.rows, t.blocks, t.T, *plan.strides),
        {"GATE": gate, "LARGE": plan.large, "BL": t.BL, "BC": t.BC},
        t.warps,
    )


def _backward(plan: Plan, parameters: bool, map_: bool, gate: str, activation: str) -> Launches:
    steps = [_reduce(plan, "keep")]
    if parameters or map_:
        steps += _unexcite(plan, gate, activation)
    if map_:
        steps.append(_gradient(plan, gate))
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
    """Gradients of `forward`, from that of its output.

    Args:
        g: the gradient of `out`, of its shape, dtype and memory format.
        y, weight, bias, se, eps: as given to `forward`.
        out: its output where there was a skip, else None.
        keep: its second result.
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
    launches = _launches(plan, (_backward, any(needs[1:7]), needs.y, gate, activation), _backward)
    launches((g, y, out, h, part, keep, work, bias, w1, w2, dw1, db1, dw2, db2, dweight, dbias, dy), (gain,))
    return Gradients(dy, dweight, dbias, dw1, db1, dw2, db2, h if out is not None and needs.skip else None)


def _merged_stats(plan: Plan) -> Launches:
    t = plan.reduction
    grid = (plan.N, -(-plan.C // 128))
    merge = Step(maps.merge_stats, grid, ("part", "p", "m", "q", plan.C, t.S, t.per, plan.L), {"BC": 128})
    return Launches(("y", "part", "p", "m", "q"), [_stats(plan, None), merge])


def stats(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.stats`."""
    plan = plan_for(y, 0)
    m, q = y.new_empty((2, plan.N, plan.C), dtype=torch.float32)
    _launches(plan, (_merged_stats,), _merged_stats)((y, y.new_empty(plan.part, dtype=torch.float32), p, m, q))
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
    _launches(plan_for(y, 0), (_elements, "elemt"), _elements)((y, skip, out, p, a, b))
    return out


def _backward_reduce(plan: Plan) -> Launches:
    return Launches(("g", "out", "y", "h", "part", "p"), [_reduce(plan, "p")])


def backward_reduce(g: Tensor, y: Tensor, p: Tensor, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """See `reference.backward_reduce`."""
    plan, h = plan_for(y, 0), g if x is None else torch.empty_like(y)
    part = y.new_empty((plan.N, plan.reduction.S, 2, plan.C), dtype=torch.float32)
    _launches(plan, (_backward_reduce,), _backward_reduce)((g, x, y, h, part, p))
    total, products = part.sum(1).unbind(1)
    return (products, total) if x is None else (products, total, h)


def backward_elemt(g: Tensor, y: Tensor, p: Tensor, a: Tensor, k: Tensor, d: Tensor) -> Tensor:
    """See `reference.backward_elemt`."""
    dy = torch.empty_like(y)
    _launches(plan_for(y, 0), (_elements, "backward_elemt"), _elements)((g, y, dy, p, a, k, d))
    return dy


squeeze = partial(reference.squeeze, stats=stats)
scale = partial(reference.scale, elemt=elemt)
reduce = partial(reference.reduce, backward_reduce=backward_reduce)
gradient = partial(reference.gradient, backward_elemt=backward_elemt)
