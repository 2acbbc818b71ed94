"""Group images with several labels by the set of their labels: each image is in one group, as in one class."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from senet.data import ImageData
from senet.gates.recording.statistics import Counts

__all__ = ["LabelSets"]

# Statistics are held for each set. The images of rarer sets are one group.
_MOST = 1000


class LabelSets:
    """The sets of labels in a data set, the most frequent first.

    Args:
        data: the images; their labels are (N, K), 1 where an image has a label.

    Attributes:
        names: (G,), the labels of each set, such as "animal + cat"; "none" without labels. The last of more than 1,000
            sets is "other labels".
    """

    def __init__(self, data: ImageData) -> None:
        rows, counts = np.unique(data.labels, axis=0, return_counts=True)
        # Equally frequent sets keep the order of their labels.
        rows = rows[np.argsort(-counts, kind="stable")]
        kept = rows if len(rows) <= _MOST else rows[: _MOST - 1]
        self.names = [" + ".join(_names(row, data.classes)) or "none" for row in kept]
        self._numbers = {row.tobytes(): number for number, row in enumerate(kept)}
        self._labels: NDArray[np.uint8] = np.ascontiguousarray(data.labels, np.uint8)
        if len(kept) < len(rows):
            self.names.append("other labels")

    def of_images(self, indices: Counts) -> Tensor:
        """Return (N,), int64, the number of the set of each image, from the indices (N,) of images in the data."""
        rows, last = self._labels[indices], len(self.names) - 1
        numbers: Counts = np.array([self._numbers.get(row.tobytes(), last) for row in rows], dtype=np.int64)
        return torch.from_numpy(numbers)


def _names(row: NDArray[np.uint8], classes: Sequence[str]) -> list[str]:
    return [classes[label] for label in np.flatnonzero(row).tolist()]
