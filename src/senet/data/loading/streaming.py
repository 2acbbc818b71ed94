"""Batches of shards that can only be read in order, when their images do not fit in memory.

Training reads S streams at the same time; S is a power of two that depends on the data alone. In short::

    shards, permuted by (seed, epoch) and concatenated; split into S streams of equal length     # each image once
    each stream: through a shuffle buffer, with random numbers of (seed, epoch, stream)
    image j of the epoch: the next image of stream j mod S          # so every batch has as many images of each stream
    rank r of R processes: streams r, r + R, ...;  worker w of W: every W-th of these streams, from the w-th on

The index holds the number of images in each shard, so the whole order is known before anything is read. Hence batches
do not depend on the numbers of processes and workers, an epoch can be resumed in the middle, and shards can have any
size: a shard at a boundary is read by two streams, each of which takes its own images. Evaluation reads images in the
order of the data; each process reads a contiguous range of whole batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from senet.data.augmentation import seed_of
from senet.data.images import ImageData, Labels
from senet.data.loading.loader import Loader
from senet.data.loading.samples import Batch, Samples, collate
from senet.data.loading.stream_reader import (
    CurrentImage,
    Decoder,
    Stream,
    StreamReader,
    merge_parts,
    shuffled,
    streams_of,
)
from senet.data.loading.workers import ignore_signals, iterate
from senet.data.shards.remote import RemoteShards
from senet.utils.errors import DataError, UnreadableImageError

__all__ = ["StreamLoader"]

# Mixed into the seed of the order of shards, so that it is independent of other random numbers.
_SHARDS = 1_000_003


@dataclass(kw_only=True)
class StreamLoader(Loader):
    """Batches of shards that are streamed, or that were streamed into memory; the order is the same.

    Attributes:
        data: images whose source is `RemoteShards`; the other attributes are those of `Loader`.
    """

    def check(self) -> None:
        """Check that the data can be streamed.

        Raises:
            DataError: images would be drawn with replacement, or the streams cannot be divided among the processes.
        """
        if self.balanced:
            raise DataError(
                f"{self.data.spec}: sampling=balanced reads images in any order, and shards are streamed in theirs; "
                f"copy the shards to the disk, or use class_weights=balanced"
            )
        streams = self.source.streams
        if self.augmentation is not None and streams % self.world_size:
            suggested = self.world_size * max(1, streams // self.world_size)
            raise DataError(
                f"{self.data.spec} is read as {streams} streams, which cannot be divided evenly among "
                f"{self.world_size} processes: give streams={suggested}, or another multiple, up to the number of "
                f"shards"
            )

    @property
    def source(self) -> RemoteShards:
        """The shards."""
        assert isinstance(self.data.source, RemoteShards)
        return self.data.source

    @property
    def order(self) -> str:
        """The number of streams; and whether images are missing, since the order then depends on which."""
        some = ", of the images that can be read" if self.memory is not None and self.skipped else ""
        return f"streams={self.source.streams}{some}"

    def _read(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self._without_bad(self._training(epoch, start) if self.augmentation else self._evaluation(start))

    def _own(self, images: int) -> Tensor:
        """(n,): in evaluation a process has whole batches of a stream."""
        return super()._own(images) if self.memory is not None else torch.arange(images)

    def _order(self, epoch: int) -> Tensor:
        """(M,), the images in the order in which the streams yield them."""
        if self.augmentation is None:
            return super()._order(epoch)
        count, parts = self.source.streams, np.array_split(self._order_of_shards(epoch), self.source.streams)
        stream_of = np.concatenate([streams_of(first, size, count) for first, size in self._batches()])
        order = np.empty(len(stream_of), dtype=np.int64)
        for stream, images in enumerate(parts):
            here = stream_of == stream
            order[here] = shuffled(images, count, self.seed, epoch, stream)[: here.sum()]
        return torch.from_numpy(order)

    def _batches(self, start: int = 0) -> list[tuple[int, int]]:
        """The position in the epoch of the first image of each batch, and the size of the batch."""
        firsts = range(start * self.batch, len(self) * self.batch, self.batch)
        return [(first, min(self.batch, self.images - first)) for first in firsts]

    def _evaluation(self, start: int) -> Iterator[Batch]:
        """Yield all batches in the order of the data; those of other processes are empty."""
        batches = len(self)
        own = range(self.rank * batches // self.world_size, (self.rank + 1) * batches // self.world_size)

        def encoded() -> Iterator[list[tuple[int, bytes | UnreadableImageError]]]:
            # Read here, once and in order; decoded by worker processes.
            for number in range(max(start, own.start), own.stop):
                here = range(number * self.batch, min((number + 1) * self.batch, self.images))
                yield [(index, self.source.content(int(self.data.indices[index]))) for index in here]

        loader: Any = DataLoader(
            self._decoder(0),  # type: ignore[arg-type]
            batch_sampler=encoded(),
            num_workers=self.workers,
            collate_fn=collate,
            generator=torch.Generator(),
            worker_init_fn=ignore_signals,
        )
        found = iterate(loader)
        for number in range(start, batches):
            yield next(found) if number in own else (torch.empty(0), torch.empty(0, dtype=torch.long), [])

    def _training(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield this process's part of each batch, from the streams that it reads."""
        source, count = self.source, self.source.streams
        done = start * self.batch
        parts = np.array_split(self._order_of_shards(epoch), count)
        streams = {
            # Image j of the epoch is of stream j mod S; skip those before the first batch.
            stream: Stream(parts[stream], shuffled(parts[stream], count, self.seed, epoch, stream)[skipped:])
            for stream in range(self.rank, count, self.world_size)
            for skipped in ((done - stream + count - 1) // count,)
        }
        batches = self._batches(start)
        workers = min(self.workers, len(streams))
        loader = DataLoader(
            StreamReader(source, self.data.indices, streams, batches, self._decoder(epoch)),
            batch_size=None,
            num_workers=workers,
            collate_fn=_identity,
            generator=torch.Generator(),
            worker_init_fn=ignore_signals,
        )
        found = iterate(loader)
        for _ in batches:
            # The loader takes one part from each worker in turn.
            yield merge_parts([next(found) for _ in range(workers or 1)])

    def _order_of_shards(self, epoch: int) -> Labels:
        """(M,), the images by shard, in a random order of the shards; within a shard in its order."""
        shards = self.source.shard_of(self.data.indices)
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch, _SHARDS))
        position = torch.randperm(len(self.source.urls), generator=generator).numpy()
        return np.lexsort((self.data.indices, position[shards]))

    def _decoder(self, epoch: int) -> Decoder:
        current = CurrentImage(self.data)
        data = ImageData(self.data.spec, current, self.data.labels, self.data.classes, indices=self.data.indices)
        return Decoder(
            current,
            Samples(
                data=data,
                memory=None,
                decoded=None,
                preprocessing=self.preprocessing,
                augmentation=self.augmentation,
                seed=self.seed,
                epoch=epoch,
            ),
        )


def _identity(part: Any) -> Any:
    return part
