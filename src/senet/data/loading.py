"""Batches of pixels: decoded once into memory where they fit, otherwise read by worker processes.

A batch is the same either way, so long as all images can be read: what an image undergoes depends on (seed, epoch,
index) alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from senet.data.images import ImageData
from senet.data.preprocessing import Augmentation, Preprocessing, crop_and_flip, draw, seed_of
from senet.errors import DataError

__all__ = ["MEMORY_LIMIT", "Loader", "Track", "open_loader", "untracked"]

# Bytes of decoded pixels that are kept in memory.
MEMORY_LIMIT = 4 * 2**30

# Shows progress over some steps: (steps, number of steps or None, what they are) -> the same steps.
Track = Callable[[Iterable[int], int, str], Iterable[int]]


def untracked(steps: Iterable[int], total: int, what: str) -> Iterable[int]:
    """No progress is shown."""
    return steps


@dataclass
class Loader:
    """Batches of a data set, as often as one likes.

    Attributes:
        data: the images.
        preprocessing: what every image undergoes.
        augmentation: what is random, and the order; None for evaluation, in the order of the data.
        batch: images in a batch; in training a last smaller batch is left out.
        seed: of what is random.
        workers: processes that decode, where the images are not in memory.
        skip_bad: leave out images that cannot be read, and count them, rather than stop.
        memory: (M, C, S, S) pixels and (M,) labels of images decoded already, or None.
        skipped: names of the images that could not be read.
    """

    data: ImageData
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    batch: int
    seed: int
    workers: int
    skip_bad: bool
    memory: tuple[Tensor, Tensor] | None
    skipped: list[str]

    @property
    def images(self) -> int:
        """Images of an epoch, whole batches or not."""
        return len(self.data) if self.memory is None else len(self.memory[1])

    def __len__(self) -> int:
        """Batches of an epoch."""
        if self.augmentation is None:
            return math.ceil(self.images / self.batch)
        return self.images // self.batch or 1

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch: pixels (N, C, S, S) of 0 to 255, and class indices (N,).

        Raises:
            DataError: an image cannot be read, and `skip_bad` is off; the message names it.
        """
        if self.augmentation is None:
            order = torch.arange(self.images)
        else:
            order = draw(self.augmentation, self.seed, epoch, self.images).order
        chunks = torch.split(order, self.batch)[: len(self)]
        return self._from_memory(chunks, epoch) if self.memory is not None else self._from_workers(chunks, epoch)

    def _from_memory(self, chunks: Iterable[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.memory is not None
        pixels, labels = self.memory
        for chunk in chunks:
            batch = pixels[chunk]
            if self.augmentation is not None:
                batch = _augmented(batch, chunk, self.augmentation, self.preprocessing, self.seed, epoch, self.images)
            yield batch, labels[chunk]

    def _from_workers(self, chunks: Iterable[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        samples = _Samples(self.data, self.preprocessing, self.augmentation, self.seed, epoch)
        batches = [chunk.tolist() for chunk in chunks]
        # A generator of its own: otherwise each epoch would move the one that dropout draws from.
        own = torch.Generator()
        loader = DataLoader(
            samples, batch_sampler=batches, num_workers=self.workers, collate_fn=_collate, generator=own
        )
        for pixels, labels, bad in loader:
            for message, name in bad:
                if not self.skip_bad:
                    raise DataError(f"{message}; leave such images out with --skip-bad")
                if name not in self.skipped:
                    self.skipped.append(name)
            if len(labels):
                yield pixels, labels


def open_loader(
    data: ImageData,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    *,
    batch: int,
    seed: int = 0,
    workers: int = 0,
    skip_bad: bool = False,
    memory_limit: int = MEMORY_LIMIT,
    track: Track = untracked,
) -> Loader:
    """Make batches of a data set; images that fit in memory are decoded here, once.

    Args:
        data, preprocessing, augmentation, batch, seed, workers, skip_bad: see `Loader`.
        memory_limit: bytes; images whose pixels take more are read anew each epoch, and so are those of which training
            crops a random area, since it needs them whole.
        track: shows progress.

    Raises:
        ValueError: `batch` below 1 or `workers` below 0.
        DataError: an image cannot be read, and `skip_bad` is off; or a class has no image left.
    """
    if batch < 1 or workers < 0:
        raise ValueError(f"batch must be 1 or more and workers 0 or more, got {batch} and {workers}")
    if len(data) == 0:
        raise DataError(f"{data.spec} has no images")
    size = len(data) * len(preprocessing.mean) * preprocessing.crop**2
    loader = Loader(data, preprocessing, augmentation, batch, seed, workers, skip_bad, None, [])
    if size > memory_limit or (augmentation is not None and augmentation.crop == "area"):
        return loader
    pixels, kept = [], []
    for index in track(range(len(data)), len(data), f"decode {data.spec}"):
        try:
            pixels.append(preprocessing.pixels(data[index][0]))
            kept.append(index)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{error}; leave such images out with --skip-bad") from error
            loader.skipped.append(data.name(index))
    labels = torch.from_numpy(data.labels[kept])
    lost = set(data.labels.tolist()) - set(labels.tolist())
    if lost:
        raise DataError(
            f"the class {data.classes[min(lost)]!r} of {data.spec} has no readable image; add some, or remove the class"
        )
    loader.memory = (torch.stack(pixels), labels)
    return loader


def _augmented(
    pixels: Tensor,
    indices: Tensor,
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    seed: int,
    epoch: int,
    images: int,
) -> Tensor:
    draws = draw(augmentation, seed, epoch, images)
    padding = augmentation.padding if augmentation.crop == "pad" else 0
    fill = [255 * value for value in preprocessing.mean]
    return crop_and_flip(pixels, draws.offsets[indices], draws.flips[indices], padding, fill)


@dataclass
class _Samples(Dataset[tuple[Tensor, int] | tuple[str, str]]):
    """Images as worker processes read them: pixels and label, or the message and name of one that cannot be read."""

    data: ImageData
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    seed: int
    epoch: int

    def __getitem__(self, index: int) -> tuple[Tensor, int] | tuple[str, str]:
        try:
            image, label = self.data[index]
        except DataError as error:
            return str(error), self.data.name(index)
        if self.augmentation is None:
            return self.preprocessing.pixels(image), label
        if self.augmentation.crop == "area":
            seed = seed_of(self.seed, self.epoch, index)
            return self.augmentation.area(image, self.preprocessing, seed), label
        pixels = self.preprocessing.pixels(image)[None]
        at = torch.tensor([index])
        one = _augmented(pixels, at, self.augmentation, self.preprocessing, self.seed, self.epoch, len(self.data))
        return one[0], label


def _collate(samples: list[tuple[Tensor, int] | tuple[str, str]]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    good = [(pixels, label) for pixels, label in samples if isinstance(pixels, Tensor)]
    bad = [(message, str(name)) for message, name in samples if isinstance(message, str)]
    pixels = torch.stack([pixels for pixels, _ in good]) if good else torch.empty(0)
    return pixels, torch.tensor([label for _, label in good], dtype=torch.long), bad
