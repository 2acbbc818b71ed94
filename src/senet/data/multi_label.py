"""`MultiLabelData`: images with any number of labels each."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from senet.data.images import ImageData, Labels

__all__ = ["MultiLabelData"]


class MultiLabelData(ImageData):
    """Images with any number of labels each: `data[i]` is a PIL image, and (K,), 1 for each of its labels.

    `labels` is (N, K), 8-bit, 1 where an image has a label.

    Examples:
        >>> data = senet.open_data("csv:tags")
        >>> data.classes, data.labels.shape
        (['red', 'round'], (4, 2))
        >>> image, labels = data[0]
    """

    @classmethod
    def of(cls, data: ImageData) -> "MultiLabelData":
        """Return images with their labels: their class, or the categories of their boxes."""
        if type(data) is MultiLabelData:
            return data
        if isinstance(data, MultiLabelData):
            labels = data.labels
        else:
            labels = np.zeros((len(data), len(data.classes)), dtype=np.uint8)
            labels[np.arange(len(data)), data.labels] = 1
        return cls(
            data.spec,
            data.source,
            labels,
            data.classes,
            has_splits=data.has_splits,
            indices=data.indices,
            skipped_files=data.skipped_files,
            faults=data.faults,
        )

    def target(self, index: int) -> Any:
        """Return (K,), 1 for each label of an image."""
        return torch.from_numpy(self.labels[index])

    def names_of(self, index: int) -> list[str]:
        """Return the labels of an image."""
        return [self.classes[label] for label in np.flatnonzero(self.labels[index])]

    @property
    def counts(self) -> Labels:
        """(K,), number of images with each label."""
        return self.labels.sum(0, dtype=np.int64)  # type: ignore[no-any-return]

    def groups(self) -> Iterator[tuple[str, Labels]]:
        """Yield all images as one group: no division of images has the same proportion of every label."""
        yield "data", np.arange(len(self))

    def _checked(self, labels: NDArray[Any], classes: int) -> NDArray[Any]:
        return np.asarray(labels, dtype=np.uint8).reshape(-1, classes)

    def _renumbered(self, new: Labels, classes: int) -> NDArray[Any]:
        labels = np.zeros((len(self), classes), dtype=np.uint8)
        for old, label in enumerate(new.tolist()):
            if label >= 0:
                labels[:, label] |= self.labels[:, old]
        return labels
