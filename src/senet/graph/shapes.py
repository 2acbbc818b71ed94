"""Read the map at a module from a trace: its shape, the axis of its channels, and its total stride from the image."""

from dataclasses import dataclass
from math import prod

from senet.graph.channel_axes import AMBIGUOUS, CONVOLUTIONS, Axes, channel_axes
from senet.graph.operations import Trace, Value
from senet.graph.stages import octaves
from senet.nn.recalibration import Side

__all__ = ["Map", "Maps", "Strides"]


@dataclass(frozen=True)
class Map:
    """The input or the output of a module.

    Attributes:
        kind: "Tensor", or the class of what is there instead.
        shape: of the tensor; empty if it is not one.
        axis: of the channels; None if unknown, `AMBIGUOUS` if the network's parameters disagree.
        octaves: log2 of the total stride, see `Strides`; None if it is unknown.
        calls: how often the module ran.
    """

    kind: str
    shape: tuple[int, ...]
    axis: int | None
    octaves: float | None
    calls: int


class Strides:
    """Total strides of maps, counted from the network's first map of as many spatial axes.

    This is an input; or the input of the first convolution, where the network makes maps of tokens or of a waveform. A
    network that makes larger maps of it, such as a generator, has no strides.

    Args:
        trace: of the whole network.
        axes: of its channels.
    """

    def __init__(self, trace: Trace, axes: Axes) -> None:
        self._axes = axes
        self._first: dict[int, tuple[int, ...]] = {}
        for value in trace.inputs:
            if len(value.shape) >= 3:
                self._first.setdefault(len(value.shape) - 2, self.spatial(value))
        read = [self.spatial(op.inputs[0]) for op in trace.operations if op.name in CONVOLUTIONS]
        for rank in {len(lengths) for lengths in read} - self._first.keys():
            sizes = [lengths for lengths in read if len(lengths) == rank]
            if all(prod(lengths) <= prod(sizes[0]) for lengths in sizes):
                self._first[rank] = sizes[0]

    def octaves(self, value: Value) -> float | None:
        """Return log2 of the total stride of a map, the mean over spatial axes; None if it is unknown."""
        spatial = self.spatial(value)
        return octaves(self._first.get(len(spatial), ()), spatial)

    def spatial(self, value: Value) -> tuple[int, ...]:
        """Return the lengths of a map's spatial axes."""
        axis = self._axes.get(value.number, 1)
        axis = 1 if axis == AMBIGUOUS else axis
        return tuple(length for a, length in enumerate(value.shape) if a not in (0, axis))


class Maps:
    """The maps of a trace, by module.

    Args:
        trace: of the whole network.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._axes = channel_axes(trace)
        self._strides = Strides(trace, self._axes)

    def at(self, name: str, side: Side) -> Map | None:
        """Return the map at a module in its first call; None if the module did not run.

        Args:
            name: of the module, as in `named_modules`.
            side: "input" or "output".
        """
        calls = self.trace.calls_of(name)
        if not calls:
            return None
        value = calls[0].taken if side == "input" else calls[0].given
        if value is None:
            found = calls[0].output if side == "output" else calls[0].args[0] if calls[0].args else None
            kind = "keyword" if side == "input" and not calls[0].args else type(found).__name__
            return Map(kind, (), None, None, len(calls))
        axis = self._axes.get(value.number)
        return Map("Tensor", value.shape, axis, self._strides.octaves(value), len(calls))
