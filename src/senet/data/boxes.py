"""`BoxData`: images with boxes, and their targets as tensors of a fixed shape, so that batches are like any others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from senet.data.faults import AnnotationFault
from senet.data.image_files import NONE_SKIPPED, SkippedFiles
from senet.data.images import Labels, Source
from senet.data.multi_label import MultiLabelData
from senet.utils.errors import UnreadableImageError

__all__ = ["BoxData", "BoxTarget", "ImageBoxes", "blank_targets", "pack", "unpack"]

# Columns of a target, in its first row and in the others.
_COLUMNS = 6
# The class of a row without a box.
_NO_BOX = -1


@dataclass(frozen=True)
class BoxTarget:
    """The boxes of an image, in pixels of the image as the network gets it.

    Attributes:
        index: index of the image in the data of the loader.
        size: height and width of the image as the network gets it, without the padding of the batch.
        original: height and width of the image in its file, upright.
        boxes: (n, 4), x1, y1, x2 and y2 in pixels.
        classes: (n,), class indices.
        crowd: (n,), whether a box is around a group of objects that are not marked one by one. Such boxes are not
            trained on, and detections in them count neither as right nor as wrong.
    """

    index: int
    size: tuple[int, int]
    original: tuple[int, int]
    boxes: Float[Tensor, "n 4"]
    classes: Int[Tensor, "n"]
    crowd: Bool[Tensor, "n"]

    @property
    def scale(self) -> Float[Tensor, "4"]:
        """(4,), pixels of the network's image for a pixel of the original one, for x1, y1, x2 and y2."""
        height, width = (new / old for new, old in zip(self.size, self.original, strict=True))
        return self.boxes.new_tensor([width, height, width, height])

    def in_original(self, boxes: Float[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
        """Convert boxes (m, 4) from pixels of the network's image to pixels of the original image."""
        return boxes / self.scale.to(boxes)


def pack(
    index: int,
    size: tuple[int, int],
    original: tuple[int, int],
    boxes: Float[Tensor, "n 4"],
    classes: Int[Tensor, "n"],
    crowd: Bool[Tensor, "n"],
    rows: int,
) -> Float[Tensor, "R 6"]:
    """Return the target of an image as a tensor of fixed shape. The arguments but the last are those of `BoxTarget`.

    Args:
        index: index of the image in the data; below 2^24, since the tensor is float32.
        size: height and width of the image as the network gets it.
        original: height and width of the image in its file.
        boxes: (n, 4), in pixels of the image as the network gets it.
        classes: (n,).
        crowd: (n,).
        rows: number of rows for boxes, n or more.

    Returns:
        (1 + rows, 6), float32. The first row is (index, height, width, original height, original width, 0); the others
        are (class, x1, y1, x2, y2, crowd), with the class -1 in rows without a box.
    """
    target = torch.zeros(1 + rows, _COLUMNS)
    target[0, :5] = torch.tensor([index, *size, *original])
    target[1:, 0] = _NO_BOX
    here = target[1 : 1 + len(boxes)]
    here[:, 0], here[:, 1:5], here[:, 5] = classes, boxes, crowd
    return target


def unpack(target: Float[Tensor, "R 6"]) -> BoxTarget:
    """Return what `pack` packed into (1 + rows, 6); boxes, classes and crowd are on the device of the target."""
    index, height, width, *original = (int(value) for value in target[0, :5].tolist())
    rows = target[1:][target[1:, 0] != _NO_BOX]
    return BoxTarget(
        index, (height, width), (original[0], original[1]), rows[:, 1:5], rows[:, 0].long(), rows[:, 5].bool()
    )


def blank_targets(images: int, size: tuple[int, int], rows: int) -> Float[Tensor, "N R 6"]:
    """Return the targets (images, 1 + rows, 6) of images of a size without boxes."""
    none = torch.zeros(0)
    return pack(0, size, size, none.view(0, 4), none.long(), none.bool(), rows).repeat(images, 1, 1)


@dataclass(frozen=True)
class ImageBoxes:
    """The annotations of an image.

    Attributes:
        image_id: id of the image in the annotation file.
        size: height and width of the upright image.
        boxes: (n, 4), float32: x1, y1, x2 and y2 in pixels of the upright image.
        categories: (n,), class indices.
        areas: (n,), pixels of each object, which may be fewer than those of its box.
        crowd: (n,), whether a box is around a group of objects.
    """

    image_id: int
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    categories: Labels
    areas: NDArray[np.float32]
    crowd: NDArray[np.bool_]


class BoxData(MultiLabelData):
    """Images with boxes: `data[i]` is a PIL image, and its target of `pack` in pixels of that image.

    A batch has images of any aspect ratio: each is resized to the shorter side `resize`, or less if its longer side
    would exceed `max_size`; they are aligned at the top left and padded to a common size, a multiple of 32. The
    categories of each image are its labels, (N, K).

    Args:
        spec: spec of the data, for messages.
        source: source of the images.
        annotations: annotations of each image of the source.
        classes: class names, in the order of the indices.
        has_splits: whether the spec has both a training and a validation split.
        indices: (N,), indices of the images in the source; all of them by default.
        skipped_files: files of the data that are not read.
        faults: annotations that cannot be used, and are left out.
    """

    whole_images: ClassVar[bool] = True

    def __init__(
        self,
        spec: str,
        source: Source,
        annotations: Sequence[ImageBoxes],
        classes: Sequence[str],
        *,
        has_splits: bool = False,
        indices: Labels | None = None,
        skipped_files: SkippedFiles = NONE_SKIPPED,
        faults: Sequence[AnnotationFault] = (),
    ) -> None:
        indices = np.arange(len(annotations)) if indices is None else indices
        self.annotations = annotations
        own = [annotations[index] for index in indices.tolist()]
        labels = np.zeros((len(own), len(classes)), dtype=np.uint8)
        for row, one in zip(labels, own, strict=True):
            row[one.categories] = 1
        super().__init__(
            spec,
            source,
            labels,
            classes,
            has_splits=has_splits,
            indices=indices,
            skipped_files=skipped_files,
            faults=faults,
        )
        # Rows for boxes in a target.
        self.rows = max([1, *(len(one.boxes) for one in own)])

    def of_image(self, index: int) -> ImageBoxes:
        """Return the annotations of an image."""
        return self.annotations[int(self.indices[index])]

    @property
    def boxes(self) -> list[NDArray[np.float32]]:
        """(n, 4) for each image, float32: x1, y1, x2 and y2 in pixels of the upright image."""
        return [self.of_image(index).boxes for index in range(len(self))]

    @property
    def categories(self) -> list[Labels]:
        """(n,) for each image: class indices of its boxes."""
        return [self.of_image(index).categories for index in range(len(self))]

    @property
    def areas(self) -> list[NDArray[np.float32]]:
        """(n,) for each image: pixels of each object."""
        return [self.of_image(index).areas for index in range(len(self))]

    @property
    def crowd(self) -> list[NDArray[np.bool_]]:
        """(n,) for each image: whether a box is around a group of objects."""
        return [self.of_image(index).crowd for index in range(len(self))]

    @property
    def image_ids(self) -> list[int]:
        """Ids of the images in the annotation file."""
        return [self.of_image(index).image_id for index in range(len(self))]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each upright image."""
        return [self.of_image(index).size for index in range(len(self))]

    @property
    def box_counts(self) -> Labels:
        """(K,), number of boxes of each class."""
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for categories in self.categories:
            counts += np.bincount(categories, minlength=len(counts))
        return counts

    def read(self, index: int) -> Image.Image:
        """Return an image in its own mode, decoded and upright.

        Raises:
            DataError: the image cannot be read, or has another size than its annotations; the message names its file.
        """
        image = super().read(index)
        height, width = self.of_image(index).size
        if image.size != (width, height):
            raise UnreadableImageError(
                self.name(index),
                f"it has {image.width}x{image.height} pixels, and its annotations are for {width}x{height}; replace "
                f"the file, or correct its annotations",
            )
        return image

    def target(self, index: int) -> Any:
        """Return the target of an image in its original size, see `pack`."""
        return self.resized_target(index, self.of_image(index).size, mirrored=False)

    def resized_target(self, index: int, size: tuple[int, int], *, mirrored: bool) -> Tensor:
        """Return the target of an image that is resized and possibly mirrored.

        Args:
            index: index of the image.
            size: height and width of the resized image.
            mirrored: whether it is mirrored.

        Returns:
            (1 + `rows`, 6), see `pack`.
        """
        of = self.of_image(index)
        (height, width), boxes = size, torch.from_numpy(of.boxes).double()
        boxes = boxes * torch.tensor([width / of.size[1], height / of.size[0]], dtype=torch.double).repeat(2)
        if mirrored:
            left, top, right, bottom = boxes.unbind(1)
            boxes = torch.stack((width - right, top, width - left, bottom), 1)
        classes, crowd = torch.from_numpy(of.categories), torch.from_numpy(of.crowd)
        return pack(index, size, of.size, boxes.float(), classes, crowd, self.rows)

    def label_values(self) -> list[Any]:
        """Return categories, boxes and crowd of each image as Python numbers."""
        own = map(self.of_image, range(len(self)))
        return [(one.categories.tolist(), one.boxes.tolist(), one.crowd.tolist()) for one in own]

    def blank_targets(self, images: int, size: tuple[int, int]) -> Tensor:
        """Return the targets (images, 1 + `rows`, 6) of images of a size (height, width) without boxes."""
        return blank_targets(images, size, self.rows)

    def aspects(self) -> Labels:
        """(N,), 1 for images that are higher than wide: images of a training batch are of one kind."""
        return np.array([height > width for height, width in self.sizes], dtype=np.int64)

    def _reindexed(self, new: Labels, classes: Sequence[str]) -> "BoxData":
        annotations = [replace(one, categories=new[one.categories]) for one in self.annotations]
        return self._with(annotations, classes, self.indices)

    def _like(self, labels: NDArray[Any], classes: Sequence[str], indices: Labels) -> "BoxData":
        return self._with(self.annotations, classes, indices)

    def _with(self, annotations: Sequence[ImageBoxes], classes: Sequence[str], indices: Labels) -> "BoxData":
        """Return images of the same source."""
        return BoxData(
            self.spec,
            self.source,
            annotations,
            classes,
            has_splits=self.has_splits,
            indices=indices,
            skipped_files=self.skipped_files,
            faults=self.faults,
        )
