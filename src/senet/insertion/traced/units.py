"""Which joins of a run are units of a network: residual units, dense layers and blocks of several branches."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from senet.insertion.traced.flow import ACTIVATIONS, Flow, is_spatial_convolution
from senet.insertion.traced.join_reasons import held_units, is_inner, why_no_unit
from senet.insertion.traced.join_scope import joining_call
from senet.insertion.traced.joins import Arm, Join, joins
from senet.insertion.traced.places import end_of
from senet.insertion.traced.unit import Unit
from senet.insertion.traced.unit_forms import (
    adds_skip,
    branches_with_skip,
    dense_layer,
    of_concats,
    of_sum,
    several_branches,
)

__all__ = ["Joined", "units"]


@dataclass(frozen=True)
class Joined:
    """The joins of a run with convolutions.

    Attributes:
        units: those that are units, in the order of their ends.
        values: numbers of all joined values.
        attention: those that are no units because an arm has attention.
        with_skip: sums of a skip and several branches of one layer each, which are no units.
        no_units: why joins are no units, by the number of the joined value.
    """

    units: list[Unit]
    values: set[int]
    attention: list[Join]
    with_skip: list[Join]
    no_units: dict[int, str]


def units(flow: Flow) -> Joined:
    """Find the units among the joins of a run."""
    found: list[Unit] = []
    values: set[int] = set()
    attention: list[Join] = []
    with_skip: list[Join] = []
    no_units: dict[int, str] = {}
    concats: list[Join] = []
    cells: list[Join] = []
    earlier: list[frozenset[int]] = []
    within: list[tuple[Unit, Unit]] = []  # units, and those that are parts of them
    around: set[int] = set()  # calls that add attention to a map: of transformer blocks
    for join in joins(flow):
        numbers = frozenset(arm.end.number for arm in join.arms)
        old = earlier.copy()
        if join.kind == "concat":
            earlier.append(numbers)
        if join.kind == "concat" and _is_cell(flow, join):
            cells.append(join)
            continue
        if not any(arm.convolutions for arm in join.arms):
            no_units[join.output.number] = "no arm of its join has a convolution"
            continue
        dense = dense_layer(flow, join, old) if join.kind == "concat" else None
        arms = (dense.branch,) if dense and dense.branch else join.arms
        held = held_units(flow, arms, found)
        inner = held if is_inner(flow, join, arms, held) else []
        refused = why_no_unit(flow, join, arms, [] if inner else held, found)
        values.add(join.output.number)
        if refused is not None and refused.attention:
            attention.append(join)
            if join.kind == "sum":
                call = flow.smallest(join.operation.call, [op for arm in join.arms for op in arm.operations])
                around |= set() if call is None else {call.index}
        if refused is not None:
            no_units[join.output.number] = refused.reason
            continue
        unit = of_sum(flow, join) if join.kind == "sum" else dense
        if unit is not None:
            found.append(unit)
            within += [(unit, part) for part in inner]
        elif join.kind == "concat":
            concats.append(join)
        elif adds_skip(flow, join):
            branches = branches_with_skip(flow, join)
            found += branches
            if not branches:
                with_skip.append(join)
                no_units[join.output.number] = "several branches and the skip are added in one sum"
    found = [unit for unit in found if unit.rule != "dense" or _grows(flow, unit, found)]
    parts = [part for unit, part in within if any(unit is other for other in found)]
    found = [unit for unit in found if not any(unit is part for part in parts)]
    found = [unit for unit in found if unit.rule != "dense" or not _is_dual(unit, found)]
    found = [
        unit
        for unit in _outside_branches(flow, found)
        if unit.call is None or unit.call.index not in around or not _is_pointwise(unit)
    ]
    found = [unit for unit in found if unit.rule != "parallel" or not _is_in_sibling(flow, unit, found)]
    cells = [cell for cell in cells if not any(_is_around(flow, unit, cell) for unit in found)]
    found = [unit for unit in found if not any(_joins_in(unit, cell) for cell in cells)]
    for cell in cells:
        whole = several_branches(flow, "concat", flow.smallest(cell.operation.call, ()), cell)
        found += [] if whole is None else [whole]
    found += of_concats(flow, concats, found)
    return Joined(sorted(found, key=lambda unit: unit.end.number), values, attention, with_skip, no_units)


def _grows(flow: Flow, unit: Unit, found: Iterable[Unit]) -> bool:
    """Return whether another dense layer reads or extends what a dense layer concatenates, possibly activated.

    Otherwise the concatenation is a skip, such as the innermost one of a U-Net.
    """
    assert unit.join is not None
    own = {arm.end.number for arm in unit.join.arms}
    for other in found:
        if other.rule == "dense" and other is not unit and other.join is not None:
            ends = {arm.end.number for arm in other.join.arms}
            if (
                own < ends
                or ends < own
                or _extends(flow, unit.join, other.join)
                or _extends(flow, other.join, unit.join)
            ):
                return True
    return False


def _extends(flow: Flow, join: Join, other: Join) -> bool:
    """Return whether an arm of a concatenation is another one, possibly activated."""
    makers = (flow.trace.producer(arm.end) for arm in join.arms)
    read = {arm.end.number for arm in join.arms}
    read |= {value.number for op in makers if op is not None and op.name in ACTIVATIONS for value in op.inputs}
    return other.output.number in read


def _is_dual(dense: Unit, found: list[Unit]) -> bool:
    """Return whether a dense layer is the second path of a residual unit, in the same module."""
    rules = [unit.rule for unit in found if unit.call is dense.call]
    return dense.call is not None and sorted(rules) == ["dense", "residual"]


def _outside_branches(flow: Flow, found: list[Unit]) -> list[Unit]:
    """Return the units that are not within the branch of a residual unit.

    Branches that are added, and then to a skip, as in Shake-Shake, end the branch of the residual unit at no module.
    Where it ends at one, such as a norm over their sum, they are a part of it.
    """
    residual = [(u, u.branch) for u in found if u.rule == "residual" and u.branch is not None]
    ended = {id(u) for u, branch in residual if end_of(flow, u.end, u.call, branch.own) is not None}

    def holds(outer: Unit, branch: Arm, unit: Unit) -> bool:
        joined = 0 if unit.join is None else flow.bit(unit.join.output)
        reads = any(flow.ancestors(operation.outputs[0]) & joined for operation in branch.convolutions)
        added = unit.rule == "parallel" and id(outer) in ended
        return bool(branch.own & (flow.bit(unit.end) | (joined if reads or added else 0)))

    return [unit for unit in found if unit.rule == "residual" or not any(holds(*one, unit) for one in residual)]


def _is_in_sibling(flow: Flow, unit: Unit, found: list[Unit]) -> bool:
    """Return whether a unit of added branches is within a module of the class of residual units, without their skip."""
    kinds = {type(u.call.module) for u in found if u.rule == "residual" and u.call is not None} - {nn.Sequential}
    around = [] if unit.call is None else flow.trace.enclosing(unit.call.parent)
    return any(call.parent is not None and type(call.module) in kinds for call in around)


def _is_cell(flow: Flow, join: Join) -> bool:
    """Return whether a concatenation is the output of a cell: it joins several sums from one forward.

    The sums may be activated.
    """
    makers = (flow.trace.producer(arm.end) for arm in join.arms)
    before = (flow.trace.producer(op.inputs[0]) if op is not None and op.name in ACTIVATIONS else op for op in makers)
    sums = sum(op is not None and op.name == "add" and op.call == join.operation.call for op in before)
    return sums > 1 and joining_call(flow, join) is not None


def _joins_in(unit: Unit, cell: Join) -> bool:
    return unit.join is not None and unit.join.operation.call == cell.operation.call


def _is_around(flow: Flow, unit: Unit, cell: Join) -> bool:
    """Return whether the branch of a residual unit holds a concatenation of sums, both from one forward."""
    return (
        unit.rule == "residual"
        and unit.branch is not None
        and _joins_in(unit, cell)
        and bool(unit.branch.own & flow.bit(cell.output))
    )


def _is_pointwise(unit: Unit) -> bool:
    """Return whether a branch has no spatial convolution, as the MLP of a transformer."""
    return unit.branch is not None and not any(map(is_spatial_convolution, unit.branch.convolutions))
