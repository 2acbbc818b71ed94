"""The forms of units: residual units, layers of dense blocks, and several branches that are added or concatenated."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations

from torch import nn

from senet.graph.operations import Call, Value
from senet.insertion.site import Rule
from senet.insertion.traced.arms import (
    attends,
    has_norm,
    is_activated,
    is_linear,
    slices_channels,
    starts_with_slice,
    uncut_end,
)
from senet.insertion.traced.flow import Flow, is_convolution, is_spatial_convolution, layer_end
from senet.insertion.traced.join_scope import branch_within, convolutions_within, own_within
from senet.insertion.traced.joins import Arm, Join, lowers_resolution, raises_resolution
from senet.insertion.traced.unit import Unit

__all__ = ["adds_skip", "branches_with_skip", "dense_layer", "of_concats", "of_sum", "several_branches"]


def of_sum(flow: Flow, join: Join) -> Unit | None:
    """Return the unit of a sum: a residual unit, or several branches."""
    arms = sorted(join.arms, key=lambda arm: (arm.depth, len(arm.convolutions)))
    branch = arms[-1]
    if all(_is_skip(flow, arm, branch) for arm in arms[:-1]):
        whole = uncut_end(flow, branch)
        inside = branch_within(flow, join, branch)
        sliced = any(map(slices_channels, arms[:-1])) and whole == branch.end and starts_with_slice(flow, branch)
        if is_linear(branch) or inside is None or sliced:
            return None
        skip = arms[0] if len(arms) == 2 else None
        return Unit("residual", flow.smallest(join.operation.call, inside.convolutions), whole, join, inside, skip)
    if adds_skip(flow, join):
        return None
    call = flow.smallest(join.operation.call, [c for arm in arms for c in arm.convolutions])
    return several_branches(flow, "parallel", call, join)


def adds_skip(flow: Flow, join: Join) -> bool:
    """Return whether a sum is of several branches and a skip: SE on it would scale the skip."""
    if join.kind != "sum" or len(join.arms) < 3:
        return False
    arms = sorted(join.arms, key=lambda arm: (arm.depth, len(arm.convolutions)))
    skips = [arm for arm in arms[:-1] if _is_skip(flow, arm, arms[-1])]
    return any(not arm.convolutions for arm in skips) or len(skips) == 1


def branches_with_skip(flow: Flow, join: Join) -> list[Unit]:
    """Return a unit for each branch of a sum of several branches and a skip, as in Shake-Shake; SE ends each branch.

    Single layers without an activation in between, as those of RepVGG that become one convolution, are no branches, nor
    are those that share layers.
    """
    arms = sorted(join.arms, key=lambda arm: (arm.depth, len(arm.convolutions)))
    skips = [arm for arm in arms[:-1] if _is_skip(flow, arm, arms[-1])]
    branches = [arm for arm in join.arms if not any(arm is skip for skip in skips)]
    if not any(branch.depth > 1 or is_activated(branch) for branch in branches):
        return []
    inside = [branch_within(flow, join, branch) for branch in branches]
    found = [branch for branch in inside if branch is not None and not is_linear(branch)]
    if len(found) < len(branches) or any(one.own & other.own for one, other in combinations(branches, 2)):
        return []
    call = flow.smallest(join.operation.call, [op for branch in found for op in branch.convolutions])
    skip = skips[0] if len(skips) == 1 else None
    return [Unit("residual", call, branch.end, join, branch, skip) for branch in found]


def _is_skip(flow: Flow, arm: Arm, branch: Arm) -> bool:
    """Return whether an arm is a skip for another one: without convolutions, or a projection where that is deeper."""
    if not arm.convolutions and not has_norm(flow, arm):
        return True
    is_branch = is_activated(arm) and (arm.depth > 1 or any(map(is_spatial_convolution, arm.convolutions)))
    return arm.depth < branch.depth > 1 and not is_branch


def several_branches(flow: Flow, rule: Rule, call: Call | None, join: Join) -> Unit | None:
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
    if attends(flow, (op for op in flow.trace.operations if flow.inside(op, call))):
        return None
    if len(readers) == 1 and sum(map(is_convolution, after)) > 1 and end.shape[2:] != join.output.shape[2:]:
        end = layer_end(flow, readers[0])
    return Unit(rule, call, end, join)


def _iterates(module: nn.Module) -> bool:
    """Return whether a module is a sequence with a forward of its own, which runs all its children."""
    return isinstance(module, nn.Sequential) and type(module).forward is not nn.Sequential.forward


def dense_layer(flow: Flow, join: Join, earlier: Iterable[frozenset[int]]) -> Unit | None:
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


def _since_last_concat(flow: Flow, arm: Arm) -> tuple[Arm, list[Value]]:
    """Return the part of an arm after its last concatenation, the layer that makes the new maps, and what that read."""
    last = next((op for op in reversed(arm.operations) if op.name == "cat"), None)
    if last is None:
        return arm, []
    own = arm.own & ~flow.ancestors(last.outputs[0])
    return Arm(arm.end, own, tuple(flow.operations(own))), last.inputs


def of_concats(flow: Flow, concats: list[Join], found: list[Unit]) -> Iterator[Unit]:
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
        own = own_within(flow, join)
        if own & taken or taken & flow.bit(join.output):
            continue
        whole = several_branches(
            flow, "concat", flow.smallest(join.operation.call, convolutions_within(flow, join)), join
        )
        if whole is not None and flow.ancestors(whole.end) & ~flow.ancestors(join.output) & sums:
            continue  # units follow in the same module
        arms = sorted(join.arms, key=lambda arm: len(arm.convolutions))
        if whole is not None and len(arms) == 2 and not arms[0].convolutions and not slices_channels(arms[0]):
            whole = replace(whole, end=arms[1].end, branch=arms[1], skip=arms[0])
        if whole is not None:
            taken |= own | flow.bit(join.output)
            yield whole
