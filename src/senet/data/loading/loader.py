"""The base class of loaders: batches of pixels, epoch by epoch, on the host or on a GPU.

What is random about an image depends on (seed, epoch, index) alone. A batch is therefore the same whether images are
decoded once into memory or read by worker processes, and for any number of workers and processes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from senet.data.augmentation import Augmentation, draw, seed_of
from senet.data.images import ImageData
from senet.data.loading.device_batches import DeviceData, prefetched
from senet.data.loading.distributed import shard_batch
from senet.data.loading.grouping import grouped
from senet.data.loading.samples import BadImages, Batch, Samples, augmented, collate, pad
from senet.data.loading.workers import ignore_signals, iterate
from senet.data.preprocessing import Preprocessing
from senet.utils.errors import DataError

__all__ = ["Loader"]


@dataclass(kw_only=True)
class Loader(ABC):
    """Batches of a data set, for any number of epochs. `open_loader` creates one.

    Attributes:
        data: the images.
        preprocessing: resizing, cropping and normalization of every image.
        augmentation: random augmentation and random order, for training; None for evaluation, in the order of the data.
        batch: images per batch. In training an incomplete last batch is dropped.
        seed: seed of order and augmentation.
        workers: processes that decode images which are not in memory.
        skip_bad: skip unreadable images, and list them in `skipped`, instead of raising an error.
        balanced: draw the images of an epoch with replacement, every class with the same probability.
        memory: (M, C, H, W) pixels and (M,) labels of decoded images, or None.
        decoded: whole decoded images, for random crops of an area, or None.
        skipped: names of the images that could not be read.
        rank: rank of this process, which gets its shard of each batch.
        world_size: number of processes.
        device: device of the batches; None is the host.
        on_device: pixels and labels of `memory` on `device`, if they fit and batches can be made there. Each process
            has all of them, since each epoch distributes the images anew.
    """

    data: ImageData
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    batch: int
    seed: int = 0
    workers: int = 0
    skip_bad: bool = False
    balanced: bool = False
    memory: tuple[Tensor, Tensor] | None = None
    decoded: list[NDArray[np.uint8]] | None = None
    skipped: list[str] = field(default_factory=list)
    rank: int = 0
    world_size: int = 1
    device: torch.device | None = None
    on_device: DeviceData | None = None

    @property
    def images(self) -> int:
        """Number of images in an epoch, incomplete batches included."""
        return len(self.data) if self.memory is None else len(self.memory[1])

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        if self.augmentation is None:
            return math.ceil(self.images / self.batch)
        return self.images // self.batch or 1

    @property
    def labels(self) -> Tensor:
        """(M,), class indices of the images, on the host."""
        return torch.from_numpy(self.data.labels) if self.memory is None else self.memory[1]

    def blank(self, images: int) -> tuple[Tensor, Tensor]:
        """Return black pixels (images, C, H, W) in the size of the network's input, and their targets."""
        size = self.preprocessing.size
        pixels = torch.zeros(images, len(self.preprocessing.mean), *size, dtype=torch.uint8)
        return pixels, self.data.blank_targets(images, size)

    @property
    def location(self) -> str:
        """Where batches are made, as text for the log of a run; empty on the host."""
        if self.on_device is not None:
            return (
                f"{self.images:,} images kept on {self.device} as 8-bit pixels ({self.on_device.nbytes / 1e6:,.1f} MB)"
            )
        return "" if self.device is None else f"copied to {self.device} from pinned memory, one batch ahead"

    @property
    @abstractmethod
    def order(self) -> str:
        """How the order of a training epoch is drawn from seed and epoch. A resumed run must have the same."""

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch: pixels (N, C, H, W) of 0 to 255, and class indices (N,), on `device`.

        With `skip_bad` a batch lacks the images that cannot be read, and may be empty. In a distributed run each
        process gets its shard of each batch, which may be empty for an incomplete last batch.

        Args:
            epoch: number of the epoch; determines order and augmentation.
            start: number of batches to skip at the beginning; the remaining ones do not change.

        Raises:
            DataError: an image cannot be read, and `skip_bad` is False; the message names the image.
        """
        if self.on_device is not None:
            return map(self.on_device.batch, self.crops(epoch, start))
        if self.memory is None:
            return self._to_device(self._read(epoch, start))
        batches = self._plan(epoch, start)
        if self.augmentation and self.augmentation.randaugment:
            return self._to_device(self._from_workers(batches, epoch, start))
        return self._to_device(self._from_memory(batches, epoch))

    @abstractmethod
    def _read(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch on the host, from images that are not in memory as pixels."""

    def crops(self, epoch: int = 0, start: int = 0) -> Iterator[Tensor]:
        """Yield the inputs of `on_device.batch` for an epoch, for a CUDA graph that copies them into a static tensor.

        They are drawn on the CPU and copied to the device once per epoch.

        Args:
            epoch: number of the epoch.
            start: number of batches to skip at the beginning.

        Returns:
            (N, 4) for each batch: index, row, column and whether the image is mirrored; on the device.

        Raises:
            ValueError: the images are not on a device.
        """
        if self.on_device is None:
            raise ValueError(f"the pixels of {self.data.spec} are not kept on a device; take batches from epoch()")
        batches = self._plan(epoch, start)
        if not batches:
            return iter(())
        indices, keys = (torch.cat(numbers) for numbers in zip(*batches, strict=True))
        if self.augmentation is None:
            offsets, flips = torch.zeros(len(keys), 2, dtype=torch.long), torch.zeros(len(keys), dtype=torch.bool)
        else:
            draws = draw(self.augmentation, self.seed, epoch, self.images)
            offsets, flips = draws.offsets[keys], draws.flips[keys]
        crops = self.on_device.upload(indices, offsets, flips)
        return iter(torch.split(crops, [len(some) for some, _ in batches]))

    def name_of(self, number: int, row: int) -> str:
        """Return the name of an image in an evaluation batch of `epoch`.

        Args:
            number: number of the batch, from 0.
            row: row of the image in the batch, which lacks the images that could not be read.
        """
        bad = set(self.skipped)
        indices = np.arange(len(self.data))
        if self.memory is not None:
            indices = np.array([index for index in indices if self.data.name(int(index)) not in bad])
        indices = indices[number * self.batch : (number + 1) * self.batch]
        own = indices[self._own(len(indices)).numpy()]
        readable = [int(index) for index in own if self.data.name(int(index)) not in bad]
        return self.data.name(readable[row])

    def _own(self, images: int) -> Tensor:
        """(n,), the positions of this process's images in an evaluation batch."""
        return shard_batch(images, self.rank, self.world_size)

    def _plan(self, epoch: int, start: int) -> list[tuple[Tensor, Tensor]]:
        """Return the images (N,) of each batch, and the keys (N,) that determine their augmentation."""
        order = self._order(epoch)
        # The index of an image is its key. With replacement an image may occur twice; its key is then its position.
        keys = torch.arange(len(order)) if self.balanced else order
        batches = list(
            zip(*(torch.split(numbers, self.batch)[start : len(self)] for numbers in (order, keys)), strict=True)
        )
        if self.world_size > 1:
            shards = [shard_batch(len(order), self.rank, self.world_size) for order, _ in batches]
            batches = [(order[own], keys[own]) for (order, keys), own in zip(batches, shards, strict=True)]
        return batches

    def _order(self, epoch: int) -> Tensor:
        """(M,), the images of an epoch in their order."""
        if self.augmentation is None:
            return torch.arange(self.images)
        if not self.balanced:
            order, kinds = draw(self.augmentation, self.seed, epoch, self.images).order, self.data.aspects()
            return order if kinds is None else grouped(order, torch.from_numpy(kinds), self.batch)
        weights = 1 / torch.bincount(self.labels)[self.labels].double()
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        return torch.multinomial(weights, self.images, replacement=True, generator=generator)

    def _to_device(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        return batches if self.device is None else prefetched(batches, self.device)

    def _from_memory(self, batches: Iterable[tuple[Tensor, Tensor]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.memory is not None
        pixels, labels = self.memory
        for indices, keys in batches:
            batch = pixels[indices]
            if self.augmentation is not None:
                batch = augmented(batch, keys, self.augmentation, self.preprocessing, self.seed, epoch, self.images)
            yield batch, labels[indices]

    def _from_workers(
        self, batches: Iterable[tuple[Tensor, Tensor]], epoch: int, start: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches, the first of which is number `start`, whose images worker processes decode or augment."""
        samples = Samples(
            data=self.data,
            memory=self.memory,
            decoded=self.decoded,
            preprocessing=self.preprocessing,
            augmentation=self.augmentation,
            seed=self.seed,
            epoch=epoch,
        )
        items = [
            [(index, key, step) for index, key in zip(indices.tolist(), keys.tolist(), strict=True)]
            for step, (indices, keys) in enumerate(batches, start)
        ]
        stack = partial(pad, fill=self.preprocessing.fill) if self.data.whole_images else None
        loader = DataLoader(
            samples,
            batch_sampler=items,
            num_workers=self.workers,
            collate_fn=partial(collate, stack=stack),
            generator=torch.Generator(),  # the default would advance the global one, which dropout draws from
            worker_init_fn=ignore_signals,
        )
        return self._without_bad(iterate(loader))

    def _without_bad(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels and labels; list the images that could not be read.

        Raises:
            DataError: an image could not be read, and `skip_bad` is False.
        """
        for pixels, labels, bad in batches:
            self._skip(bad)
            yield pixels, labels

    def _skip(self, bad: BadImages) -> None:
        for message, name in bad:
            if not self.skip_bad:
                raise DataError(f"{message}; leave such images out with --skip-bad")
            if name not in self.skipped:
                self.skipped.append(name)
