"""What the arms of a join are: cut from the fork, activated, linear, with attention."""

from collections.abc import Iterable

from senet.graph.operations import Operation, Value
from senet.insertion.traced.flow import NORMS, Flow, is_convolution
from senet.insertion.traced.joins import Arm

__all__ = ["attends", "has_norm", "is_activated", "is_linear", "slices_channels", "uncut_end"]

_SLICES = ("slice", "split", "split_with_sizes", "unsafe_split", "unbind", "select", "chunk", "narrow")
_ATTENTION = ("_scaled_dot_product", "scaled_dot_product", "_native_multi_head_attention")
_ACTIVATIONS = (
    *("relu", "prelu", "_prelu_kernel", "leaky_relu", "elu", "celu", "silu", "gelu", "mish", "hardtanh", "hardswish"),
    *("sigmoid", "tanh", "softplus", "clamp_min"),
)
_PRODUCTS = ("bmm", "baddbmm", "matmul")
_POOLS = ("mean", "adaptive_avg_pool", "_adaptive_avg_pool", "amax", "adaptive_max_pool", "sum")


def has_norm(flow: Flow, arm: Arm) -> bool:
    """Return whether an arm has a norm."""
    return any(isinstance(flow.trace.calls[op.call].module, NORMS) for op in arm.operations if op.call is not None)


def slices_channels(arm: Arm) -> bool:
    """Return whether an arm without convolutions is a part of the fork's channels."""
    return not arm.convolutions and any(_is_channel_slice(op) for op in arm.operations)


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
    return any(op.name in _ACTIVATIONS for op in arm.operations[first:])


def is_linear(branch: Arm) -> bool:
    """Return whether a branch is convolutions alone: an encoding of positions, or the logits of a network."""
    return all(is_convolution(op) or op.name == "constant_pad_nd" for op in branch.operations)


def attends(operations: Iterable[Operation]) -> bool:
    """Return whether operations have attention: a softmax, a product of maps, or a gate from global pooling."""
    return any(
        operation.name.startswith(_ATTENTION)
        or operation.name in _PRODUCTS
        or "softmax" in operation.name
        or (operation.name.startswith(_POOLS) and _pools_all(operation))
        for operation in operations
    )


def _pools_all(operation: Operation) -> bool:
    """Return whether an operation pools the map (N, C, *spatial) over all positions."""
    if not operation.inputs or not operation.outputs or len(operation.inputs[0].shape) < 3:
        return False
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    return max(before[2:]) > 1 and after[:2] == before[:2] and set(after[2:]) <= {1}
