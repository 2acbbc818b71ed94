"""Check that every image of a data set can be read, before a long run."""

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from senet.data.boxes import BoxData
from senet.data.decoding import to_rgb
from senet.data.faults import AnnotationFault
from senet.data.image_files import NONE_SKIPPED, SkippedFiles
from senet.data.images import ImageData, readable
from senet.utils.errors import DataError, UnreadableImageError
from senet.utils.limits import MOST_PROCESSES, check_at_most
from senet.utils.progress import Progress, no_progress

__all__ = ["BadImage", "ClassCount", "DataReport", "check_data"]

# Images that a worker process reads between two reports.
_BATCH = 16


@dataclass(frozen=True)
class ClassCount:
    """Number of images of a class, how many of them cannot be read, and number of boxes if images have boxes."""

    name: str
    images: int
    bad: int
    boxes: int | None = None


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be read: file and reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class DataReport:
    """The result of `check_data`.

    Attributes:
        spec: spec of the data.
        classes: counts by class, in the order of the class indices.
        bad: images that cannot be read, in the order of the data.
        widths, heights: pixels of the upright images that can be read, the smallest and the largest; None if there are
            none.
        grey, palette: images of one channel, and with a palette; they are used as RGB.
        skipped_files: files that are not images, and are not read.
        total: number of images, where an image may have several labels or none.
        faults: images and annotations of an annotation file that cannot be used; they are not in the counts.

    Examples:
        >>> from senet.data import check_data
        >>> report = check_data(senet.open_data("photos"), workers=0)
        >>> [(one.name, one.images) for one in report.classes]
        [('cat', 4), ('dog', 4)]
    """

    spec: str
    classes: tuple[ClassCount, ...]
    bad: tuple[BadImage, ...]
    widths: tuple[int, int] | None
    heights: tuple[int, int] | None
    grey: int
    palette: int
    skipped_files: SkippedFiles = NONE_SKIPPED
    total: int | None = None
    faults: tuple[AnnotationFault, ...] = ()

    @property
    def images(self) -> int:
        """Number of images, including those that cannot be read."""
        return self.total if self.total is not None else sum(count.images for count in self.classes)

    @property
    def ok(self) -> bool:
        """Whether every image can be read, and every annotation can be used."""
        return not self.bad and not self.faults


def check_data(data: ImageData, *, workers: int = 2, progress: Progress = no_progress) -> DataReport:
    """Read and decode every image, and report those that fail, with the faults of annotations.

    Args:
        data: the images.
        workers: processes that decode; 0 decodes in this process. The report does not depend on it.
        progress: shows progress.

    Raises:
        ValueError: `workers` below 0.

    Examples:
        >>> from senet.data import check_data
        >>> report = check_data(senet.open_data("photos"), workers=0)
        >>> len(report.bad), report.widths
        (0, (10, 10))
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    check_at_most("workers", workers, MOST_PROCESSES)
    # The default generator is the global one, which training draws from.
    generator = torch.Generator()
    loader = DataLoader(_Results(data), batch_size=_BATCH, num_workers=workers, collate_fn=list, generator=generator)
    results = chain.from_iterable(loader)
    bad: list[BadImage] = []
    unreadable: list[int] = []
    sizes: list[tuple[int, int]] = []
    modes: Counter[str] = Counter()
    for index in progress(range(len(data)), len(data), f"check {data.spec}"):
        result = next(results)
        if isinstance(result, BadImage):
            bad.append(result)
            unreadable.append(index)
        else:
            mode, *size = result
            sizes.append((size[0], size[1]))
            modes["grey" if mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;") else mode] += 1
    images, broken = data.counts.tolist(), data.subset(np.array(unreadable, dtype=np.int64)).counts.tolist()
    boxes = data.box_counts.tolist() if isinstance(data, BoxData) else [None] * len(data.classes)
    return DataReport(
        spec=data.spec,
        classes=tuple(map(ClassCount, data.classes, images, broken, boxes)),
        bad=tuple(bad),
        widths=_range([width for width, _ in sizes]),
        heights=_range([height for _, height in sizes]),
        grey=modes["grey"],
        palette=modes["P"] + modes["PA"],
        skipped_files=data.skipped_files,
        total=len(data) if sum(images) != len(data) else None,
        faults=data.faults,
    )


def _range(numbers: list[int]) -> tuple[int, int] | None:
    return (min(numbers), max(numbers)) if numbers else None


@dataclass
class _Results(Dataset[tuple[str, int, int] | BadImage]):
    """Mode, width and height of each image, or why it cannot be read."""

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
            return BadImage(name, error.reason if isinstance(error, UnreadableImageError) else str(error))
        return image.mode, *image.size
