"""Read every image of a data set once, before a long run does."""

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from senet.data.decoding import to_rgb
from senet.data.image_files import NONE_SKIPPED, SkippedFiles
from senet.data.images import ImageData, readable
from senet.utils.errors import DataError
from senet.utils.limits import MOST_PROCESSES, check_at_most
from senet.utils.progress import Progress, no_progress

__all__ = ["BadImage", "ClassCount", "DataReport", "check_data"]

# Images that a worker process reads between two reports.
_BATCH = 16


@dataclass(frozen=True)
class ClassCount:
    """Images of a class: all, and those that cannot be read."""

    name: str
    images: int
    bad: int


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be read: its file, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    Attributes:
        spec: the data.
        classes: counts by class, in the order of the class indices.
        bad: images that cannot be read, in the order of the data.
        widths, heights: pixels of the upright images that can be read, the smallest and the largest; None if there are
            none.
        grey, palette: images of one channel, and with a palette; they are used as RGB.
        skipped_files: files that are no images, and are not read.
    """

    spec: str
    classes: tuple[ClassCount, ...]
    bad: tuple[BadImage, ...]
    widths: tuple[int, int] | None
    heights: tuple[int, int] | None
    grey: int
    palette: int
    skipped_files: SkippedFiles = NONE_SKIPPED

    @property
    def images(self) -> int:
        """All images, those that cannot be read among them."""
        return sum(count.images for count in self.classes)

    @property
    def ok(self) -> bool:
        """Every image can be read."""
        return not self.bad


def check_data(data: ImageData, *, workers: int = 2, progress: Progress = no_progress) -> DataReport:
    """Read and decode every image, whatever the others are like.

    Args:
        data: the images.
        workers: processes that decode; 0 decodes in this one. The report does not depend on it.
        progress: shows progress.

    Raises:
        ValueError: `workers` below 0.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    check_at_most("workers", workers, MOST_PROCESSES)
    # A generator of its own: otherwise the check would move the one that training draws from.
    own = torch.Generator()
    loader = DataLoader(_Looks(data), batch_size=_BATCH, num_workers=workers, collate_fn=list, generator=own)
    looks = chain.from_iterable(loader)
    bad: list[BadImage] = []
    bad_labels: list[int] = []
    sizes: list[tuple[int, int]] = []
    modes: Counter[str] = Counter()
    for index in progress(range(len(data)), len(data), f"check {data.spec}"):
        look = next(looks)
        if isinstance(look, BadImage):
            bad.append(look)
            bad_labels.append(int(data.labels[index]))
        else:
            mode, *size = look
            sizes.append((size[0], size[1]))
            modes["grey" if mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;") else mode] += 1
    images = np.bincount(data.labels, minlength=len(data.classes)).tolist()
    broken = Counter(bad_labels)
    return DataReport(
        data.spec,
        tuple(ClassCount(name, images[label], broken[label]) for label, name in enumerate(data.classes)),
        tuple(bad),
        _range([width for width, _ in sizes]),
        _range([height for _, height in sizes]),
        modes["grey"],
        modes["P"] + modes["PA"],
        data.skipped_files,
    )


def _range(numbers: list[int]) -> tuple[int, int] | None:
    return (min(numbers), max(numbers)) if numbers else None


@dataclass
class _Looks(Dataset[tuple[str, int, int] | BadImage]):
    """What a look at an image tells: its mode, width and height, or why it cannot be read."""

    data: ImageData

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[str, int, int] | BadImage:
        name = self.data.name(index)
        try:
            image = self.data.read(index)
            with readable(name):
                to_rgb(image)
        except DataError as error:
            return BadImage(name, str(error).removeprefix(f"cannot read the image {name}: "))
        return image.mode, *image.size
