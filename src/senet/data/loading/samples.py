"""Preprocessed and augmented images of a data set one by one, for the worker processes of a `DataLoader`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from senet.data.augmentation import Augmentation, crop_and_flip, draw, padding_colour, seed_of
from senet.data.images import ImageData, readable
from senet.data.preprocessing import Preprocessing
from senet.utils.errors import DataError
from senet.utils.sizes import size_pair

__all__ = ["BadImages", "Batch", "Sample", "Samples", "augmented", "collate", "pad"]

# Sides of a padded batch are multiples of the largest stride of a network, so that no map has a partial column.
_MULTIPLE = 32

# Pixels (C, H, W) and label; or message and name of an image that cannot be read.
Sample = tuple[Tensor, Any] | tuple[str, str]
# Message and name of each image that cannot be read.
BadImages = list[tuple[str, str]]
# Pixels (N, C, H, W), labels (N, ...), and the images that cannot be read.
Batch = tuple[Tensor, Tensor, BadImages]


def augmented(
    pixels: Tensor,
    keys: Tensor,
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    seed: int,
    epoch: int,
    images: int,
) -> Tensor:
    """Crop and mirror images with the random numbers of an epoch.

    Args:
        pixels: (N, C, H, W), 0 to 255.
        keys: (N,), positions in the random numbers, see `draw`.
        augmentation: which augmentation.
        preprocessing: its mean is the padding colour.
        seed: seed of the random numbers.
        epoch: number of the epoch.
        images: number of images in the data set, M.

    Returns:
        (N, C, H, W).
    """
    draws = draw(augmentation, seed, epoch, images)
    padding = augmentation.padding if augmentation.crop == "pad" else 0
    return crop_and_flip(pixels, draws.offsets[keys], draws.flips[keys], padding, preprocessing.fill)


@dataclass
class Samples(Dataset[Sample]):
    """Images by (index, key, step): pixels and label, or message and name of an image that cannot be read.

    The key determines the augmentation of an image; the step is the number of its batch in the epoch. The attributes
    are those of `Loader`.
    """

    data: ImageData
    memory: tuple[Tensor, Tensor] | None
    decoded: list[NDArray[np.uint8]] | None
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    seed: int
    epoch: int

    def __getitem__(self, item: tuple[int, int, int]) -> Sample:
        index, key, step = item
        name = self.data.name(index)
        try:
            with readable(name):
                return self._whole(index, key, step) if self.data.whole_images else self._sample(index, key)
        except DataError as error:
            return str(error), name

    def _sample(self, index: int, key: int) -> tuple[Tensor, Any]:
        augmentation = self.augmentation
        image: Image.Image | None = None
        if self.memory is not None:
            pixels, label = self.memory[0][index], self.memory[1][index]
        elif self.decoded is not None:
            image, label = Image.fromarray(self.decoded[index]), self.data.target(index)
        else:
            image, label = self.data[index]
        if augmentation is None:
            return pixels if image is None else self.preprocessing.pixels(image), label
        seed = seed_of(self.seed, self.epoch, key)
        if image is not None and augmentation.crop == "area":
            pixels = augmentation.area(image, self.preprocessing, seed)
        else:
            whole = (pixels if image is None else self.preprocessing.pixels(image))[None]
            images = len(self.data) if self.memory is None else len(self.memory[1])
            keys = torch.tensor([key])
            pixels = augmented(whole, keys, augmentation, self.preprocessing, self.seed, self.epoch, images)[0]
        if augmentation.randaugment:
            pixels = augmentation.randomise(pixels, self.preprocessing.mean, seed)
        return pixels, label

    def _whole(self, index: int, key: int, step: int) -> tuple[Tensor, Any]:
        """Return a whole image, resized and possibly mirrored, and its target."""
        image = self.data.read(index) if self.decoded is None else Image.fromarray(self.decoded[index])
        if self.augmentation is None:
            side, mirrored = min(size_pair(self.preprocessing.resize)), False
        else:
            side = self.augmentation.side(self.preprocessing, self.seed, self.epoch, step)
            mirrored = bool(draw(self.augmentation, self.seed, self.epoch, len(self.data)).flips[key])
        pixels = self.preprocessing.whole(image, side)
        target = self.data.resized_target(index, (pixels.shape[1], pixels.shape[2]), mirrored=mirrored)
        return pixels.flip(-1) if mirrored else pixels, target


def pad(images: Sequence[Tensor], fill: Sequence[float]) -> Tensor:
    """Pad images of any sizes at the right and at the bottom to a common size.

    Args:
        images: (C, H, W) each.
        fill: (C,), padding colour, 0 to 255.

    Returns:
        (N, C, H, W), with sides that are multiples of 32.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    size = [-(-side // _MULTIPLE) * _MULTIPLE for side in (height, width)]
    batch = padding_colour(fill).view(1, -1, 1, 1).repeat(len(images), 1, *size)
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch


def collate(samples: list[Sample], stack: Callable[[Sequence[Tensor]], Tensor] | None = None) -> Batch:
    """Collate samples into a batch, without the images that cannot be read.

    Args:
        samples: of `Samples`.
        stack: makes one tensor of the images' pixels; by default `torch.stack`.
    """
    good = [(pixels, label) for pixels, label in samples if isinstance(pixels, Tensor)]
    bad = [(message, str(name)) for message, name in samples if isinstance(message, str)]
    if not good:
        return torch.empty(0), torch.empty(0, dtype=torch.long), bad
    pixels, labels = zip(*good, strict=True)
    return (stack or torch.stack)(pixels), torch.stack([torch.as_tensor(label) for label in labels]), bad
