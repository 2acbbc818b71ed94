"""Launches of single kernels for a plan: grids, arguments and constants."""

from collections.abc import Callable
from typing import Any

from senet.nn.fused.triton import excitation, excitation_backward
from senet.nn.fused.triton import kernels as maps
from senet.nn.fused.triton.launch import Launches, Step
from senet.nn.fused.triton.tiles import Plan

__all__ = [
    "excite_backward_steps",
    "excite_steps",
    "gather_stats_step",
    "gradient_step",
    "planned_launches",
    "reduce_step",
    "scale_step",
    "stats_step",
]


def planned_launches(plan: Plan, key: tuple[object, ...], build: Callable[..., Launches]) -> Launches:
    """Return the launches of a plan under a key: the function that builds them and its further arguments."""
    found = plan.launches.get(key)
    if found is None:
        found = plan.launches[key] = build(plan, *key[1:])
    return found


def stats_step(plan: Plan, count: Any) -> Step:
    """Statistics of the batch in parts; `count` names the counter of batches, or is None."""
    t = plan.reduction
    return Step(
        maps.stats,
        (t.programs, 1),
        ("y", "part", count, plan.C, plan.L, t.S, t.per, t.units, t.group, t.blocks, *plan.strides),
        {"ONE": t.one, "LARGE": plan.large, "STAGES": t.stages, "BL": t.BL, "BC": t.BC},
        t.warps,
    )


def gather_stats_step(plan: Plan, evaluation: bool, cumulative: bool) -> Step:
    """Statistics from their parts, and running statistics."""
    t, e = plan.reduction, plan.between
    numbers = (plan.N, plan.C, t.S, t.per, plan.L, plan.values, plan.unbiased)
    return Step(
        excitation.gather_stats,
        (e.channel_programs, 1),
        ("part", "keep", "weight", "rmean", "rvar", "count", "eps", "momentum", *numbers),
        {"EVAL": evaluation, "CUMULATIVE": cumulative, "GATED": plan.H > 0, "BN": e.BN, "SB": e.SB, "BC": e.BC},
        e.settle_warps,
    )


def excite_steps(plan: Plan, activation: str, evaluation: bool, cumulative: bool) -> list[Step]:
    """Return the steps of statistics and excitation."""
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
        gather_stats_step(plan, evaluation, cumulative),
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


def scale_step(plan: Plan, gate: str) -> Step:
    """The output map."""
    t = plan.elements
    return Step(
        maps.scale,
        (t.rows * t.blocks, 1),
        ("y", "skip", "out", "keep", "bias", "gain", plan.N, plan.C, plan.L, t.rows, t.blocks, t.T, *plan.strides),
        {"GATE": gate, "LARGE": plan.large, "BL": t.BL, "BC": t.BC},
        t.warps,
    )


def reduce_step(plan: Plan, p: str) -> Step:
    """Sums for the gradients in parts; `p` names the tensor with the pivots."""
    t = plan.reduction
    return Step(
        maps.reduce,
        (t.programs, 1),
        ("g", "out", "y", "h", "part", p, plan.C, plan.L, t.S, t.per, t.units, t.group, t.blocks, *plan.strides),
        {"ONE": t.one, "LARGE": plan.large, "STAGES": min(t.stages, 2), "BL": t.BL, "BC": t.BC},
        t.warps,
    )


def excite_backward_steps(plan: Plan, gate: str, activation: str) -> list[Step]:
    """Return the steps of the gradients of the excitation and of batch norm."""
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


def gradient_step(plan: Plan, gate: str) -> Step:
    """The gradient of the input map."""
    t = plan.elements
    return Step(
        maps.gradient,
        (t.rows * t.blocks, 1),
        ("h", "y", "dy", "keep", "work", "gain", plan.N, plan.C, plan.L, t.rows, t.blocks, t.T, *plan.strides),
        {"GATE": gate, "LARGE": plan.large, "BL": t.BL, "BC": t.BC},
        t.warps,
    )
