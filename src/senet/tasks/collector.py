"""The interface of a collector: what a network returns for all images, where metrics are not means over images."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Collector"]


class Collector(ABC):
    """Collects what a network returns for images, batch by batch, and judges it by `Task.judged`."""

    @abstractmethod
    def add(self, outputs: Any, reference: Any, indices: NDArray[np.int64]) -> None:
        """Add a batch.

        Args:
            outputs: of the network, see `Task.run`.
            reference: of the reference network, for the same images.
            indices: (N,), indices of the images in the data.
        """

    @abstractmethod
    def changes(self) -> NDArray[np.float64]:
        """(M,), mean square change of an image's feature maps against the reference network."""

    @abstractmethod
    def deviation(self) -> float:
        """Return the standard deviation of these maps over images and positions."""

    @abstractmethod
    def judged(self, images: NDArray[np.int64] | None = None) -> tuple[float, float]:
        """Return the two metrics.

        Args:
            images: (M,), positions in the order of `add`, of which some may occur several times; all images by default.
        """
