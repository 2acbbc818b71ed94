"""Find the axis of the channels of each map, from the parameters that make the map and read it.

A convolution or a batch norm has its channels on axis 1, a linear layer or a layer norm over one axis on the last.
Any other operation passes the axis on if its arguments determine where it goes; equal sizes alone determine nothing.
"""

from collections.abc import Callable, Iterator
from math import prod

from senet.graph.operations import Operation, Trace, Value

__all__ = ["AMBIGUOUS", "CONVOLUTIONS", "Axes", "channel_axes", "moved_axis", "reduced_axes"]

# The axis of a map whose producers disagree, such as the sum of one over channels and one over tokens.
AMBIGUOUS = -1
# ATen's convolutions; `deform_conv2d` is torchvision's.
CONVOLUTIONS = {
    *("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "slow_conv3d", "conv_depthwise3d"),
    *("_slow_conv2d_forward", "thnn_conv2d", "deform_conv2d"),
}
# Operations whose parameters lie along axis 1 of their input and output.
_ON_AXIS_1 = {
    *CONVOLUTIONS,
    *("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit"),
    *("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "native_group_norm"),
}
_LINEAR = {"linear", "addmm", "mm", "_addmm_activation"}
_BATCHED = {"bmm", "baddbmm"}
_MATRIX = {*_LINEAR, *_BATCHED, "matmul", "mv", "addmv", "dot"}
_LAST_AXIS = {"_fused_rms_norm", "embedding"}
# Recurrent layers, (N, L, C) or (L, N, C), as a whole or step by step.
_LAST_AXIS |= {"lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"}
# Attention as one operation, projections included.
_LAST_AXIS |= {"_native_multi_head_attention", "_transformer_encoder_layer_fwd"}
_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_copy", "_reshape_alias"}
_REDUCED = {
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "prod",
    "norm",
    "linalg_vector_norm",
    "var",
    "std",
    "logsumexp",
}
_REDUCED |= {"all", "any", "argmax", "argmin", "nansum", "var_mean", "median"}
# They change the length of an axis, but not its place.
_RESIZED = {"cat", "slice", "split", "split_with_sizes", "unsafe_split", "pixel_shuffle", "pixel_unshuffle"}

Axes = dict[int, int]


def channel_axes(trace: Trace) -> Axes:
    """Return the axis of the channels of each value, by its number, without values whose axis is unknown.

    If producer and readers of a map disagree, or two producers do, the axis is `AMBIGUOUS`. Where neither determines
    it, an image that the network takes has its channels on axis 1.

    Args:
        trace: of the whole network.
    """
    channels = _Channels(trace)
    made = channels.made({})
    known = channels.compared(made, channels.read())
    images = {value.number: 1 for value in trace.inputs if len(value.shape) >= 3}
    return channels.made(images | known)


class _Channels:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def made(self, known: Axes) -> Axes:
        """Return the axes that follow from the producer of each value, in the order of the run.

        Args:
            known: axes that are not determined again.
        """
        axes = dict(known)
        for operation in self._trace.operations:
            for output in operation.outputs:
                axis = None if output.number in axes else self._given(operation, output, axes)
                if axis is not None:
                    axes[output.number] = axis
        return axes

    def read(self) -> dict[int, set[int]]:
        """Return the axes along which parameters read each value, directly or after other operations."""
        axes: dict[int, set[int]] = {}
        for operation in reversed(self._trace.operations):
            for value, axis in self._readings(operation, axes):
                axes.setdefault(value.number, set()).add(axis)
        return axes

    def compared(self, made: Axes, read: dict[int, set[int]]) -> Axes:
        """Compare the axes by producers with the axes by readers."""
        axes = dict(made)
        for number, found in read.items():
            agreed = found | {made.get(number, next(iter(found)))}
            axes[number] = agreed.pop() if len(agreed) == 1 else AMBIGUOUS
        return axes

    def _given(self, operation: Operation, output: Value, axes: Axes) -> int | None:
        """Return the axis of the channels of an operation's output."""
        known = self._by_parameters(operation)
        if known is not None:
            return known % len(output.shape) if output.shape else None
        if operation.name in _MATRIX:
            return None
        found: set[int | None] = set()
        for value in operation.inputs:
            axis = axes.get(value.number)
            if axis == AMBIGUOUS:
                found.add(axis)
            elif axis is not None:
                found |= {moved_axis(operation, value, output, axis)}
        found.discard(None)
        return next(iter(found), None) if len(found) <= 1 else AMBIGUOUS

    def _readings(self, operation: Operation, axes: dict[int, set[int]]) -> Iterator[tuple[Value, int]]:
        """Yield the values that an operation reads, each with the axis that the operation determines."""
        parameters = self._trace.tensors
        maps = [value for value in operation.inputs if value.number not in parameters and len(value.shape) >= 2]
        known = self._by_parameters(operation)
        if known is not None:
            if maps:
                yield maps[0], known % len(maps[0].shape)
            return
        if operation.name in _MATRIX:
            return
        for output in operation.outputs:
            for axis in axes.get(output.number, ()):
                for value in maps:
                    before = [a for a in range(len(value.shape)) if moved_axis(operation, value, output, a) == axis]
                    if len(before) == 1:
                        yield value, before[0]

    def _by_parameters(self, operation: Operation) -> int | None:
        """Return the axis along which an operation's parameters lie; None without any, or if they determine nothing."""
        if operation.name in _ON_AXIS_1:
            return 1
        if operation.name in _LINEAR:
            # The product of two maps, as in attention, is not a linear layer.
            return -1 if any(self._is_weight(value) for value in operation.inputs) else None
        if operation.name in _BATCHED:
            # As einsum multiplies by a matrix of parameters: x w has its channels last, and w x second to last.
            left, right = (self._is_weight(value) for value in operation.inputs[-2:])
            return None if left == right else -1 if right else -2
        if operation.name == "native_layer_norm":
            # Over several axes, as LayerNorm((C, H, W)), it does not determine the channels.
            return -1 if len(operation.args[1]) == 1 else None
        return -1 if operation.name in _LAST_AXIS else None

    def _is_weight(self, value: Value) -> bool:
        """Return whether a value is a matrix of parameters, possibly transposed."""
        if value.number in self._trace.tensors:
            return len(value.shape) == 2
        maker = self._trace.producer(value)
        names = ("t", "transpose", "permute", "detach", "view", "unsqueeze", "expand", "_unsafe_view", "_to_copy")
        return maker is not None and maker.name in names and any(self._is_weight(v) for v in maker.inputs)


def moved_axis(operation: Operation, value: Value, output: Value, axis: int) -> int | None:
    """Return the axis of the output that an axis of an input becomes; None if unknown."""
    before, after = value.shape, output.shape
    rule = _RULES.get(operation.name)
    if rule is not None:
        found = rule(operation, before, after, axis)
    elif operation.name in _VIEWS:
        found = _viewed(before, after, axis)
    elif operation.name in _REDUCED:
        found = _reduced(operation, before, after, axis)
    else:  # elementwise with broadcasting, pools, padding, interpolation, concatenation, slices
        found = axis + len(after) - len(before) if len(after) >= len(before) else None
        if found is not None and after[found] != before[axis] and operation.name not in _RESIZED:
            found = None
    return found if found is not None and 0 <= found < len(after) else None


def _viewed(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """Return the axis of equal length with as many elements before it: (N, C, H, W) -> (N, C, H * W).

    An instance norm normalizes (1, N * C, H, W), where the channels are on axis 1 as well.
    """
    if axis == 1 and 1 in (before[0], after[0]) and before[2:] == after[2:] and len(before) > 2 < len(after):
        return 1
    ahead = prod(before[:axis])
    # In a batch of one, an axis of length 1 fits at axis 0 as well.
    fits = [a for a in range(min(axis, 1), len(after)) if after[a] == before[axis] and prod(after[:a]) == ahead]
    return axis if axis in fits else fits[-1] if fits else None


def _reduced(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    dims = reduced_axes(operation, len(before))
    if dims is None or axis in dims:
        return None
    return axis if len(after) == len(before) else axis - sum(dim < axis for dim in dims)


def reduced_axes(operation: Operation, count: int) -> set[int] | None:
    """Return the axes that a reduction is over; None for all of them."""
    dims = operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("dim")
    if isinstance(dims, int) and not isinstance(dims, bool):
        return {dims % count}
    return {dim % count for dim in dims} if isinstance(dims, list | tuple) and dims else None


def _permuted(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    return [int(dim) % len(before) for dim in operation.args[1]].index(axis)


def _transposed(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    one, other = (int(dim) % len(before) for dim in operation.args[1:3])
    return {one: other, other: one}.get(axis, axis)


def _t(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    return len(before) - 1 - axis


def _unsqueezed(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    return axis + int(operation.args[1] % len(after) <= axis)


def _stacked(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    dim = operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("dim", 0)
    return axis + int(dim % len(after) <= axis)


def _squeezed(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    dims = reduced_axes(operation, len(before)) if len(operation.args) > 1 else set(range(len(before)))
    gone = {dim for dim in dims or () if before[dim] == 1}
    return None if axis in gone else axis - sum(dim < axis for dim in gone)


def _selected(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    dim = (operation.args[1] if len(operation.args) > 1 else 0) % len(before)
    return None if axis == dim else axis - (dim < axis)


def _unknown(operation: Operation, before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    return None


_RULES: dict[str, Callable[[Operation, tuple[int, ...], tuple[int, ...], int], int | None]] = {
    "permute": _permuted,
    "transpose": _transposed,
    "t": _t,
    "unsqueeze": _unsqueezed,
    "squeeze": _squeezed,
    "select": _selected,
    "unbind": _selected,
    "as_strided": _unknown,
    "index": _unknown,
    "gather": _unknown,
    "stack": _stacked,
    "_softmax": lambda operation, before, after, axis: axis,
}
