"""Collect what detectors return for images, to judge their gates by average precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from senet.data import BoxData
from senet.tasks.collector import Collector
from senet.tasks.detection.average_precision import Found, MatchedBoxes, Objects
from senet.tasks.detection.evaluate import as_arrays, find_objects, objects_of

__all__ = ["BoxCollector", "DetectorOutputs", "run_detector"]


@dataclass(frozen=True)
class DetectorOutputs:
    """What a detector returns for the N images of a batch.

    Attributes:
        found: detections of each image.
        maps: for each image the maps of the feature pyramid, (1, C, h, w) each.
    """

    found: list[Found]
    maps: list[list[Tensor]]


def run_detector(model: nn.Module, pixels: Tensor, targets: Tensor) -> DetectorOutputs:
    """Return the detections in a batch, and the maps that they are found in; the arguments are those of `find_objects`.

    Raises:
        NonFiniteError: an output of the network is NaN or infinite.
    """
    with _keeping_maps(model) as maps:
        found = find_objects(model, pixels, targets)
    return DetectorOutputs([as_arrays(one) for one in found], maps)


@contextmanager
def _keeping_maps(model: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Yield a list that gets the maps of the pyramid of each call, in `find_objects` one for each image."""
    maps: list[list[Tensor]] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], outputs: dict[str, Tensor]) -> None:
        maps.append(list(outputs.values()))

    handle = model.get_submodule("backbone").register_forward_hook(keep)
    try:
        yield maps
    finally:
        handle.remove()


@dataclass
class BoxCollector(Collector):
    """The detections of a network, and how far its feature pyramid is from that of the reference network.

    Attributes:
        data: the images.
    """

    data: BoxData
    _objects: list[Objects] = field(default_factory=list)
    _found: list[Found] = field(default_factory=list)
    _changes: list[float] = field(default_factory=list)
    # Of each map of the pyramid: number of values of a channel, and their sums and sums of squares (C,).
    _moments: dict[int, tuple[int, Tensor, Tensor]] = field(default_factory=dict)

    def add(self, outputs: DetectorOutputs, reference: DetectorOutputs, indices: NDArray[np.int64]) -> None:
        """Add a batch, see `Collector.add`."""
        self._found += outputs.found
        self._objects += [objects_of(self.data, index) for index in indices.tolist()]
        for maps, others in zip(outputs.maps, reference.maps, strict=True):
            square = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(maps, others, strict=True))
            self._changes.append(square / sum(one.numel() for one in maps))
            for level, one in enumerate(maps):
                self._add_moments(level, one.double())

    def _add_moments(self, level: int, values: Tensor) -> None:
        count, total, squares = self._moments.get(level, (0, torch.zeros(()), torch.zeros(())))
        count += values[0, 0].numel() * len(values)
        axes = (0, 2, 3)
        self._moments[level] = (count, total + values.sum(axes).cpu(), squares + values.square().sum(axes).cpu())

    def changes(self) -> NDArray[np.float64]:
        """(M,), mean over all values of the pyramid of the square change."""
        return np.array(self._changes)

    def deviation(self) -> float:
        """Return the standard deviation of a channel over images and positions: root mean square over all values."""
        square, values = 0.0, 0
        for count, total, squares in self._moments.values():
            square += float((squares - total.square() / count).clamp(min=0).sum())
            values += count * len(total)
        return float(np.sqrt(square / values))

    @cached_property
    def _matched(self) -> MatchedBoxes:
        return MatchedBoxes(self._objects, self._found, len(self.data.classes))

    def judged(self, images: NDArray[np.int64] | None = None) -> tuple[float, float]:
        """Return AP and AP50 in percent, see `Collector.judged`."""
        return self._matched.precision(images)
