"""A run of a network as a picture shows it: layers, joins of branches, and changes of resolution, in order."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log2, prod
from typing import Literal

from senet.graph.channel_axes import AMBIGUOUS, channel_axes
from senet.graph.counts import count
from senet.graph.operations import Operation, Trace, Value

__all__ = ["Layer", "layers_of"]

# Operations that cut maps or add borders.
_CUTS = ("slice", "select", "narrow", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
# A step of log2 of the number of positions that may be a border, lost or added.
_BORDER = 0.6
_JOINS = ("add", "cat", "mul", "sub", "stack", "addcmul", "lerp")


@dataclass(frozen=True)
class Layer:
    """A layer with weights (a convolution, a product with a matrix), or what happens to maps between layers.

    Attributes:
        name: the innermost module that it ran in, as in `named_modules`.
        place: index of its operation in the trace.
        channels: of its output.
        spatial: spatial axes of its output, also where they are flattened, as in a linear layer's; empty for a vector.
        sources: indices in the list of those whose outputs it reads.
        kind: "layer"; "join": a sum or a concatenation of branches; "resize": pooling or upsampling.
    """

    name: str
    place: int
    channels: int
    spatial: tuple[int, ...]
    sources: tuple[int, ...]
    kind: Literal["layer", "join", "resize"]


def layers_of(run: Trace) -> list[Layer]:
    """Return the layers of a run, joins and changes of resolution, in the order in which they ran.

    Args:
        run: of the whole network.
    """
    axes = channel_axes(run)
    image = next((value for value in run.inputs if len(value.shape) >= 3), None)
    # For each value: the layers that it depends on, without further layers between; and its spatial axes.
    nearest: dict[int, frozenset[int]] = {value.number: frozenset() for value in run.inputs}
    spatial = {value.number: _spatial(value, axes, image, ()) for value in run.inputs}
    layers: list[Layer] = []
    for place, operation in enumerate(run.operations):
        read = [value for value in operation.inputs if value.number in nearest]
        if not read or not operation.outputs:
            continue
        sources = frozenset().union(*(nearest[value.number] for value in read))
        before = spatial[read[0].number]
        sizes = [_spatial(value, axes, image, before) for value in operation.outputs]
        kind: Literal["layer", "join", "resize"] | None = None
        if _has_weights(operation, nearest) and count(operation).macs > 0:
            kind = "layer"
        elif sizes[0] and operation.name in _JOINS and _joins(read, nearest):
            kind = "join"
        elif operation.name not in _CUTS and sizes[0] and abs(log2(prod(sizes[0]) / prod(before))) > _BORDER:
            kind = "resize"
        if kind is not None:
            name = "" if operation.call is None else run.calls[operation.call].name
            channels = _channels(operation.outputs[0], axes)
            layers.append(Layer(name, place, channels, sizes[0], tuple(sorted(sources)), kind))
            sources = frozenset({len(layers) - 1})
        for value, size in zip(operation.outputs, sizes, strict=True):
            nearest[value.number], spatial[value.number] = sources, size
    return layers


def _has_weights(operation: Operation, nearest: dict[int, frozenset[int]]) -> bool:
    """Return whether an operation reads a tensor that does not depend on the input."""
    return any(value.number not in nearest and value.shape for value in operation.inputs)


def _joins(read: Iterable[Value], nearest: dict[int, frozenset[int]]) -> bool:
    """Return whether values with spatial axes come from different layers."""
    return len({nearest[value.number] for value in read if prod(value.shape[2:]) > 1}) > 1


def _channels(value: Value, axes: dict[int, int]) -> int:
    axis = axes.get(value.number, 1)
    axis = 1 if axis == AMBIGUOUS else axis
    return value.shape[axis] if axis < len(value.shape) else 1


def _spatial(value: Value, axes: dict[int, int], image: Value | None, before: tuple[int, ...]) -> tuple[int, ...]:
    """Return the spatial axes of a value: those of what it was computed from, if they are flattened.

    Args:
        value: the value.
        axes: the axis of the channels, by the number of the value.
        image: the input with spatial axes.
        before: the spatial axes of what it was computed from.
    """
    if image is None:
        return ()
    axis = axes.get(value.number, 1)
    axis = 1 if axis == AMBIGUOUS else axis
    if len(value.shape) == len(image.shape) and axis < len(value.shape):
        return tuple(length for number, length in enumerate(value.shape) if number not in (0, axis))
    positions = prod(value.shape) // max(1, _channels(value, axes))
    return before if positions == image.shape[0] * prod(before) else ()
