"""scikit-learn's handwritten digits: 1,797 real images that need no download."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from senet.data.images import ImageData
from senet.utils.errors import DataError
from senet.utils.extras import optional_import

__all__ = ["open_digits"]


class _Arrays:
    """Images in memory, (N, H, W), 8 bits."""

    def __init__(self, images: np.ndarray[Any, Any], name: str) -> None:
        self._images, self._name = images, name

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"


@cache
def _enlarged(load: Callable[..., Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the digits as images (N, 32, 32), and their labels (N,); computed once in a process."""
    images, labels = load(return_X_y=True)
    small = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BICUBIC)) for i in small])
    return large, labels


def open_digits(split: str) -> ImageData:
    """Open scikit-learn's digits, enlarged from 8x8 to 32x32 pixels.

    Every fifth image of a class is for validation, so that the split needs no random numbers.

    Args:
        split: "train" or "val".

    Raises:
        DataError: scikit-learn is missing.
    """
    with optional_import("demo", "the data 'digits' need scikit-learn", DataError):
        from sklearn.datasets import load_digits
    large, labels = _enlarged(load_digits)
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    chosen = np.flatnonzero((rank % 5 == 4) == (split == "val"))
    data = ImageData("digits", _Arrays(large, "digits"), labels, [str(n) for n in range(10)], has_splits=True)
    return data.subset(chosen)
