"""`ImageData`, the data set of labelled images that every spec opens as."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, runtime_checkable
from urllib.parse import unquote

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from senet.data.decoding import formats, to_rgb, upright
from senet.data.faults import AnnotationFault
from senet.data.image_files import NONE_SKIPPED, SkippedFiles
from senet.utils.errors import DataError, UnreadableImageError
from senet.utils.input_files import explaining, same_name
from senet.utils.limits import MOST_PIXELS

__all__ = [
    "ImageData",
    "Labels",
    "Source",
    "check_pixels",
    "decode",
    "open_image",
    "options_of",
    "read_image",
    "readable",
]

Labels = NDArray[np.int64]


@runtime_checkable
class Source(Protocol):
    """A source of images by index."""

    def read(self, index: int) -> Image.Image | IO[bytes]:
        """Return the image at an index, decoded or as an encoded file."""
        ...

    def name(self, index: int) -> str:
        """Return the name of the image for messages, such as its file."""
        ...


@contextmanager
def readable(name: object) -> Iterator[None]:
    """Convert errors of reading an image to an `UnreadableImageError`, which names it."""
    with explaining(partial(UnreadableImageError, name)):
        try:
            yield
        except UnidentifiedImageError as error:  # Pillow names the open file object instead
            raise UnreadableImageError(name, "it is not an image, or has an unknown format") from error


def read_image(file: IO[bytes], name: str) -> Image.Image:
    """Decode an image file in its own mode, upright (EXIF orientation); of an animation the first frame.

    Args:
        file: the encoded image; is closed.
        name: name of the image, for messages.

    Raises:
        DataError: the file is not an image, truncated or corrupt; the message names it.
    """
    with readable(name), closing(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(file, formats=formats())
        check_pixels(image.size)
        image.load()
        return upright(image)


def check_pixels(size: tuple[int, int], what: str = "it has") -> None:
    """Check the size of an image before it takes memory.

    Args:
        size: width and height.
        what: beginning of the message.

    Raises:
        ValueError: the image has more than `MOST_PIXELS` pixels.
    """
    width, height = size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{what} {width:,}x{height:,} pixels, and {MOST_PIXELS:,} in all are the limit; reduce it")


def decode(file: IO[bytes], name: str) -> Image.Image:
    """Decode an image file as RGB.

    Args:
        file: the encoded image; is closed.
        name: name of the image, for messages.

    Raises:
        DataError: see `read_image`; or the mode cannot be converted to RGB.
    """
    image = read_image(file, name)
    with readable(name):
        return to_rgb(image)


def open_image(image: str | PathLike[str] | Image.Image, name: str = "given in memory") -> Image.Image:
    """Open an image file or PIL image, decoded and upright.

    Args:
        image: a file or a PIL image.
        name: name of a PIL image, for messages.

    Raises:
        DataError: the file is missing or cannot be read as an image.
    """
    if isinstance(image, Image.Image):
        with readable(name):
            image.load()  # a lazily opened image
            return upright(image)
    path = Path(image)
    if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe may block forever
        raise DataError(f"cannot open the image {image}: it is a pipe or a device, not a regular file")
    try:
        with path.open("rb") as file:
            return decode(file, str(image))
    except OSError as error:
        raise DataError(f"cannot open the image {image}: {error.strerror}") from error


def options_of(spec: str) -> tuple[str, dict[str, str]]:
    """Parse the name and the options of a spec `kind:NAME?key=value&key=value`.

    A `+` stays a plus sign, since folder names contain it; `%26` is an ampersand.

    Raises:
        DataError: an option has no value, or is given twice.
    """
    name, _, query = spec.partition(":")[2].partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if not key or not equals or not value:
            raise DataError(f"{spec!r} has an invalid option {part!r}: expected key=value")
        if key in options:
            raise DataError(f"{spec!r} gives {key} twice; give it once")
        options[key] = unquote(value)
    return name, options


class ImageData(Dataset[tuple[Image.Image, Any]]):
    """Labelled images: `data[i]` is a PIL image, upright and in RGB, and its class index.

    Args:
        spec: spec of the data, for messages.
        source: source of the images.
        labels: (N,), class index of each image.
        classes: class names, in the order of the indices.
        has_splits: whether the spec has both a training and a validation split.
        indices: (N,), indices of the images in the source; all of them by default.
        skipped_files: files of the data that are not read, since they are not images.
        faults: annotations that cannot be used, and are left out.

    Attributes:
        whole_images: whether a batch has images of any aspect ratio, padded to a common size, as detectors take them.

    Examples:
        >>> data = senet.open_data("photos", "train")
        >>> len(data), len(data.subset([0, 1])), data.name(0)
        (8, 2, 'photos/train/cat/0.png')
    """

    whole_images: ClassVar[bool] = False

    def __init__(
        self,
        spec: str,
        source: Source,
        labels: NDArray[Any],
        classes: Sequence[str],
        *,
        has_splits: bool = False,
        indices: Labels | None = None,
        skipped_files: SkippedFiles = NONE_SKIPPED,
        faults: Sequence[AnnotationFault] = (),
    ) -> None:
        self.spec = spec
        self.source = source
        self.labels = self._checked(labels, len(classes))
        self.classes = [same_name(name) for name in classes]
        self.has_splits = has_splits
        self.skipped_files = skipped_files
        self.faults = tuple(faults)
        self.indices = np.arange(len(self.labels)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Image.Image, Any]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        """Return an image in RGB and its `target`.

        Raises:
            DataError: the image cannot be read; the message names its file.
        """
        image = self.read(index)
        with readable(self.name(index)):
            return to_rgb(image), self.target(index)

    def read(self, index: int) -> Image.Image:
        """Return an image in its own mode, decoded and upright.

        Raises:
            DataError: the image cannot be read; the message names its file.
        """
        image = self.source.read(int(self.indices[index]))
        if not isinstance(image, Image.Image):
            return read_image(image, self.name(index))
        with readable(self.name(index)):
            return upright(image)

    def name(self, index: int) -> str:
        """Return the file of an image, for messages."""
        return self.source.name(int(self.indices[index]))

    def target(self, index: int) -> Any:
        """Return the label of an image as a batch has it: its class index."""
        return int(self.labels[index])

    def names_of(self, index: int) -> list[str]:
        """Return the names of what an image shows: its class."""
        return [self.classes[int(self.labels[index])]]

    def resized_target(self, index: int, size: tuple[int, int], *, mirrored: bool) -> Any:
        """Return the label of an image that is resized to a size (height, width), and possibly mirrored."""
        return self.target(index)

    def label_values(self) -> list[Any]:
        """Return the labels of each image as Python numbers, by which data are recognized."""
        return self.labels.tolist()  # type: ignore[no-any-return]

    def blank_targets(self, images: int, size: tuple[int, int]) -> Any:
        """Return targets (images, ...) of blank images of a size (height, width)."""
        return torch.from_numpy(np.zeros((images, *self.labels.shape[1:]), dtype=self.labels.dtype))

    def aspects(self) -> Labels | None:
        """Return the kind (N,) of each image if a training batch has images of one kind; None if it has any images."""
        return None

    @property
    def counts(self) -> Labels:
        """(K,), number of images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def groups(self) -> Iterator[tuple[str, Labels]]:
        """Yield the groups that a split for validation divides, by name: the positions (M,) of each class."""
        for label, name in enumerate(self.classes):
            yield f"class {name!r}", np.flatnonzero(self.labels == label)

    def subset(self, keep: Labels) -> "ImageData":
        """Return the images at positions (M,), with the same classes."""
        return self._like(self.labels[keep], self.classes, self.indices[keep])

    def _like(self, labels: NDArray[Any], classes: Sequence[str], indices: Labels) -> "ImageData":
        """Return images of the same source."""
        return type(self)(
            self.spec,
            self.source,
            labels,
            classes,
            has_splits=self.has_splits,
            indices=indices,
            skipped_files=self.skipped_files,
            faults=self.faults,
        )

    def _checked(self, labels: NDArray[Any], classes: int) -> NDArray[Any]:
        """Return labels in the type that batches have."""
        return np.asarray(labels, dtype=np.int64)

    def _renumbered(self, new: Labels, classes: int) -> NDArray[Any]:
        """Return the labels for other classes, given the new index (K,) of each; -1 for a class without images."""
        return np.asarray(new[self.labels])

    def _reindexed(self, new: Labels, classes: Sequence[str]) -> "ImageData":
        """Return the same images with other classes, given the new index (K,) of each; -1 for one without images."""
        return self._like(self._renumbered(new, len(classes)), classes, self.indices)

    def with_classes(self, classes: Sequence[str]) -> "ImageData":
        """Return the same images with the class indices of another list of classes, such as that of a network.

        Args:
            classes: class names.

        Raises:
            DataError: the class of an image is not in the list; the message names it.
        """
        classes = [same_name(name) for name in classes]
        if classes == self.classes:
            return self.subset(np.arange(len(self)))  # two classes with the same name stay apart
        present = [self.classes[label] for label in np.flatnonzero(self.counts)]
        # The first of classes with the same name: ImageNet has two named "crane".
        index = {name: label for label, name in reversed(list(enumerate(classes)))}
        unknown = [name for name in present if name not in index]
        if unknown:
            lacking = [name for name in classes if name not in present]
            absent = f"{', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}"
            raise DataError(
                f"{self.spec} has {len(unknown)} of {len(present)} classes that training lacks: "
                f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}; the {len(classes)} known classes are "
                f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}"
                f"{absent and f'; the data have no images of {absent}'}"
            )
        new = np.array([index.get(name, -1) for name in self.classes], dtype=np.int64)
        return self._reindexed(new, classes)
