"""Which joins of a run are units of a network: residual units, dense layers and blocks of several branches.

A join is no unit if

- an arm leaves the resolutions between fork and join (the skip of a U-Net, the lateral of a feature pyramid),
- an arm holds another unit (a skip around several units, an aggregation of them),
- no arm has a convolution, or an arm has attention.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from senet.graph.operations import Call, Operation, Value
from senet.insertion.traced.flow import NORMS, Flow
from senet.insertion.traced.joins import Arm, Join, changes_resolution, joins

__all__ = ["Unit", "attends", "units"]

# The most convolutions of an arm. A skip around more of them is one around a whole network.
_MOST = 24
_SLICES = ("slice", "split", "split_with_sizes", "unsafe_split", "unbind", "select", "chunk", "narrow")
_PRODUCTS = ("bmm", "matmul", "mm", "baddbmm")
_ATTENTION = ("_scaled_dot_product", "scaled_dot_product", "_native_multi_head_attention")
_POOLS = ("mean", "adaptive_avg_pool", "_adaptive_avg_pool", "amax", "adaptive_max_pool", "sum")


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


def units(flow: Flow) -> tuple[list[Unit], dict[int, str]]:
    """Return the units of a run, in the order of their joins, and why other joins with convolutions are none.

    Returns:
        units, and reasons by the number of the join's output.
    """
    found: list[Unit] = []
    reasons: dict[int, str] = {}
    concats: list[Join] = []
    earlier: list[frozenset[int]] = []
    for join in joins(flow):
        numbers = frozenset(arm.end.number for arm in join.arms)
        old = earlier.copy()
        if join.kind == "concat":
            earlier.append(numbers)
        if not any(arm.convolutions for arm in join.arms):
            continue
        dense = _dense(flow, join, old) if join.kind == "concat" else None
        reason = _why_not(flow, join, (dense.branch,) if dense and dense.branch else join.arms, found)
        if reason:
            reasons[join.output.number] = reason
            continue
        unit = _of_sum(flow, join) if join.kind == "sum" else dense
        if unit is not None:
            found.append(unit)
        elif join.kind == "concat":
            concats.append(join)
    found = _outside_branches(flow, found)
    return sorted([*found, *_of_concats(flow, concats, found)], key=lambda unit: unit.end.number), reasons


def _why_not(flow: Flow, join: Join, arms: Iterable[Arm], found: Iterable[Unit]) -> str:
    """Return why a join of some arms is no unit, for messages; "" if it may be one."""
    if changes_resolution(flow, join):
        return "skip over a change of resolution"
    own = 0
    for arm in arms:
        own |= arm.own
    held = [u for u in found if u.rule == "residual" and u.join is not None and own & flow.bit(u.join.output)]
    if held:
        return "holds other units"
    if max(len(arm.convolutions) for arm in arms) > _MOST:
        return "skip over a whole network"
    if any(attends(arm.operations) for arm in arms):
        return "attention"
    return ""


def _of_sum(flow: Flow, join: Join) -> Unit | None:
    """Return the unit of a sum: a residual unit, or several branches."""
    arms = sorted(join.arms, key=lambda arm: len(arm.convolutions))
    skip, branch = arms[0], arms[-1]
    counts = [len(arm.convolutions) for arm in arms]
    identity = not skip.convolutions and not _has_norm(flow, skip)
    if len(arms) == 2 and counts[0] <= 1 and (counts[1] > max(counts[0], 1) or identity):
        if _slices_channels(skip):
            return None
        return Unit("residual", flow.smallest(join.operation.call, branch.convolutions), branch.end, join, branch, skip)
    call = flow.smallest(join.operation.call, [c for arm in arms for c in arm.convolutions])
    return _several(flow, "parallel", call, join)


def _several(flow: Flow, rule: str, call: Call | None, join: Join) -> Unit | None:
    """Return a unit of several branches, which ends at the output of its module, or at the join."""
    if call is None:
        return Unit(rule, None, join.output, join)
    if call.given is None or not flow.is_map(call.given) or not flow.ancestors(call.given) & flow.bit(join.output):
        return None
    return Unit(rule, call, call.given, join)


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
            new = _since_last_concat(flow, arm)
            call = flow.smallest(new.convolutions[-1].call, new.convolutions) if new.convolutions else None
            skip = next(a for a in join.arms if a is not arm)
            return Unit("dense", call, arm.end, join, new, skip) if new.convolutions else None
    return None


def _since_last_concat(flow: Flow, arm: Arm) -> Arm:
    """Return the part of an arm after its last concatenation: the layer that makes the new maps."""
    last = next((op for op in reversed(arm.operations) if op.name == "cat"), None)
    if last is None:
        return arm
    own = arm.own & ~flow.ancestors(last.outputs[0])
    return Arm(arm.end, own, tuple(flow.operations(own)))


def _outside_branches(flow: Flow, found: list[Unit]) -> list[Unit]:
    """Return the units that are not within the branch of a residual unit."""
    branches = [u.branch.own for u in found if u.rule == "residual" and u.branch is not None]

    def inside(unit: Unit) -> bool:
        return unit.rule != "residual" and any(own & flow.bit(unit.end) for own in branches)

    return [unit for unit in found if not inside(unit)]


def _of_concats(flow: Flow, concats: list[Join], found: list[Unit]) -> Iterator[Unit]:
    """Yield the units of several concatenated branches: the outermost ones that hold no unit and are in none."""
    taken = 0
    for unit in found:
        for arm in () if unit.join is None else unit.join.arms:
            taken |= arm.own
        taken |= flow.bit(unit.end)
    for join in reversed(concats):
        own = 0
        for arm in join.arms:
            own |= arm.own
        if own & taken or taken & flow.bit(join.output):
            continue
        call = flow.smallest(join.operation.call, [c for arm in join.arms for c in arm.convolutions])
        whole = _several(flow, "concat", call, join)
        if whole is not None:
            taken |= own | flow.bit(join.output)
            yield whole


def _has_norm(flow: Flow, arm: Arm) -> bool:
    return any(isinstance(flow.trace.calls[op.call].module, NORMS) for op in arm.operations if op.call is not None)


def _slices_channels(arm: Arm) -> bool:
    """Return whether an arm without convolutions is a part of the fork's channels."""
    return not arm.convolutions and any(
        op.name in _SLICES
        and (op.args[1] if len(op.args) > 1 and op.name == "slice" else op.args[2:3] or (1,)) in (1, (1,), [1])
        for op in arm.operations
    )


def attends(operations: Iterable[Operation]) -> bool:
    """Return whether operations have attention: a softmax and a product of maps, or a gate from global pooling."""
    softmax = product = False
    for operation in operations:
        name = operation.name
        if name.startswith(_ATTENTION):
            return True
        softmax |= "softmax" in name
        product |= name in _PRODUCTS
        if name.startswith(_POOLS) and _pools_all(operation):
            return True
    return softmax and product


def _pools_all(operation: Operation) -> bool:
    """Return whether an operation pools the map (N, C, *spatial) over all positions."""
    if not operation.inputs or not operation.outputs or len(operation.inputs[0].shape) < 3:
        return False
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    return max(before[2:]) > 1 and after[:2] == before[:2] and set(after[2:]) <= {1}
