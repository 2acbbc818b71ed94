"""Iterate over the batches of a loader of `senet.data` or of any other, prepared for a network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet.data import ImageData, Loader
from senet.evaluation import InputOptions
from senet.gates.recording.label_sets import LabelSets
from senet.gates.recording.statistics import Counts
from senet.tasks import Task, loader_for, task_of
from senet.utils.errors import GatesError
from senet.utils.progress import Progress

__all__ = [
    "Batch",
    "Batches",
    "as_loader",
    "label_sets",
    "loader_length",
    "numbered_batches",
    "pretrained_config",
    "with_progress",
]

# A loader of `senet.data`, or an iterable of images as the network takes them, (N, C, *spatial), and labels, (N,).
Batches = Loader | Iterable[Any]


@dataclass(frozen=True)
class Batch:
    """A batch with its position in the data.

    Attributes:
        number: number of the batch in the whole data, from 0.
        indices: (N,), indices of the images in the data.
        images: (N, C, *spatial), as the network takes them.
        labels: (N,), int64 on the CPU; of images with several labels the number of the set, see `LabelSets`.
        targets: (N, ...), on the CPU, labels as the task judges them: (N,) or (N, K) of int64, or boxes.
        pixels: (N, C, H, W), 0 to 255, on the CPU; None if unknown.
    """

    number: int
    indices: Counts
    images: Tensor
    labels: Tensor
    targets: Tensor
    pixels: Tensor | None

    def parts(self, task: Task) -> Iterator["Batch"]:
        """Yield the parts of the batch that a network of a task runs on, see `Task.split`."""
        for rows, pixels in task.split(self.pixels, self.targets):
            yield replace(
                self,
                indices=self.indices[rows],
                images=self.images[rows],
                labels=self.labels[rows],
                targets=self.targets[rows],
                pixels=pixels,
            )


def as_loader(
    model: nn.Module, data: Batches | str | ImageData, *, progress: Progress, classes: Sequence[str] | None = None
) -> Batches:
    """Return a loader or an iterable of batches. A spec or a data set is opened as by `senet.evaluate`.

    Raises:
        DataError, ValueError: the data cannot be opened, or does not fit the network.
        GatesError: the labels of the data are not for the network's task.
        TypeError: `data` is not data.
    """
    task = task_of(model)
    if isinstance(data, str | ImageData):
        return loader_for(model, data, InputOptions(classes=classes), progress=progress)
    if isinstance(data, Tensor | Mapping) or not isinstance(data, Loader | Iterable):
        raise TypeError(
            f"expected a loader or an iterable of (images, labels), got {type(data).__name__}; use "
            f"senet.data.open_loader or a DataLoader"
        )
    if isinstance(data, Loader) and (data.augmentation is not None or data.world_size != 1):
        what = (
            "augments its images"
            if data.augmentation is not None
            else f"has the shard of rank {data.rank} of {data.world_size} processes"
        )
        raise ValueError(f"the loader of {data.data.spec} {what}; open one of evaluation, with all of the data")
    # An iterable has one class for each image.
    if (not isinstance(data, Loader) or data.data.labels.ndim == 1) != task.one_class:
        raise GatesError(
            f"the network was trained for {task.name}, which the labels of the data are not for; open the data with "
            f"senet.tasks.loader_for, or give their spec"
        )
    return data


def label_sets(loader: Batches) -> LabelSets | None:
    """Return the sets of labels of data with several labels for each image; None with one class each."""
    return LabelSets(loader.data) if isinstance(loader, Loader) and loader.data.labels.ndim == 2 else None


def loader_length(loader: Batches) -> int | None:
    """Return the number of batches, or None if unknown."""
    if not isinstance(loader, Sized):
        return None
    try:
        return len(loader)
    except TypeError:  # a DataLoader of an iterable data set
        return None


def with_progress(
    loader: Batches, model: nn.Module, progress: Progress, what: str, *, start: int = 0, part: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Yield from `numbered_batches` with a progress display over all batches of the data."""
    length = loader_length(loader)
    found = numbered_batches(loader, model, start=start, part=part)
    following = next(found, None)
    for step in progress(count() if length is None else range(length), length or 0, what):
        while following is not None and following.number <= step:
            yield following
            following = next(found, None)
        if following is None and length is None:
            return
    while following is not None:  # more than the length of the loader
        yield following
        following = next(found, None)


def numbered_batches(
    loader: Batches, model: nn.Module, *, start: int = 0, part: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Yield the batches of a part, prepared for a network, with their positions in the data. Empty ones are skipped.

    Args:
        loader: a loader of `senet.data` for evaluation, or an iterable of images and labels.
        model: the network; its device and dtype are used.
        start: number of the first batch.
        part: (i, n): batch i of every n batches. A loader of `senet.data` does not read the others.

    Raises:
        TypeError, ValueError: the loader does not yield images and labels.
    """
    own = isinstance(loader, Loader)
    rows = _of_loader(loader, start, part) if isinstance(loader, Loader) else _of_iterable(loader, start, part)
    sets = label_sets(loader)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    for number, indices, given, labels in rows:
        if not len(labels):
            continue
        if isinstance(loader, Loader):
            images = loader.preprocessing.normalize(given.to(like.device)).to(like.dtype)
        else:
            images = given.to(like.device, like.dtype if given.is_floating_point() else None)
        targets = labels.cpu() if labels.is_floating_point() else labels.to("cpu", torch.int64)
        numbers = targets if sets is None else sets.of_images(indices)
        yield Batch(number, indices, images, numbers, targets, given if own else None)


def pretrained_config(model: nn.Module) -> dict[str, Any]:
    """Return the network's `pretrained_cfg`, or an empty dictionary."""
    cfg = getattr(model, "pretrained_cfg", None)
    return dict(cfg) if isinstance(cfg, Mapping) else {}


def _of_loader(loader: Loader, start: int, part: tuple[int, int]) -> Iterator[tuple[int, Counts, Tensor, Tensor]]:
    numbers = [number for number in range(start, len(loader)) if number % part[1] == part[0]]
    ranges = [np.arange(n * loader.batch, min((n + 1) * loader.batch, loader.images)) for n in numbers]
    if loader.memory is not None:
        present = np.arange(len(loader.data))
        if len(present) != loader.images:  # some images could not be decoded
            lost = set(loader.skipped)
            present = np.array([index for index in present if loader.data.name(int(index)) not in lost])
        pixels, labels = loader.memory
        for number, places in zip(numbers, ranges, strict=True):
            mine = slice(int(places[0]), int(places[-1]) + 1)
            yield number, present[mine], pixels[mine], labels[mine]
        return
    if not numbers:
        return
    # Only the last batch is smaller, so the subset has the same batches as the whole.
    own = np.concatenate(ranges)
    decoded = None if loader.decoded is None else [loader.decoded[index] for index in own.tolist()]
    some = replace(loader, data=loader.data.subset(own), decoded=decoded, device=None)  # pixels stay on the CPU
    for number, places, (pixels, labels) in zip(numbers, ranges, some.epoch(), strict=True):
        if len(labels) < len(places):
            lost = set(loader.skipped)
            places = np.array([i for i in places if loader.data.name(int(i)) not in lost], np.int64)
        yield number, places, pixels, labels


def _of_iterable(
    loader: Iterable[Any], start: int, part: tuple[int, int]
) -> Iterator[tuple[int, Counts, Tensor, Tensor]]:
    first = 0
    for number, pair in enumerate(loader):
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(t, Tensor) for t in pair)):
            kinds = [type(t).__name__ for t in pair] if isinstance(pair, tuple | list) else type(pair).__name__
            raise TypeError(f"expected batches of two tensors, images and labels, got {kinds} as batch {number}")
        images, labels = pair
        if labels.ndim != 1 or labels.is_floating_point() or images.ndim < 2 or len(images) != len(labels):
            raise ValueError(
                f"expected images (N, C, *spatial) and integer labels (N,), got {tuple(images.shape)} and "
                f"{tuple(labels.shape)} of {labels.dtype} as batch {number}"
            )
        if number >= start and number % part[1] == part[0]:
            yield number, np.arange(first, first + len(labels)), images, labels
        first += len(labels)
