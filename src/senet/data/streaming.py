"""Batches of shards that can only be read in order, where their images do not fit in memory.

Training reads S streams at the same time, S a power of two that depends on the data alone. In short::

    shards in an order of (seed, epoch), one after another; cut into S equal stretches: streams     # each image once
    stream -> through a shuffle buffer, in an order of (seed, epoch, stream)
    image j of the epoch: the next one of stream j mod S            # so a batch has as many of each
    process r of R: streams r, r + R, ...;  its worker w of W: of these w, w + W, ...

The index says how many images a shard has, so that all of this is known before anything is read. Batches therefore do
not depend on the numbers of processes and workers, an epoch may be begun in its middle, and shards may be of any size:
a shard on a boundary is read by two streams, each of which takes its own images. Evaluation reads images in the order
of the data, each process a stretch of whole batches.
"""

import io
import random
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from senet.data.images import ImageData, Labels
from senet.data.loading import Loader
from senet.data.preprocessing import seed_of
from senet.data.samples import Samples, collate, leave_signals
from senet.data.shards.remote import RemoteShards
from senet.utils.errors import DataError

__all__ = ["BUFFER", "StreamLoader"]

# Encoded images that are held for shuffling, in all streams together.
BUFFER = 4096
# Beside seed and epoch, so that the order of shards is drawn from numbers of its own.
_SHARDS, _STREAM = 1_000_003, 1_000_033

# Places in the batch, pixels, labels, and message and name of images that are bad.
_Part = tuple[list[int], Tensor, Tensor, list[tuple[str, str]]]


@dataclass
class StreamLoader(Loader):
    """Batches of a data set that is a stream, or of one that was read into memory, in the same order.

    All else is as of `Loader`.
    """

    def check(self) -> None:
        """Whether what does not fit in memory can be streamed.

        Raises:
            DataError: images are to be drawn with replacement; or there are not as many streams for each process.
        """
        if self.balanced:
            raise DataError(
                f"{self.data.spec}: sampling=balanced draws any image at any time, and a stream has one after another; "
                f"copy the shards to the disk, or use class_weights=balanced"
            )
        streams, world = self.source.streams, self.part[1]
        if self.augmentation is not None and streams % world:
            raise DataError(
                f"{self.data.spec} is read as {streams} streams, which cannot be shared evenly by {world} processes: "
                f"give streams={world * max(1, streams // world)}, or another multiple, up to the number of shards"
            )

    @property
    def source(self) -> RemoteShards:
        """The shards."""
        assert isinstance(self.data.source, RemoteShards)
        return self.data.source

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, as of `Loader`; of several processes, those of their streams in each batch.

        In evaluation a process gets all images of some batches, and none of the others.

        Raises:
            DataError: a shard cannot be read; or an image, and `skip_bad` is off.
        """
        if self.memory is not None:
            return super().epoch(epoch, start)
        return self._sent(self._streamed(epoch, start))

    def _streamed(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels, bad in self._training(epoch, start) if self.augmentation else self._in_order(start):
            for message, name in bad:
                if not self.skip_bad:
                    raise DataError(f"{message}; leave such images out with --skip-bad")
                if name not in self.skipped:
                    self.skipped.append(name)
            yield pixels, labels

    def name_of(self, number: int, row: int) -> str:
        """As of `Loader`; from a stream, a process has whole batches in evaluation."""
        whole = self if self.memory is not None else replace(self, part=(0, 1))
        return super(StreamLoader, whole).name_of(number, row)

    @property
    def order(self) -> str:
        """As of `Loader`."""
        some = ", of the images that can be read" if self.memory is not None and self.skipped else ""
        return f"streams={self.source.streams}{some}"

    def _order(self, epoch: int) -> Tensor:
        """(M,), the images as the streams would give them."""
        if self.augmentation is None:
            return super()._order(epoch)
        streams, stretches = self.source.streams, np.array_split(self._order_of_shards(epoch), self.source.streams)
        of_place = np.concatenate([_streams_of(first, size, streams) for first, size in self._batches()])
        order = np.empty(len(of_place), dtype=np.int64)
        for stream, stretch in enumerate(stretches):
            here = of_place == stream
            order[here] = _shuffled(stretch, streams, self.seed, epoch, stream)[: here.sum()]
        return torch.from_numpy(order)

    def _batches(self, start: int = 0) -> list[tuple[int, int]]:
        """The first image of each batch of an epoch, and how many it has."""
        firsts = range(start * self.batch, len(self) * self.batch, self.batch)
        return [(first, min(self.batch, self.images - first)) for first in firsts]

    def _in_order(self, start: int) -> Iterator[tuple[Tensor, Tensor, list[tuple[str, str]]]]:
        rank, world = self.part
        batches = len(self)
        mine = range(rank * batches // world, (rank + 1) * batches // world)

        def encoded() -> Iterator[list[tuple[int, bytes | str]]]:
            # Read here, once and in order; decoded by worker processes.
            for number in range(max(start, mine.start), mine.stop):
                here = range(number * self.batch, min((number + 1) * self.batch, self.images))
                yield [(index, self.source.content(int(self.data.indices[index]))) for index in here]

        loader: Any = DataLoader(
            self._decoder(0),  # type: ignore[arg-type]
            batch_sampler=encoded(),
            num_workers=self.workers,
            collate_fn=collate,
            generator=torch.Generator(),
            worker_init_fn=leave_signals,
        )
        found = iter(loader)
        for number in range(start, batches):
            yield next(found) if number in mine else (torch.empty(0), torch.empty(0, dtype=torch.long), [])

    def _training(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor, list[tuple[str, str]]]]:
        rank, world = self.part
        source, streams = self.source, self.source.streams
        done = start * self.batch
        stretches = np.array_split(self._order_of_shards(epoch), streams)
        flows = {
            # Of the images before, image j was of stream j mod S.
            stream: _Flow(stretches[stream], _shuffled(stretches[stream], streams, self.seed, epoch, stream)[past:])
            for stream in range(rank, streams, world)
            for past in ((done - stream + streams - 1) // streams,)
        }
        batches = self._batches(start)
        readers = _Readers(source, self.data.indices, flows, batches, self._decoder(epoch))
        workers = min(self.workers, len(flows))
        loader = DataLoader(
            readers,
            batch_size=None,
            num_workers=workers,
            collate_fn=_same,
            generator=torch.Generator(),
            worker_init_fn=leave_signals,
        )
        found = iter(loader)
        for _ in batches:
            # The loader takes a part of each worker in turn.
            yield _joined([next(found) for _ in range(workers or 1)])

    def _order_of_shards(self, epoch: int) -> Labels:
        """(M,), the images, by shards in an order of their own; as they follow each other in a shard."""
        shards = self.source.shard_of(self.data.indices)
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch, _SHARDS))
        rank = torch.randperm(len(self.source.urls), generator=generator).numpy()
        return np.lexsort((self.data.indices, rank[shards]))

    def _decoder(self, epoch: int) -> "_Decoder":
        held = _Held(self.data)
        data = ImageData(self.data.spec, held, self.data.labels, self.data.classes, indices=self.data.indices)
        return _Decoder(held, Samples(data, None, None, self.preprocessing, self.augmentation, self.seed, epoch))


class _Held:
    """The image that was read last, as a source of images."""

    def __init__(self, data: ImageData) -> None:
        self._name = data.source.name
        self.content: bytes | str = ""

    def read(self, index: int) -> IO[bytes]:
        if isinstance(self.content, str):
            raise DataError(self.content)
        return io.BytesIO(self.content)

    def name(self, index: int) -> str:
        return self._name(index)


@dataclass
class _Flow:
    """What a stream gives: images as they are read, and as they leave the shuffle buffer."""

    read: Labels
    left: Labels


def _shuffled(images: Labels, streams: int, seed: int, epoch: int, stream: int) -> Labels:
    """Images as they leave a shuffle buffer, webdataset's."""
    from webdataset import shuffle

    size = max(1, BUFFER // streams)
    draw = random.Random(seed_of(seed, epoch, _STREAM, stream))
    through = shuffle(size, initial=size, rng=draw)
    return np.array(list(through(iter(images.tolist()))), dtype=np.int64)


def _streams_of(first: int, images: int, streams: int) -> Labels:
    """(N,), the stream of each place of a batch that begins with that image of the epoch.

    Where the batch is a multiple of twice the streams, processes then share it as by `senet.data.loading.share`.
    """
    places = np.arange(images)
    if images % (2 * streams) == 0:
        return np.minimum(places, images - 1 - places) % streams
    return (first + places) % streams


@dataclass
class _Decoder:
    """Encoded images one by one, as worker processes take them."""

    held: _Held
    samples: Samples

    def __getitem__(self, which: tuple[int, bytes | str]) -> tuple[Tensor, int] | tuple[str, str]:
        index, self.held.content = which
        return self.samples[index, index]


@dataclass
class _Readers(IterableDataset["_Part | str"]):
    """A worker's parts of an epoch's batches, of the streams that it reads; or what ended it.

    A batch is given by its first image of the epoch, and how many it has.
    """

    source: RemoteShards
    indices: Labels
    flows: dict[int, _Flow]
    batches: Sequence[tuple[int, int]]
    decoder: _Decoder

    def __iter__(self) -> Iterator[_Part | str]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        mine = {stream: self._images(self.flows[stream]) for stream in list(self.flows)[worker::workers]}
        try:
            for first, size in self.batches:
                of_place = _streams_of(first, size, self.source.streams).tolist()
                places = [place for place in range(size) if of_place[place] in mine]
                images = [self.decoder[next(mine[of_place[place]])] for place in places]
                good = [place for place, image in zip(places, images, strict=True) if isinstance(image[0], Tensor)]
                yield good, *collate(images)
        except DataError as error:
            yield str(error)

    def _images(self, flow: _Flow) -> Iterator[tuple[int, bytes | str]]:
        """Images as they leave the shuffle buffer; read when they are needed, and no sooner."""
        needed = np.isin(flow.read, flow.left)
        coming = self._read(flow.read[needed])
        held: dict[int, bytes | str] = {}
        with closing(coming):
            for index in flow.left.tolist():
                while index not in held:
                    key, content = next(coming)
                    held[key] = content
                yield index, held.pop(index)

    def _read(self, images: Labels) -> Generator[tuple[int, bytes | str]]:
        """Images in the order in which they lie in their shards."""
        rows = self.indices[images]
        shards = self.source.shard_of(rows)
        for group in np.split(np.arange(len(images)), np.flatnonzero(np.diff(shards)) + 1):
            if not len(group):
                continue
            shard = int(shards[group[0]])
            wanted = dict(zip((rows[group] - self.source.starts[shard]).tolist(), images[group].tolist(), strict=True))
            last = max(wanted)
            with closing(self.source.images(shard)) as stream:
                for place, content in stream:
                    if place in wanted:
                        yield wanted[place], content
                    if place == last:
                        break


def _joined(parts: Sequence[_Part | str]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """The parts of a batch, put together in the order of the batch."""
    whole = [part for part in parts if not isinstance(part, str)]
    if len(whole) < len(parts):
        raise DataError(next(part for part in parts if isinstance(part, str)))
    order = torch.tensor([place for part in whole for place in part[0]], dtype=torch.long).argsort()
    bad = [image for part in whole for image in part[3]]
    if not len(order):
        return torch.empty(0), torch.empty(0, dtype=torch.long), bad
    pixels = torch.cat([part[1] for part in whole if len(part[0])])[order]
    return pixels, torch.cat([part[2] for part in whole])[order], bad


def _same(part: Any) -> Any:
    return part
