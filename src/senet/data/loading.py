"""Batches of pixels: decoded once into memory where they fit, otherwise read by worker processes.

For a network on a GPU, `device_batches` makes batches there, or copies them there ahead of their step.

A batch is the same in all of these ways, so long as all images can be read: what an image undergoes depends on (seed,
epoch, index) alone.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from senet.data.device_batches import DeviceData, keep_on_device, prefetched
from senet.data.images import ImageData, readable
from senet.data.preprocessing import Augmentation, Preprocessing, draw, seed_of
from senet.data.samples import Samples, augmented, collate, leave_signals
from senet.data.shards.remote import RemoteShards
from senet.data.shares import share
from senet.utils.errors import DataError
from senet.utils.limits import MOST_BATCH, MOST_PROCESSES, check_at_most
from senet.utils.progress import Progress, no_progress

__all__ = ["MEMORY_LIMIT", "Loader", "open_loader"]

# Bytes of decoded pixels that are kept in memory.
MEMORY_LIMIT = 4 * 2**30


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
        balanced: draw the images of an epoch with replacement, each class as often as any other.
        memory: (M, C, H, W) pixels and (M,) labels of images decoded already, or None.
        decoded: the images of the data, whole, where areas are cropped of them and they fit in memory, or None.
        skipped: names of the images that could not be read.
        part: (rank, number) of the processes that have a share of each batch each.
        device: where batches are wanted; None leaves them on the host.
        on_device: the pixels and labels of `memory` on that device, where they fit and batches can be made there. Of
            several processes, each has all of them: in another epoch it needs other images.
    """

    data: ImageData
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    batch: int
    seed: int
    workers: int
    skip_bad: bool
    balanced: bool
    memory: tuple[Tensor, Tensor] | None
    decoded: list[NDArray[np.uint8]] | None
    skipped: list[str]
    part: tuple[int, int] = (0, 1)
    device: torch.device | None = None
    on_device: DeviceData | None = None

    @property
    def images(self) -> int:
        """Images of an epoch, whole batches or not."""
        return len(self.data) if self.memory is None else len(self.memory[1])

    def __len__(self) -> int:
        """Batches of an epoch."""
        if self.augmentation is None:
            return math.ceil(self.images / self.batch)
        return self.images // self.batch or 1

    @property
    def labels(self) -> Tensor:
        """(M,), class indices of the images, on the host."""
        return torch.from_numpy(self.data.labels) if self.memory is None else self.memory[1]

    @property
    def placement(self) -> str:
        """Where batches are made, in words, for the log of a run; empty on the host."""
        if self.on_device is not None:
            return (
                f"{self.images:,} images kept on {self.device} as 8-bit pixels ({self.on_device.nbytes / 1e6:,.1f} MB)"
            )
        return "" if self.device is None else f"copied to {self.device} from pinned memory, one batch ahead"

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch: pixels (N, C, H, W) of 0 to 255, and class indices (N,), on `device`.

        With `skip_bad` a batch has fewer images where some cannot be read, or none. Of several processes, each gets
        its share of the batch, see `share`, which may be none of a last smaller batch.

        Args:
            epoch: order and what is random depend on it.
            start: batches that are left out at the beginning; the others are as without.

        Raises:
            DataError: an image cannot be read, and `skip_bad` is off; the message names it.
        """
        if self.on_device is not None:
            return map(self.on_device.batch, self.crops(epoch, start))
        batches = self._plan(epoch, start)
        if self.memory is not None and not (self.augmentation and self.augmentation.randaugment):
            return self._sent(self._from_memory(batches, epoch))
        return self._sent(self._from_workers(batches, epoch))

    def crops(self, epoch: int = 0, start: int = 0) -> Iterator[Tensor]:
        """What `on_device.batch` makes the batches of an epoch from: a CUDA graph copies it into its static input.

        It is drawn on the CPU and copied to the device once, for the whole epoch.

        Args:
            epoch, start: as of `epoch`.

        Returns:
            Of each batch (N, 4): index, row, column, and whether the image is mirrored; on the device.

        Raises:
            ValueError: the data are not on a device.
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

    def _plan(self, epoch: int, start: int) -> list[tuple[Tensor, Tensor]]:
        """Of each batch, the images (N,) and the keys (N,) of what is random about them."""
        order = self._order(epoch)
        # What is random about an image comes from its index; where an image may come twice, from its place instead.
        keys = torch.arange(len(order)) if self.balanced else order
        batches = list(
            zip(*(torch.split(numbers, self.batch)[start : len(self)] for numbers in (order, keys)), strict=True)
        )
        if self.part[1] > 1:
            batches = [(order[mine], keys[mine]) for order, keys in batches for mine in (share(len(order), self.part),)]
        return batches

    def _sent(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches on the device that they are wanted on."""
        return batches if self.device is None else prefetched(batches, self.device)

    def name_of(self, number: int, row: int) -> str:
        """Name an image of an evaluation batch that `epoch` gave.

        Args:
            number: of the batch, from 0.
            row: of the image in the batch, without those that could not be read.
        """
        lost = set(self.skipped)
        places = np.arange(len(self.data))
        if self.memory is not None:
            places = np.array([place for place in places if self.data.name(int(place)) not in lost])
        places = places[number * self.batch : (number + 1) * self.batch]
        mine = places[share(len(places), self.part).numpy()]
        there = [int(place) for place in mine if self.data.name(int(place)) not in lost]
        return self.data.name(there[row])

    @property
    def order(self) -> str:
        """What the images of a training epoch are in, beside seed and epoch: a run that goes on is to keep it."""
        return "random"

    def _order(self, epoch: int) -> Tensor:
        if self.augmentation is None:
            return torch.arange(self.images)
        if not self.balanced:
            return draw(self.augmentation, self.seed, epoch, self.images).order
        shares = 1 / torch.bincount(self.labels)[self.labels].double()
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        return torch.multinomial(shares, self.images, replacement=True, generator=generator)

    def _from_memory(self, batches: Iterable[tuple[Tensor, Tensor]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.memory is not None
        pixels, labels = self.memory
        for indices, keys in batches:
            batch = pixels[indices]
            if self.augmentation is not None:
                batch = augmented(batch, keys, self.augmentation, self.preprocessing, self.seed, epoch, self.images)
            yield batch, labels[indices]

    def _from_workers(self, batches: Iterable[tuple[Tensor, Tensor]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        samples = Samples(self.data, self.memory, self.decoded, self.preprocessing, self.augmentation, self.seed, epoch)
        pairs = [list(zip(indices.tolist(), keys.tolist(), strict=True)) for indices, keys in batches]
        # A generator of its own: otherwise each epoch would move the one that dropout draws from.
        own = torch.Generator()
        loader = DataLoader(
            samples,
            batch_sampler=pairs,
            num_workers=self.workers,
            collate_fn=collate,
            generator=own,
            worker_init_fn=leave_signals,
        )
        for pixels, labels, bad in loader:
            for message, name in bad:
                if not self.skip_bad:
                    raise DataError(f"{message}; leave such images out with --skip-bad")
                if name not in self.skipped:
                    self.skipped.append(name)
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
    balanced: bool = False,
    memory_limit: int = MEMORY_LIMIT,
    part: tuple[int, int] = (0, 1),
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> Loader:
    """Make batches of a data set; images that fit in memory are decoded here, once.

    Args:
        data, preprocessing, augmentation, batch, seed, workers, skip_bad, balanced: see `Loader`.
        memory_limit: bytes; images that take more are read anew each epoch. Of most, it is the pixels that enter the
            network that count; where training crops random areas, the whole images.
        part: (rank, number) of the processes: the batches are those of one process, and of each this one gets a share.
        device: where batches are wanted. Pixels that are kept are kept there as well, if they take at most
            `senet.data.device_batches.DEVICE_SHARE` of a GPU's free memory and crops are of a fixed size without
            RandAugment; other batches are copied there ahead of their step. None leaves batches on the host.
        progress: shows progress.

    Raises:
        ValueError: `batch` below 1 or `workers` below 0, or no such part.
        DataError: an image cannot be read, and `skip_bad` is off; or a class has no image left.
    """
    if batch < 1 or workers < 0:
        raise ValueError(f"batch must be 1 or more and workers 0 or more, got {batch} and {workers}")
    check_at_most("batch", batch, MOST_BATCH)
    check_at_most("workers", workers, MOST_PROCESSES)
    if not 0 <= part[0] < part[1]:
        raise ValueError(f"part must be a rank from 0 and the number of processes above it, got {part}")
    if len(data) == 0:
        raise DataError(f"{data.spec} has no images")
    size = len(data) * len(preprocessing.mean) * math.prod(preprocessing.size)
    loader = Loader(
        *(data, preprocessing, augmentation, batch, seed, workers, skip_bad, balanced, None, None, []),
        part=part,
        device=None if device is None else torch.device(device),
    )
    whole = augmentation is not None and augmentation.crop == "area"
    streamed = whole or size > memory_limit
    if isinstance(data.source, RemoteShards) and (streamed or not balanced):
        from senet.data.streaming import StreamLoader  # which builds on this module

        # In memory, too: the order is not to depend on how much of it each process has.
        loader = StreamLoader(**vars(loader))
        if streamed:
            loader.check()
            return loader
    if (_bytes_of(data, memory_limit) if whole else size) > memory_limit:
        return loader
    pixels: list[Any] = []
    kept = []
    for index in progress(range(len(data)), len(data), f"decode {data.spec}"):
        try:
            image = data[index][0]
            with readable(data.name(index)):
                pixels.append(np.asarray(image) if whole else preprocessing.pixels(image))
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
    if whole:
        loader.data, loader.decoded = data.subset(np.array(kept)), pixels
    else:
        loader.memory = (torch.stack(pixels), labels)
        if loader.order != "random":  # which is drawn from the images that are there
            loader.data = data.subset(np.array(kept))
        if loader.device is not None:
            loader.on_device = keep_on_device(*loader.memory, preprocessing, augmentation, loader.device)
    return loader


def _bytes_of(data: ImageData, limit: int) -> float:
    """Bytes of the decoded images of a data set: from a few of them, with a margin."""
    if limit == 0:
        return math.inf
    sizes = []
    for index in np.linspace(0, len(data) - 1, min(len(data), 64)).astype(int).tolist():
        with suppress(DataError):  # it is told of when all are read
            sizes.append(math.prod(data[index][0].size) * 3)
    return 1.25 * len(data) * sum(sizes) / max(len(sizes), 1)
