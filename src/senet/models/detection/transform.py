"""Resizing and normalization of a detector's images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

__all__ = ["DetectorTransform"]


class DetectorTransform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's transform, which can leave the sizes of images unchanged.

    Args:
        arguments: as in torchvision.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._resizes = True

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resize an image (C, H, W) and the boxes of its target, except inside `keeping_size`."""
        return super().resize(image, target) if self._resizes else (image, target)

    @contextmanager
    def keeping_size(self) -> Iterator[None]:
        """Leave the sizes of images unchanged: a loader has resized them."""
        self._resizes = False
        try:
            yield
        finally:
            self._resizes = True
