"""Read the map at a module from a trace: its shape, the axis of its channels, and its total stride from the image."""

from dataclasses import dataclass

from senet.graph.channel_axes import AMBIGUOUS, channel_axes
from senet.graph.operations import Trace, Value
from senet.graph.stages import octaves

__all__ = ["Map", "Maps"]


@dataclass(frozen=True)
class Map:
    """The input or the output of a module.

    Attributes:
        kind: "Tensor", or the class of what is there instead.
        shape: of the tensor; empty if it is not one.
        axis: of the channels; None if unknown, `AMBIGUOUS` if the network's parameters disagree.
        octaves: log2 of the total stride, the mean over spatial axes; None if the image has another number of them.
        calls: how often the module ran.
    """

    kind: str
    shape: tuple[int, ...]
    axis: int | None
    octaves: float | None
    calls: int


class Maps:
    """The maps of a trace, by module.

    Args:
        trace: of the whole network.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._axes = channel_axes(trace)
        image = next((value for value in trace.inputs if len(value.shape) >= 3), None)
        self._size = () if image is None else self._spatial(image)

    def at(self, name: str, side: str) -> Map | None:
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
        return Map("Tensor", value.shape, axis, octaves(self._size, self._spatial(value)), len(calls))

    def _spatial(self, value: Value) -> tuple[int, ...]:
        axis = self._axes.get(value.number, 1)
        axis = 1 if axis == AMBIGUOUS else axis
        return tuple(length for a, length in enumerate(value.shape) if a not in (0, axis))
