"""Images of a data set one by one, augmented, as worker processes give them."""

import signal
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from senet.data.images import ImageData, readable
from senet.data.preprocessing import Augmentation, Preprocessing, crop_and_flip, draw, seed_of
from senet.utils.errors import DataError

__all__ = ["Samples", "augmented", "collate", "leave_signals"]


def augmented(
    pixels: Tensor,
    keys: Tensor,
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    seed: int,
    epoch: int,
    images: int,
) -> Tensor:
    """Crop and mirror images as it was drawn for an epoch.

    Args:
        pixels: (N, C, H, W).
        keys: (N,), places in what was drawn.
        augmentation, preprocessing, seed, epoch: what decides it.
        images: of the data set, M.

    Returns:
        (N, C, H, W).
    """
    draws = draw(augmentation, seed, epoch, images)
    padding = augmentation.padding if augmentation.crop == "pad" else 0
    return crop_and_flip(pixels, draws.offsets[keys], draws.flips[keys], padding, preprocessing.fill)


def leave_signals(worker: int) -> None:
    """The signals that end a run reach its workers too; these are to serve it until it has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@dataclass
class Samples(Dataset[tuple[Tensor, int] | tuple[str, str]]):
    """Images one by one, as worker processes take them: pixels and label, or message and name of one that is bad."""

    data: ImageData
    memory: tuple[Tensor, Tensor] | None
    decoded: list[NDArray[np.uint8]] | None
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    seed: int
    epoch: int

    def __getitem__(self, which: tuple[int, int]) -> tuple[Tensor, int] | tuple[str, str]:
        name = self.data.name(which[0])
        try:
            with readable(name):
                return self._sample(*which)
        except DataError as error:
            return str(error), name

    def _sample(self, index: int, key: int) -> tuple[Tensor, int]:
        augmentation = self.augmentation
        image: Image.Image | None = None
        if self.memory is not None:
            pixels, label = self.memory[0][index], int(self.memory[1][index])
        elif self.decoded is not None:
            image, label = Image.fromarray(self.decoded[index]), int(self.data.labels[index])
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
            at = torch.tensor([key])
            pixels = augmented(whole, at, augmentation, self.preprocessing, self.seed, self.epoch, images)[0]
        if augmentation.randaugment:
            pixels = augmentation.randomise(pixels, self.preprocessing.mean, seed)
        return pixels, label


def collate(samples: list[tuple[Tensor, int] | tuple[str, str]]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """Put samples together: pixels (N, C, H, W), labels (N,), and message and name of each image that is bad."""
    good = [(pixels, label) for pixels, label in samples if isinstance(pixels, Tensor)]
    bad = [(message, str(name)) for message, name in samples if isinstance(message, str)]
    pixels = torch.stack([pixels for pixels, _ in good]) if good else torch.empty(0)
    return pixels, torch.tensor([label for _, label in good], dtype=torch.long), bad
