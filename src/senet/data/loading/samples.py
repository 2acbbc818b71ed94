"""Preprocessed and augmented images of a data set one by one, for the worker processes of a `DataLoader`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from senet.data.augmentation import Augmentation, crop_and_flip, draw, seed_of
from senet.data.images import ImageData, readable
from senet.data.preprocessing import Preprocessing
from senet.utils.errors import DataError

__all__ = ["BadImages", "Batch", "Sample", "Samples", "augmented", "collate"]

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
    """Images by (index, key): pixels and label, or message and name of an image that cannot be read.

    The attributes are those of `Loader`.
    """

    data: ImageData
    memory: tuple[Tensor, Tensor] | None
    decoded: list[NDArray[np.uint8]] | None
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    seed: int
    epoch: int

    def __getitem__(self, index_and_key: tuple[int, int]) -> Sample:
        index, key = index_and_key
        name = self.data.name(index)
        try:
            with readable(name):
                return self._sample(index, key)
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


def collate(samples: list[Sample]) -> Batch:
    """Collate samples into a batch, without the images that cannot be read."""
    good = [(pixels, label) for pixels, label in samples if isinstance(pixels, Tensor)]
    bad = [(message, str(name)) for message, name in samples if isinstance(message, str)]
    if not good:
        return torch.empty(0), torch.empty(0, dtype=torch.long), bad
    pixels, labels = zip(*good, strict=True)
    return torch.stack(pixels), torch.stack([torch.as_tensor(label) for label in labels]), bad
