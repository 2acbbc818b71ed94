"""What the arms of a join are: cut from the fork, activated, linear, with attention."""

from collections.abc import Iterable
from math import prod

from senet.graph.operations import Operation, Value
from senet.insertion.traced.flow import ACTIVATIONS, LINEAR, NORMS, Flow, is_convolution
from senet.insertion.traced.joins import Arm

__all__ = [
    "PRODUCTS",
    "VIEWS",
    "attends",
    "gates_map",
    "has_norm",
    "is_activated",
    "is_linear",
    "slices_channels",
    "starts_with_slice",
    "uncut_end",
]

_SLICES = ("slice", "split", "split_with_sizes", "unsafe_split", "unbind", "select", "chunk", "narrow")
_ATTENTION = ("_scaled_dot_product", "scaled_dot_product", "_native_multi_head_attention")
_GATES = ("sigmoid", "hardsigmoid", "_softmax", "softmax")
VIEWS = (
    "view",
    "_unsafe_view",
    "reshape",
    "expand",
    "unsqueeze",
    "squeeze",
    "permute",
    "transpose",
    "clone",
    "select",
)
# The most views between a gate and its product with a map.
_STEPS = 6
PRODUCTS = ("bmm", "baddbmm", "matmul")
_POOLS = ("mean", "adaptive_avg_pool", "_adaptive_avg_pool", "amax", "adaptive_max_pool", "sum")


def has_norm(flow: Flow, arm: Arm) -> bool:
    """Return whether an arm has a norm."""
    return any(isinstance(flow.trace.calls[op.call].module, NORMS) for op in arm.operations if op.call is not None)


def slices_channels(arm: Arm) -> bool:
    """Return whether an arm without convolutions is a part of the fork's channels."""
    return not arm.convolutions and any(_is_channel_slice(op) for op in arm.operations)


def starts_with_slice(flow: Flow, arm: Arm) -> bool:
    """Return whether an arm reads a part of the fork's channels only."""
    first = [op for op in arm.operations if any(flow.depends(v) and not arm.own & flow.bit(v) for v in op.inputs)]
    return all(_is_channel_slice(op) for op in first)


def _is_channel_slice(operation: Operation) -> bool:
    axis = operation.args[1] if len(operation.args) > 1 and operation.name == "slice" else operation.args[2:3] or (1,)
    return operation.name in _SLICES and axis in (1, (1,), [1])


def uncut_end(flow: Flow, branch: Arm) -> Value:
    """Return the end of a branch, before it is cut into residual and other channels (dual path networks)."""
    maker = flow.trace.producer(branch.end)
    if maker is None or not _is_channel_slice(maker) or flow.given(branch.end):
        return branch.end
    source = maker.inputs[0]
    return source if branch.own & flow.bit(source) and flow.is_map(source) else branch.end


def is_activated(arm: Arm) -> bool:
    """Return whether an arm has an activation after its convolution."""
    first = next((i for i, op in enumerate(arm.operations) if is_convolution(op)), len(arm.operations))
    return any(op.name in ACTIVATIONS for op in arm.operations[first:])


def is_linear(branch: Arm) -> bool:
    """Return whether a branch is convolutions alone: an encoding of positions, or the logits of a network."""
    return all(is_convolution(op) or op.name == "constant_pad_nd" for op in branch.operations)


def attends(flow: Flow, operations: Iterable[Operation]) -> bool:
    """Return whether operations have attention: a softmax, a product of maps, or a gate from global pooling."""
    return any(
        operation.name.startswith(_ATTENTION)
        or operation.name in PRODUCTS
        or "softmax" in operation.name
        or (operation.name.startswith(_POOLS) and _pools_all(operation) and _makes_gate(flow, operation))
        for operation in operations
    )


def _pools_all(operation: Operation) -> bool:
    """Return whether an operation pools the map (N, C, *spatial) over all positions."""
    if not operation.inputs or not operation.outputs or len(operation.inputs[0].shape) < 3:
        return False
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    return max(before[2:]) > 1 and after[:2] == before[:2] and set(after[2:]) <= {1}


def _makes_gate(flow: Flow, pool: Operation) -> bool:
    """Return whether a layer, an activation or a gate reads what an operation pools; only arithmetic does in a norm."""
    todo, seen = [pool.outputs[0]], {pool.outputs[0].number}
    while todo:
        value = todo.pop()
        pooled = max(value.shape[2:], default=1) == 1
        for reader in flow.trace.consumers(value):
            if reader.name in _GATES or (pooled and reader.name in ACTIVATIONS and reader.name != "clamp_min"):
                return True
            if is_convolution(reader) or reader.name in LINEAR:
                if pooled:
                    return True
                continue
            for made in reader.outputs:
                follows = pooled or (reader.call == pool.call and max(made.shape[2:], default=1) > 1)
                if follows and made.number not in seen:
                    seen.add(made.number)
                    todo.append(made)
    return False


def gates_map(flow: Flow, operations: Iterable[Operation]) -> bool:
    """Return whether a map is multiplied by a sigmoid or softmax with fewer channels or positions, as in attention.

    Gates as large as the map, as in gated convolutions, do not count.
    """
    for operation in operations:
        values = [value for value in operation.inputs if flow.depends(value)]
        if operation.name == "mul" and len(values) == 2 and operation.outputs:
            shape = operation.outputs[0].shape
            if any(_is_small_gate(flow, value, shape) for value in values):
                return True
    return False


def _is_small_gate(flow: Flow, value: Value, shape: tuple[int, ...]) -> bool:
    small = value.shape != shape
    for _ in range(_STEPS):
        maker = flow.trace.producer(value)
        before = [] if maker is None else [v for v in maker.inputs if flow.depends(v)]
        if maker is None or len(before) != 1:
            return False
        if maker.name in _GATES:
            return small
        if maker.name not in VIEWS:
            return False
        value = before[0]
        small = small or (maker.name == "expand" and prod(value.shape) < prod(shape))
    return False
