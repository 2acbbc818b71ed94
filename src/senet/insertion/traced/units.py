"""Which joins of a run are units of a network: residual units, dense layers and blocks of several branches.

A join is no unit if

- an arm leaves the resolutions between fork and join (the skip of a U-Net, the lateral of a feature pyramid),
- an arm holds another unit (a skip around several units, an aggregation of them); an inner sum that one unit's own
  forward makes is part of that unit,
- no arm has a convolution, or an arm has attention or noise (a variational autoencoder samples from two layers),
- an arm has more than four convolutions, and the arms most of the network's (a long skip, two streams),
- it makes the network's output from a bare convolution, as where a network adds a correction to its image, or the
  scores of several heads.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from senet.graph.operations import Call, Operation, Value
from senet.insertion.traced.arms import (
    attends,
    gates_map,
    has_norm,
    is_activated,
    is_linear,
    slices_channels,
    starts_with_slice,
    uncut_end,
)
from senet.insertion.traced.flow import NOISE, Flow, is_convolution, is_spatial_convolution, layer_end
from senet.insertion.traced.joins import Arm, Join, changes_resolution, joins, lowers_resolution, raises_resolution

__all__ = ["Joined", "Unit", "units"]

# Arms with more convolutions in one than these, and together half of the network's, are a whole network.
_MOST = 4


@dataclass(frozen=True)
class Unit:
    """A unit of a network, as in `Site.unit`.

    Attributes:
        rule: see `Site.rule`.
        call: of the module that is the unit; None where the network's own forward joins.
        end: the value at the placement "standard": the end of the branch, or the output of the unit.
        join: None where nothing joins.
        branch: the arm with the convolutions; None for a unit of several branches.
        skip: the other arm; None without one.
    """

    rule: str
    call: Call | None
    end: Value
    join: Join | None = None
    branch: Arm | None = None
    skip: Arm | None = None

    @property
    def name(self) -> str:
        """The unit's module; empty if it is none."""
        return "" if self.call is None else self.call.name


@dataclass(frozen=True)
class Joined:
    """The joins of a run with convolutions.

    Attributes:
        units: those that are units, in the order of their ends.
        values: numbers of all joined values.
        attention: those that are no units because an arm has attention.
        no_units: why joins are no units, by the number of the joined value.
    """

    units: list[Unit]
    values: set[int]
    attention: list[Join]
    no_units: dict[int, str]


def units(flow: Flow) -> Joined:
    """Find the units among the joins of a run."""
    found: list[Unit] = []
    values: set[int] = set()
    attention: list[Join] = []
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
        dense = _dense(flow, join, old) if join.kind == "concat" else None
        arms = (dense.branch,) if dense and dense.branch else join.arms
        held = _held(flow, arms, found)
        inner = held if _is_inner(flow, join, arms, held) else []
        reason = _why_not(flow, join, arms, [] if inner else held, found)
        values.add(join.output.number)
        if reason == "attention":
            attention.append(join)
            if join.kind == "sum":
                call = flow.smallest(join.operation.call, [op for arm in join.arms for op in arm.operations])
                around |= set() if call is None else {call.index}
        if reason:
            no_units[join.output.number] = reason
            continue
        unit = _of_sum(flow, join) if join.kind == "sum" else dense
        if unit is not None:
            found.append(unit)
            within += [(unit, part) for part in inner]
        elif join.kind == "concat":
            concats.append(join)
    found = [unit for unit in found if unit.rule != "dense" or _grows(unit, found)]
    parts = [part for unit, part in within if any(unit is other for other in found)]
    found = [unit for unit in found if not any(unit is part for part in parts)]
    found = [unit for unit in found if unit.rule != "dense" or not _is_dual(unit, found)]
    found = [
        unit
        for unit in _outside_branches(flow, found)
        if unit.call is None or unit.call.index not in around or not _is_pointwise(unit)
    ]
    found = [unit for unit in found if unit.rule != "parallel" or not _is_in_sibling(flow, unit, found)]
    found = [unit for unit in found if not any(_joins_in(unit, cell) for cell in cells)]
    for cell in cells:
        whole = _several(flow, "concat", flow.smallest(cell.operation.call, ()), cell)
        found += [] if whole is None else [whole]
    found += _of_concats(flow, concats, found)
    return Joined(sorted(found, key=lambda unit: unit.end.number), values, attention, no_units)


def _is_output(flow: Flow, join: Join, found: Iterable[Unit]) -> bool:
    """Return whether a sum of bare convolutions is the network's output, and no unit like earlier ones."""
    makers = [flow.trace.producer(arm.end) for arm in join.arms if arm.convolutions]
    if not all(maker is not None and is_convolution(maker) for maker in makers):
        return False
    scores = len(makers) == len(join.arms) or join.fork in flow.trace.inputs
    if not (flow.is_score(join.output) if scores else flow.is_last(join.output)):
        return False
    call = flow.smallest(join.operation.call, [op for arm in join.arms for op in arm.operations])
    kinds = {type(unit.call.module) for unit in found if unit.call is not None}
    return call is None or type(call.module) is nn.Sequential or type(call.module) not in kinds


def _held(flow: Flow, arms: Iterable[Arm], found: Iterable[Unit]) -> list[Unit]:
    """Return the residual units in some arms."""
    own = 0
    for arm in arms:
        own |= arm.own
    return [u for u in found if u.rule == "residual" and u.join is not None and own & flow.bit(u.join.output)]


def _is_inner(flow: Flow, join: Join, arms: Iterable[Arm], held: list[Unit]) -> bool:
    """Return whether the units in the arms of a join are one sum of the same forward, with convolutions around it."""
    if len(held) != 1 or join.operation.call is None or flow.trace.calls[join.operation.call].parent is None:
        return False
    (unit,) = held
    if unit.join is None or unit.branch is None or unit.join.operation.call != join.operation.call:
        return False
    return max(len(arm.convolutions) for arm in arms) > len(unit.branch.convolutions)


def _why_not(flow: Flow, join: Join, arms: Iterable[Arm], held: list[Unit], found: list[Unit]) -> str:
    """Return why a join is no unit, for messages; "" if it may be one.

    Args:
        flow: of the run.
        join: the join.
        arms: of it.
        held: units in these arms.
        found: the units so far.
    """
    if changes_resolution(flow, join):
        return "an arm of its join has another resolution, as the skip of a U-Net"
    if held:
        return "its join is around other units"
    if max(len(arm.convolutions) for arm in arms) > _MOST and _convolutions_in(flow, join) > flow.convolutions // 2:
        return "its join is around most of the network"
    if join.kind == "sum" and _is_output(flow, join, found):
        return "its join is of outputs of the network"
    if any(_is_noise(flow, arm.end) for arm in arms):
        return "sampling"
    gated = join.kind == "sum" and any(gates_map(flow, arm.operations) for arm in arms)
    if gated or any(attends(arm.operations) for arm in arms):
        return "attention"
    return ""


def _is_noise(flow: Flow, value: Value) -> bool:
    """Return whether a value is noise times its deviation."""
    maker = flow.trace.producer(value)
    factors = maker.inputs if maker is not None and maker.name == "mul" else []
    return any(op is not None and op.name in NOISE for op in map(flow.trace.producer, factors))


def _convolutions_in(flow: Flow, join: Join) -> int:
    """Return how many convolutions the arms have in the module that joins."""
    return sum(map(is_convolution, flow.operations(_own_within(flow, join))))


def _of_sum(flow: Flow, join: Join) -> Unit | None:
    """Return the unit of a sum: a residual unit, or several branches."""
    arms = sorted(join.arms, key=lambda arm: len(arm.convolutions))
    skip, branch = arms[0], arms[-1]
    counts = [len(arm.convolutions) for arm in arms]
    identity = not skip.convolutions and not has_norm(flow, skip)
    is_branch = is_activated(skip) and any(map(is_spatial_convolution, skip.convolutions))
    is_skip = identity or (counts[0] <= 1 and counts[1] > 1 and not is_branch)
    if len(arms) == 2 and is_skip:
        whole = uncut_end(flow, branch)
        inside = _inside(flow, join, branch)
        if (
            is_linear(branch)
            or inside is None
            or (slices_channels(skip) and whole == branch.end and starts_with_slice(flow, branch))
        ):
            return None
        return Unit("residual", flow.smallest(join.operation.call, inside.convolutions), whole, join, inside, skip)
    call = flow.smallest(join.operation.call, [c for arm in arms for c in arm.convolutions])
    return _several(flow, "parallel", call, join)


def _several(flow: Flow, rule: str, call: Call | None, join: Join) -> Unit | None:
    """Return a unit of several branches, which ends at the output of its module, or at the join.

    Where the module returns no map, but a list of maps, or changes the resolution after the join, the unit ends at the
    layer that reads the joined map.
    """
    if join.fork in flow.trace.inputs or raises_resolution(join):
        return None  # the stem, and the merging of a feature pyramid
    while call is not None and _iterates(call.module):
        call = flow.trace.calls[call.parent] if call.parent else None
    if call is None:  # of a network's own forward: only where a module joins
        return Unit(rule, None, join.output, join) if flow.given(join.output) else None
    readers = [op for op in flow.trace.consumers(join.output) if is_convolution(op) and flow.inside(op, call)]
    end = call.given
    if end is None or not flow.is_map(end) or not flow.ancestors(end) & flow.bit(join.output):
        end = layer_end(flow, readers[0]) if len(readers) == 1 else None
    if end is None or lowers_resolution(end, join.output):
        return None
    after = flow.operations(flow.ancestors(end) & ~flow.ancestors(join.output))
    if attends(op for op in flow.trace.operations if flow.inside(op, call)):
        return None
    if len(readers) == 1 and sum(map(is_convolution, after)) > 1 and end.shape[2:] != join.output.shape[2:]:
        end = layer_end(flow, readers[0])
    return Unit(rule, call, end, join)


def _iterates(module: nn.Module) -> bool:
    """Return whether a module is a sequence with a forward of its own, which runs all its children."""
    return isinstance(module, nn.Sequential) and type(module).forward is not nn.Sequential.forward


def _dense(flow: Flow, join: Join, earlier: Iterable[frozenset[int]]) -> Unit | None:
    """Return the layer of a dense block: one arm has new maps, and the others were concatenated before.

    Args:
        flow: of the run.
        join: a concatenation.
        earlier: the values of each concatenation before it.
    """
    numbers = frozenset(arm.end.number for arm in join.arms)
    for arm in reversed(join.arms):
        rest = numbers - {arm.end.number}
        is_fork = rest == {join.fork.number}
        if arm.convolutions and (is_fork or (len(rest) > 1 and rest in earlier)):
            new, read = _since_last_concat(flow, arm)
            if not is_fork and {value.number for value in read} != rest:
                continue
            call = _layer_around(flow, new) if new.convolutions else None
            skip = next(a for a in join.arms if a is not arm)
            return Unit("dense", call, arm.end, join, new, skip) if new.convolutions else None
    return None


def _layer_around(flow: Flow, arm: Arm) -> Call | None:
    """Return the innermost module that holds an arm's convolutions, and is none itself."""
    call = flow.smallest(arm.convolutions[-1].call, arm.convolutions)
    while call is not None and call.parent is not None and not list(call.module.children()):
        call = flow.trace.calls[call.parent]
    return None if call is None or call.parent is None else call


def _grows(unit: Unit, found: Iterable[Unit]) -> bool:
    """Return whether another dense layer reads or extends what a dense layer concatenates.

    Otherwise the concatenation is a skip, such as the innermost one of a U-Net.
    """
    assert unit.join is not None
    own = {arm.end.number for arm in unit.join.arms}
    for other in found:
        if other.rule == "dense" and other is not unit and other.join is not None:
            ends = {arm.end.number for arm in other.join.arms}
            if own < ends or ends < own or unit.join.output.number in ends or other.join.output.number in own:
                return True
    return False


def _is_dual(dense: Unit, found: list[Unit]) -> bool:
    """Return whether a dense layer is the second path of a residual unit, in the same module."""
    rules = [unit.rule for unit in found if unit.call is dense.call]
    return dense.call is not None and sorted(rules) == ["dense", "residual"]


def _since_last_concat(flow: Flow, arm: Arm) -> tuple[Arm, list[Value]]:
    """Return the part of an arm after its last concatenation, the layer that makes the new maps, and what that read."""
    last = next((op for op in reversed(arm.operations) if op.name == "cat"), None)
    if last is None:
        return arm, []
    own = arm.own & ~flow.ancestors(last.outputs[0])
    return Arm(arm.end, own, tuple(flow.operations(own))), last.inputs


def _outside_branches(flow: Flow, found: list[Unit]) -> list[Unit]:
    """Return the units that are not within the branch of a residual unit."""
    branches = [u.branch.own for u in found if u.rule == "residual" and u.branch is not None]

    def inside(unit: Unit) -> bool:
        return unit.rule != "residual" and any(own & flow.bit(unit.end) for own in branches)

    return [unit for unit in found if not inside(unit)]


def _is_in_sibling(flow: Flow, unit: Unit, found: list[Unit]) -> bool:
    """Return whether a unit of added branches is within a module of the class of residual units, without their skip."""
    kinds = {type(u.call.module) for u in found if u.rule == "residual" and u.call is not None} - {nn.Sequential}
    around = [] if unit.call is None else flow.trace.enclosing(unit.call.parent)
    return any(call.parent is not None and type(call.module) in kinds for call in around)


def _is_cell(flow: Flow, join: Join) -> bool:
    """Return whether a concatenation is the output of a cell: it joins several sums from one forward."""
    makers = (flow.trace.producer(arm.end) for arm in join.arms)
    sums = sum(op is not None and op.name == "add" and op.call == join.operation.call for op in makers)
    return sums > 1 and _joining_call(flow, join) is not None


def _joins_in(unit: Unit, cell: Join) -> bool:
    return unit.join is not None and unit.join.operation.call == cell.operation.call


def _of_concats(flow: Flow, concats: list[Join], found: list[Unit]) -> Iterator[Unit]:
    """Yield the units of several concatenated branches: the outermost ones that hold no unit and are in none."""
    taken = 0
    for unit in found:
        for arm in () if unit.join is None else unit.join.arms:
            taken |= arm.own
        taken |= flow.bit(unit.end)
    sums = 0
    for unit in found:
        sums |= 0 if unit.join is None else flow.bit(unit.join.output)
    for join in reversed(concats):
        own = _own_within(flow, join)
        if own & taken or taken & flow.bit(join.output):
            continue
        whole = _several(flow, "concat", flow.smallest(join.operation.call, _convolutions_within(flow, join)), join)
        if whole is not None and flow.ancestors(whole.end) & ~flow.ancestors(join.output) & sums:
            continue  # units follow in the same module
        arms = sorted(join.arms, key=lambda arm: len(arm.convolutions))
        if whole is not None and len(arms) == 2 and not arms[0].convolutions and not slices_channels(arms[0]):
            whole = replace(whole, end=arms[1].end, branch=arms[1], skip=arms[0])
        if whole is not None:
            taken |= own | flow.bit(join.output)
            yield whole


def _joining_call(flow: Flow, join: Join) -> Call | None:
    """Return the innermost call around a join whose module has convolutions."""
    for call in flow.trace.enclosing(join.operation.call):
        if any(isinstance(module, nn.modules.conv._ConvNd) for module in call.module.modules()):
            return call
    return None


def _own_within(flow: Flow, join: Join) -> int:
    """Return the values of all arms, without those from outside of the module that joins."""
    call = _joining_call(flow, join)
    own = 0
    for arm in join.arms:
        inside = [op for op in arm.operations if call is None or flow.inside(op, call)]
        for operation in inside or arm.operations:
            for value in operation.outputs:
                own |= arm.own & flow.bit(value) if flow.depends(value) else 0
    return own


def _convolutions_within(flow: Flow, join: Join) -> list[Operation]:
    """Return the convolutions of all arms, without those from outside of the module that joins."""
    call = _joining_call(flow, join)
    convolutions = [operation for arm in join.arms for operation in arm.convolutions]
    inside = [operation for operation in convolutions if call is not None and flow.inside(operation, call)]
    return inside or convolutions


def _inside(flow: Flow, join: Join, branch: Arm) -> Arm | None:
    """Return the part of a branch in the module that joins; None where it does not read the fork there.

    The cells of NASNet, with several inputs, add maps of which one was computed outside. In a dual path unit with two
    inputs, the branch reads the fork, and another map with it.
    """
    call = _joining_call(flow, join)
    if call is None or all(flow.inside(op, call) for op in branch.convolutions):
        return branch
    operations = tuple(op for op in branch.operations if flow.inside(op, call))
    if not any(value == join.fork for op in operations for value in op.inputs):
        return None
    own = 0
    for operation in operations:
        for value in operation.outputs:
            own |= branch.own & flow.bit(value)
    inside = Arm(branch.end, own, operations)
    return inside if inside.convolutions else None


def _is_pointwise(unit: Unit) -> bool:
    """Return whether a branch has no spatial convolution, as the MLP of a transformer."""
    return unit.branch is not None and not any(map(is_spatial_convolution, unit.branch.convolutions))
