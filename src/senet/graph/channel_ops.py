"""What operations do to a constant factor of each channel: pass it on, move it to another axis, or stop it."""

from collections.abc import Iterator
from math import prod

from senet.graph.operations import Operation, Trace, Value

__all__ = ["NORMS", "RESHAPES", "NoPath", "describe", "moved", "passes", "places", "same_shapes"]

NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit")
RESHAPES = ("view", "_unsafe_view", "permute", "transpose", "unsqueeze", "squeeze", "reshape")

# A factor passes through these; through the second row only if it is not negative.
_LINEAR = (
    *("clone", "alias", "detach", "lift_fresh", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d"),
    *("_adaptive_avg_pool3d", "upsample_nearest2d", "upsample_bilinear2d", "reflection_pad2d"),
)
_MONOTONE = ("relu", "leaky_relu", "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "amax")
# These take the channels on axis 1, and act on the axes after it.
_SPATIAL = ("pool", "upsample", "reflection")
_WORDS = {
    "add": "a sum",
    "mul": "a product",
    "cat": "a concatenation",
    "silu": "SiLU",
    "hardswish": "hard swish",
    "hardtanh": "a clipped activation",
    "gelu": "GELU",
}


class NoPath(Exception):  # noqa: N818
    """A factor cannot pass; the message is the reason."""


def passes(operation: Operation, axis: int, positive: bool) -> bool:
    """Return whether a factor on an axis of the first input passes through and stays on that axis.

    Args:
        operation: the operation.
        axis: of the channels.
        positive: whether no element of the factor is negative.

    Raises:
        NoPath: the factor would pass but for its sign.
    """
    name, args, rank = operation.name, operation.args, len(operation.outputs[0].shape)
    if name in _MONOTONE and not positive:
        raise NoPath(f"a gate is negative, and {describe(operation)} follows the sign")
    if name in ("mean", "sum", "amax"):
        axes = args[1] if len(args) > 1 else None
        before = len(operation.inputs[0].shape)
        reduced = {a % before for a in axes} if isinstance(axes, list | tuple) else set(range(before))
        return axis not in reduced and (rank == before or all(a > axis for a in reduced))
    if name == "slice":
        dim = int(args[1]) if len(args) > 1 else 0
        return dim % rank != axis
    if name == "constant_pad_nd":
        value = float(args[2]) if len(args) > 2 else 0.0
        return value == 0 and len(args[1]) // 2 < rank - axis
    if any(part in name for part in _SPATIAL) and axis != 1:
        return False
    return name in _LINEAR or name in _MONOTONE


def moved(operation: Operation, axis: int) -> tuple[int, int] | None:
    """Return the axis that a reshaping moves an axis of its input to, and how often each element is repeated there."""
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    rank, args = len(before), operation.args
    if operation.name == "permute":
        dims = [d % rank for d in args[1]]
        return dims.index(axis), 1
    if operation.name == "transpose":
        one, other = (int(d) % rank for d in args[1:3])
        return {one: other, other: one}.get(axis, axis), 1
    for place, length in enumerate(after):
        inner = prod(before[axis + 1 :])
        if prod(after[:place]) != prod(before[:axis]):
            continue
        if length == before[axis]:
            return place, 1
        if length == before[axis] * inner and prod(after[place + 1 :]) == 1:
            return place, inner
    return None


def places(operation: Operation, value: Value) -> Iterator[int]:
    """Yield the places of a value among an operation's arguments; of a concatenation, among its maps.

    Raises:
        NoPath: the value is not among them, but in a list or a keyword argument.
    """
    args = operation.args[0] if operation.name == "cat" else operation.args
    found = [place for place, arg in enumerate(args) if isinstance(arg, Value) and arg == value]
    if not found:
        raise NoPath(f"{describe(operation)} takes the map, through which no factor passes")
    yield from found


def same_shapes(operation: Operation) -> bool:
    """Return whether an operation takes two different maps of one shape, returns a third, and takes nothing else."""
    sources = set(operation.inputs)
    shapes = {value.shape for value in sources}
    return len(sources) == 2 and len(operation.args) == 2 and shapes == {operation.outputs[0].shape}


def describe(operation: Operation | None, run: Trace | None = None) -> str:
    """Name an operation in a message: the layer whose weight it takes, or what it does.

    Args:
        operation: the operation; None for the network's input.
        run: the trace; no layers are named without it.
    """
    if operation is None:
        return "the network's input"
    if run is not None:
        for value in operation.inputs:
            name = run.tensors.get(value.number)
            if name is not None:
                return name.rpartition(".")[0]
    return _WORDS.get(operation.name, operation.name)
