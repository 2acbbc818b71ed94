"""Open a loader: choose its class, and decode images into memory if they fit."""

import math
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from senet.data.augmentation import Augmentation
from senet.data.faults import check_faults
from senet.data.images import ImageData, readable
from senet.data.loading.device_batches import keep_on_device
from senet.data.loading.indexed import IndexedLoader
from senet.data.loading.loader import Loader
from senet.data.loading.streaming import StreamLoader
from senet.data.preprocessing import Preprocessing
from senet.data.shards.remote import RemoteShards
from senet.utils.errors import DataError
from senet.utils.limits import MOST_BATCH, MOST_PROCESSES, check_at_most
from senet.utils.progress import Progress, no_progress

__all__ = ["MEMORY_LIMIT", "open_loader"]

# Bytes of decoded pixels that are kept in memory.
MEMORY_LIMIT = 4 * 2**30


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
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> Loader:
    """Open a loader of a data set. Images that fit in memory are decoded here, once.

    Args:
        data: the images.
        preprocessing: resizing, cropping and normalization.
        augmentation: random augmentation and order for training; None for evaluation.
        batch: images per batch, over all processes.
        seed: seed of order and augmentation.
        workers: processes that decode images which are not in memory.
        skip_bad: skip unreadable images and annotations with faults, instead of raising an error.
        balanced: draw images with replacement, every class with the same probability.
        memory_limit: bytes; larger data sets are read anew each epoch. The size is that of the preprocessed pixels, or
            of the whole images if training crops random areas.
        rank: rank of this process. It gets its shard of each batch.
        world_size: number of processes.
        device: device of the batches. Pixels in memory are kept there as well if they take at most
            `senet.data.loading.device_batches.DEVICE_SHARE` of a GPU's free memory, crops have a fixed size and there
            is no RandAugment; other batches are copied there one step ahead. None leaves batches on the host.
        progress: shows progress of decoding.

    Raises:
        ValueError: `batch` is below 1, `workers` below 0, or `rank` not in 0 to `world_size` - 1; or images with boxes
            would be cropped, changed by RandAugment, or sampled by class.
        DataError: an image cannot be read or an annotation has a fault, and `skip_bad` is False; a class has no
            readable image; or shards cannot be streamed in this way.
    """
    _check(batch, workers, rank, world_size)
    if len(data) == 0:
        raise DataError(f"{data.spec} has no images")
    check_faults(data.faults, data.spec, skip_bad)
    if data.whole_images:
        _check_whole(preprocessing, augmentation, balanced)
    whole = data.whole_images or (augmentation is not None and augmentation.crop == "area")
    size = len(data) * len(preprocessing.mean) * math.prod(preprocessing.size)
    remote = isinstance(data.source, RemoteShards)
    streamed = remote and (whole or size > memory_limit)
    # Remote shards keep the order of their stream in memory too: the order must not depend on how much memory there is.
    kind: type[Loader] = StreamLoader if streamed or (remote and not balanced) else IndexedLoader
    loader = kind(
        data=data,
        preprocessing=preprocessing,
        augmentation=augmentation,
        batch=batch,
        seed=seed,
        workers=workers,
        skip_bad=skip_bad,
        balanced=balanced,
        rank=rank,
        world_size=world_size,
        device=None if device is None else torch.device(device),
    )
    if streamed:
        assert isinstance(loader, StreamLoader)
        loader.check()
    elif (_decoded_bytes(data, memory_limit) if whole else size) <= memory_limit:
        _decode(loader, whole, progress)
    return loader


def _check(batch: int, workers: int, rank: int, world_size: int) -> None:
    if batch < 1 or workers < 0:
        raise ValueError(f"batch must be 1 or more and workers 0 or more, got {batch} and {workers}")
    check_at_most("batch", batch, MOST_BATCH)
    check_at_most("workers", workers, MOST_PROCESSES)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 or more and below world_size, got rank={rank} and world_size={world_size}")


def _check_whole(preprocessing: Preprocessing, augmentation: Augmentation | None, balanced: bool) -> None:
    """Refuse what has no meaning for boxes.

    Raises:
        ValueError: an option has such a value.
    """
    if not isinstance(preprocessing.resize, int):
        raise ValueError(
            f"resize must be the shorter side of images with boxes, one number, got {preprocessing.resize}"
        )
    if augmentation is not None:
        for key, none in (("crop", "none"), ("randaugment", "")):
            if (got := getattr(augmentation, key)) != none:
                raise ValueError(f"{key}={got} does not apply to images with boxes; set {key}={none or repr(none)}")
    if balanced:
        raise ValueError("sampling=balanced needs one class per image, and images with boxes have several")


def _decode(loader: Loader, whole: bool, progress: Progress) -> None:
    """Decode the images of a loader into memory, whole or as preprocessed pixels.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is False; or a class has no readable image.
    """
    data, preprocessing = loader.data, loader.preprocessing
    decoded: list[Any] = []
    kept = []
    for index in progress(range(len(data)), len(data), f"decode {data.spec}"):
        try:
            image = data[index][0]
            with readable(data.name(index)):
                decoded.append(np.asarray(image) if whole else preprocessing.pixels(image))
            kept.append(index)
        except DataError as error:
            if not loader.skip_bad:
                raise DataError(f"{error}; leave such images out with --skip-bad") from error
            loader.skipped.append(data.name(index))
    labels = torch.from_numpy(data.labels[kept])
    empty = np.flatnonzero((data.counts > 0) & (data.subset(np.array(kept, dtype=np.int64)).counts == 0))
    if len(empty):
        raise DataError(
            f"the class {data.classes[empty[0]]!r} of {data.spec} has no readable image; add some, or remove the class"
        )
    if whole:
        loader.data, loader.decoded = data.subset(np.array(kept)), decoded
        return
    loader.memory = (torch.stack(decoded), labels)
    if isinstance(loader, StreamLoader):  # whose order is drawn from the images in memory
        loader.data = data.subset(np.array(kept))
    if loader.device is not None:
        loader.on_device = keep_on_device(*loader.memory, preprocessing, loader.augmentation, loader.device)


def _decoded_bytes(data: ImageData, limit: int) -> float:
    """Estimate the bytes of the decoded images of a data set from a sample, with a margin of 25 %."""
    if limit == 0:
        return math.inf
    sizes = []
    for index in np.linspace(0, len(data) - 1, min(len(data), 64)).astype(int).tolist():
        with suppress(DataError):  # reported when all images are read
            sizes.append(math.prod(data[index][0].size) * 3)
    return 1.25 * len(data) * sum(sizes) / max(len(sizes), 1)
