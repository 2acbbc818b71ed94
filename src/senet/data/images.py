"""A data set of labelled images: what every spec opens as."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from senet.data.decoding import formats, to_rgb, upright
from senet.data.image_files import NONE_SKIPPED, SkippedFiles
from senet.utils.errors import DataError
from senet.utils.input_files import reading, same_name
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


class Source(Protocol):
    """Where images come from: an index gives an image, or a file to decode one from."""

    def read(self, index: int) -> Image.Image | IO[bytes]:
        """The image at an index of the source, decoded or not."""
        ...

    def name(self, index: int) -> str:
        """What to call that image in a message: its file."""
        ...


@contextmanager
def readable(name: object) -> Iterator[None]:
    """Convert whatever goes wrong with an image into an error that names it."""
    with reading(name, "image", error=DataError):
        try:
            yield
        except UnidentifiedImageError as error:  # Pillow names the open file object, which says nothing
            raise DataError(f"cannot read the image {name}: it is no image, or of an unknown kind") from error


def read_image(file: IO[bytes], name: str) -> Image.Image:
    """Decode an image file whole, upright (EXIF orientation), in the mode that it has; of an animation the first frame.

    Raises:
        DataError: the file is no image, is cut short or corrupt; the message names it.
    """
    with readable(name), closing(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below says more
            image = Image.open(file, formats=formats())
        check_pixels(image.size)
        image.load()
        return upright(image)


def check_pixels(size: tuple[int, int], what: str = "it has") -> None:
    """Refuse an image that would take too much memory, by its size alone.

    Args:
        size: width and height.
        what: before the size in the message.

    Raises:
        ValueError: it has more than `MOST_PIXELS` pixels.
    """
    width, height = size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{what} {width:,}x{height:,} pixels, and {MOST_PIXELS:,} in all are the limit; reduce it")


def decode(file: IO[bytes], name: str) -> Image.Image:
    """Decode an image file whole, as RGB.

    Raises:
        DataError: as `read_image`, or there is no way from its mode to RGB.
    """
    image = read_image(file, name)
    with readable(name):
        return to_rgb(image)


def open_image(image: str | PathLike[str] | Image.Image, name: str = "given in memory") -> Image.Image:
    """An image, decoded and upright.

    Args:
        image: a file or a PIL image.
        name: of a PIL image, for messages.

    Raises:
        DataError: the file is missing or cannot be read as an image.
    """
    if isinstance(image, Image.Image):
        with readable(name):
            image.load()  # it may be open only
            return upright(image)
    path = Path(image)
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe may never be written to
        raise DataError(f"cannot open the image {image}: it is a pipe or a device, and no regular file")
    try:
        with path.open("rb") as file:
            return decode(file, str(image))
    except OSError as error:
        raise DataError(f"cannot open the image {image}: {error.strerror}") from error


def options_of(spec: str) -> tuple[str, dict[str, str]]:
    """The name and the options of a spec `kind:NAME?key=value&key=value`.

    A `+` is a plus sign, since folders are called so; `%26` is an ampersand.

    Raises:
        DataError: an option without a value, or given twice.
    """
    name, _, query = spec.partition(":")[2].partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if not key or not equals or not value:
            raise DataError(f"{spec!r} has the option {part!r}; an option is to read key=value")
        if key in options:
            raise DataError(f"{spec!r} gives {key} twice; give it once")
        options[key] = unquote(value)
    return name, options


class ImageData(Dataset[tuple[Image.Image, int]]):
    """Labelled images: `data[i]` is a PIL image, upright and in RGB, and its class index.

    Args:
        spec: what was opened, for messages.
        source: gives the images.
        labels: (N,), class index of each image.
        classes: names, in the order of the indices.
        has_splits: whether the spec has a training and a validation split of its own.
        indices: (N,), of the images in the source, where it has more; all unless given.
        skipped_files: files of the data that are not read, since they are no images.
    """

    def __init__(
        self,
        spec: str,
        source: Source,
        labels: Labels,
        classes: Sequence[str],
        *,
        has_splits: bool = False,
        indices: Labels | None = None,
        skipped_files: SkippedFiles = NONE_SKIPPED,
    ) -> None:
        self.spec = spec
        self.source = source
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = [same_name(name) for name in classes]
        self.has_splits = has_splits
        self.skipped_files = skipped_files
        self.indices = np.arange(len(self.labels)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The image and its class index.

        Raises:
            DataError: the image cannot be read; the message names its file.
        """
        image = self.read(index)
        with readable(self.name(index)):
            return to_rgb(image), int(self.labels[index])

    def read(self, index: int) -> Image.Image:
        """The image in the mode that it has, decoded whole and upright.

        Raises:
            DataError: the image cannot be read; the message names its file.
        """
        image = self.source.read(int(self.indices[index]))
        if not isinstance(image, Image.Image):
            return read_image(image, self.name(index))
        with readable(self.name(index)):
            return upright(image)

    def name(self, index: int) -> str:
        """The file of an image, for messages."""
        return self.source.name(int(self.indices[index]))

    def subset(self, keep: Labels) -> "ImageData":
        """The images at the given positions (M,), with the same classes."""
        return ImageData(
            self.spec,
            self.source,
            self.labels[keep],
            self.classes,
            has_splits=self.has_splits,
            indices=self.indices[keep],
            skipped_files=self.skipped_files,
        )

    def with_classes(self, classes: Sequence[str]) -> "ImageData":
        """The same images, with class indices into another list of classes: those that a network was trained on.

        Raises:
            DataError: an image's class is not among them; the message names it.
        """
        classes = [same_name(name) for name in classes]
        if classes == self.classes:
            return self.subset(np.arange(len(self)))  # two classes of one name stay two
        present = [self.classes[label] for label in np.unique(self.labels)]
        # The first of classes with one name: ImageNet has two that are called "crane".
        index = {name: label for label, name in reversed(list(enumerate(classes)))}
        unknown = [name for name in present if name not in index]
        if unknown:
            lacking = [name for name in classes if name not in present]
            raise DataError(
                f"{self.spec} has {len(unknown)} of {len(present)} classes that training lacks: "
                f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}; the {len(classes)} known classes are "
                f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}; the data have no images of "
                f"{', '.join(lacking[:5]) or 'no other class'}{', ...' if len(lacking) > 5 else ''}"
            )
        new = np.array([index.get(name, -1) for name in self.classes], dtype=np.int64)
        return ImageData(
            self.spec,
            self.source,
            new[self.labels],
            classes,
            has_splits=self.has_splits,
            indices=self.indices,
            skipped_files=self.skipped_files,
        )
