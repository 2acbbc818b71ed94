"""What belongs to a join: the parts of its arms in the module that joins."""

from senet.graph.operations import Call, Operation
from senet.insertion.traced.flow import Flow
from senet.insertion.traced.joins import Arm, Join

__all__ = ["branch_within", "convolutions_within", "joining_call", "own_within"]


def joining_call(flow: Flow, join: Join) -> Call | None:
    """Return the innermost call around a join in which a convolution ran."""
    return next((call for call in flow.trace.enclosing(join.operation.call) if flow.convolves(call)), None)


def own_within(flow: Flow, join: Join) -> int:
    """Return the values of all arms, without those from outside of the module that joins."""
    call = joining_call(flow, join)
    own = 0
    for arm in join.arms:
        inside = [op for op in arm.operations if call is None or flow.inside(op, call)]
        for operation in inside or arm.operations:
            for value in operation.outputs:
                own |= arm.own & flow.bit(value) if flow.depends(value) else 0
    return own


def convolutions_within(flow: Flow, join: Join) -> list[Operation]:
    """Return the convolutions of all arms, without those from outside of the module that joins."""
    call = joining_call(flow, join)
    convolutions = [operation for arm in join.arms for operation in arm.convolutions]
    inside = [operation for operation in convolutions if call is not None and flow.inside(operation, call)]
    return inside or convolutions


def branch_within(flow: Flow, join: Join, branch: Arm) -> Arm | None:
    """Return the part of a branch in the module that joins; None where it does not read the fork there.

    The cells of NASNet, with several inputs, add maps of which one was computed outside. In a dual path unit with two
    inputs, the branch reads the fork, and another map with it.
    """
    call = joining_call(flow, join)
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
