"""The map at a module, from one run: its shape, the axis of its channels, and how much smaller it is than the image."""

from dataclasses import dataclass
from math import log2

from torch import nn

from senet.graph.channel_axes import AMBIGUOUS, channel_axes
from senet.graph.example_inputs import Example, image_for
from senet.graph.recorder import Recording, Value, record, record_on_meta
from senet.utils.errors import first_line

__all__ = ["Map", "Maps", "maps_of", "maps_on_meta", "octaves"]


@dataclass(frozen=True)
class Map:
    """A map that goes into a module or comes out of it.

    Attributes:
        kind: "Tensor", or the class of what is there instead.
        shape: of the tensor; empty where it is none.
        axis: of the channels; None where nothing says which, `AMBIGUOUS` where the network says two things.
        octaves: log2 of the total stride, the mean over spatial axes; None where the image has others.
        calls: how often the module ran.
    """

    kind: str
    shape: tuple[int, ...]
    axis: int | None
    octaves: float | None
    calls: int


def octaves(size: tuple[int, ...], spatial: tuple[int, ...]) -> float | None:
    """log2 of the total stride from an image to a map: of the geometric mean over their spatial axes.

    Args:
        size: the spatial axes of the image.
        spatial: those of the map.

    Returns:
        None where they are not as many, or none.
    """
    if not size or len(size) != len(spatial) or 0 in (*size, *spatial):
        return None
    return sum(max(0.0, log2(large / small)) for large, small in zip(size, spatial, strict=True)) / len(size)


class Maps:
    """The maps of a run, by module.

    Args:
        recording: of the whole network.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._axes = channel_axes(recording)
        self._calls: dict[str, list[int]] = {}
        for index, call in enumerate(recording.calls):
            self._calls.setdefault(call.name, []).append(index)
        image = next((value for value in recording.inputs if len(value.shape) >= 3), None)
        self._size = () if image is None else self._spatial(image)

    def at(self, name: str, side: str) -> Map | None:
        """The map at a module in its first call.

        Args:
            name: of the module, as in `named_modules`.
            side: "input" or "output".

        Returns:
            None where the module did not run.
        """
        calls = [self.recording.calls[index] for index in self._calls.get(name, ())]
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


def maps_of(model: nn.Module, example: Example) -> Maps:
    """The maps of a network on an example, in evaluation; see `record` for what is raised."""
    return Maps(record(model, example))


def maps_on_meta(model: nn.Module) -> Maps:
    """The same for an image of as many channels and axes as the first convolution takes; nothing is computed.

    Raises:
        ValueError: the network does not run on such an image.
    """
    image = image_for(model)
    try:
        return Maps(record_on_meta(model, image))
    except Exception as error:  # whatever a network's own code raises
        raise ValueError(
            f"{type(model).__name__} did not run on an image {tuple(image.shape)}, to tell its channels and stages: "
            f"{first_line(error)}; give example=, an input of the network"
        ) from error
