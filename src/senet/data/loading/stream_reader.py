"""Read and shuffle streams of shards in the worker processes of a `StreamLoader`."""

import io
import random
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from senet.data.augmentation import seed_of
from senet.data.images import ImageData, Labels
from senet.data.loading.samples import BadImages, Batch, Sample, Samples, collate
from senet.data.shards.remote import RemoteShards
from senet.utils.errors import DataError, UnreadableImageError

__all__ = [
    "BUFFER",
    "BatchPart",
    "CurrentImage",
    "Decoder",
    "Stream",
    "StreamReader",
    "merge_parts",
    "shuffled",
    "streams_of",
]

# Encoded images in the shuffle buffers of all streams together.
BUFFER = 4096
# Mixed into the seed of a stream's shuffle buffer, so that it is independent of other random numbers.
_STREAM = 1_000_033

# Positions in the batch, pixels, labels, and message and name of images that cannot be read.
BatchPart = tuple[list[int], Tensor, Tensor, BadImages]


class CurrentImage:
    """The image that was read last, as a source of images."""

    def __init__(self, data: ImageData) -> None:
        self._name = data.source.name
        self.content: bytes | UnreadableImageError = b""

    def read(self, index: int) -> IO[bytes]:
        """Return the encoded image.

        Raises:
            DataError: it cannot be read.
        """
        if isinstance(self.content, UnreadableImageError):
            raise self.content
        return io.BytesIO(self.content)

    def name(self, index: int) -> str:
        """Return the name of an image of the stream."""
        return self._name(index)


@dataclass
class Stream:
    """The images of a stream in an epoch.

    Attributes:
        read: in the order in which they are read.
        shuffled: in the order in which they leave the shuffle buffer, from the first batch on.
    """

    read: Labels
    shuffled: Labels


@dataclass
class Decoder:
    """Decode and augment encoded images: (index, content) -> pixels and label, or why the image cannot be read."""

    current: CurrentImage
    samples: Samples

    def __getitem__(self, image: tuple[int, bytes | UnreadableImageError]) -> Sample:
        index, self.current.content = image
        return self.samples[index, index, 0]


@dataclass
class StreamReader(IterableDataset["BatchPart | DataError"]):
    """A worker's part of each batch, from the streams that it reads; or the message of the error that ended it.

    Attributes:
        source: the shards.
        indices: (M,), the images of the data set in the source.
        streams: the streams of this process, by number.
        batches: position in the epoch of the first image of each batch, and size of the batch.
        decoder: decodes and augments images.
    """

    source: RemoteShards
    indices: Labels
    streams: dict[int, Stream]
    batches: Sequence[tuple[int, int]]
    decoder: Decoder

    def __iter__(self) -> Iterator[BatchPart | DataError]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        own = {stream: self._images(self.streams[stream]) for stream in list(self.streams)[worker::workers]}
        try:
            for first, size in self.batches:
                stream_of = streams_of(first, size, self.source.streams).tolist()
                positions = [position for position in range(size) if stream_of[position] in own]
                images = [self.decoder[next(own[stream_of[position]])] for position in positions]
                good = [p for p, image in zip(positions, images, strict=True) if isinstance(image[0], Tensor)]
                yield good, *collate(images)
        except DataError as error:
            yield error

    def _images(self, stream: Stream) -> Iterator[tuple[int, bytes | UnreadableImageError]]:
        """Yield images as they leave the shuffle buffer. Each is read only when it is needed."""
        needed = np.isin(stream.read, stream.shuffled)
        coming = self._read(stream.read[needed])
        buffer: dict[int, bytes | UnreadableImageError] = {}
        with closing(coming):
            for index in stream.shuffled.tolist():
                while index not in buffer:
                    key, content = next(coming)
                    buffer[key] = content
                yield index, buffer.pop(index)

    def _read(self, images: Labels) -> Generator[tuple[int, bytes | UnreadableImageError]]:
        """Yield images in the order of their shards."""
        rows = self.indices[images]
        shards = self.source.shard_of(rows)
        for group in np.split(np.arange(len(images)), np.flatnonzero(np.diff(shards)) + 1):
            if not len(group):
                continue
            shard = int(shards[group[0]])
            wanted = dict(zip((rows[group] - self.source.starts[shard]).tolist(), images[group].tolist(), strict=True))
            last = max(wanted)
            with closing(self.source.images(shard)) as stream:
                for position, content in stream:
                    if position in wanted:
                        yield wanted[position], content
                    if position == last:
                        break


def shuffled(images: Labels, streams: int, seed: int, epoch: int, stream: int) -> Labels:
    """Return the images of a stream in the order in which they leave webdataset's shuffle buffer.

    Args:
        images: (n,), in the order in which they are read.
        streams: number of streams, which share the buffer.
        seed: seed of the random numbers.
        epoch: number of the epoch.
        stream: number of the stream.

    Returns:
        (n,).
    """
    from webdataset import shuffle

    size = max(1, BUFFER // streams)
    generator = random.Random(seed_of(seed, epoch, _STREAM, stream))
    shuffler = shuffle(size, initial=size, rng=generator)
    return np.array(list(shuffler(iter(images.tolist()))), dtype=np.int64)


def streams_of(first: int, images: int, streams: int) -> Labels:
    """Return the stream of each image of a batch.

    If the size of the batch is a multiple of 2 * streams, processes get the images that `shard_batch` gives them.

    Args:
        first: position in the epoch of the first image of the batch.
        images: size of the batch, N.
        streams: number of streams.

    Returns:
        (N,), numbers of streams.
    """
    positions = np.arange(images)
    if images % (2 * streams) == 0:
        return np.minimum(positions, images - 1 - positions) % streams
    return (first + positions) % streams


def merge_parts(parts: Sequence[BatchPart | DataError]) -> Batch:
    """Merge the workers' parts of a batch, in the order of the batch.

    Raises:
        DataError: a worker could not read its streams.
    """
    failed = next((part for part in parts if isinstance(part, DataError)), None)
    if failed is not None:
        raise failed
    complete = [part for part in parts if not isinstance(part, DataError)]
    order = torch.tensor([position for part in complete for position in part[0]], dtype=torch.long).argsort()
    bad = [image for part in complete for image in part[3]]
    if not len(order):
        return torch.empty(0), torch.empty(0, dtype=torch.long), bad
    pixels = torch.cat([part[1] for part in complete if len(part[0])])[order]
    return pixels, torch.cat([part[2] for part in complete])[order], bad
