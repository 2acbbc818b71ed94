"""Images to predict: files, images in memory, or labelled images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TypeVar

from PIL import Image

from senet.data.images import ImageData, open_image, readable
from senet.utils.arguments import argument_name
from senet.utils.errors import DataError
from senet.utils.limits import MOST_BATCH, check_at_most

__all__ = ["GivenImage", "ImageLike", "given_images", "open_given"]

ImageLike = str | PathLike[str] | Image.Image
T = TypeVar("T")


@dataclass(frozen=True)
class GivenImage:
    """An image to predict.

    Attributes:
        image: a file or an image in memory; None for one of labelled data.
        file: its file; "" in memory.
        name: for messages.
        index: in labelled data; otherwise -1.
    """

    image: ImageLike | None
    file: str
    name: str
    index: int = -1


def given_images(images: Iterable[ImageLike] | ImageData, batch: int, top: int | None) -> list[GivenImage]:
    """Return the images of a prediction, and check them, the batch size and `top`.

    Raises:
        ValueError: `top` or `batch` is below 1, or there are no images.
        TypeError: `images` is a single image.
    """
    if isinstance(images, str | PathLike | Image.Image):
        raise TypeError(f"images must be a list of files or images, got {images!r}; put it in a list")
    given = _named(images)
    if not given:
        raise ValueError("images is empty; give one image or more")
    for name, number in (("top", top), ("batch", batch)):
        if number is not None and number < 1:
            raise ValueError(f"{argument_name(name)} must be 1 or more, got {number}")
    check_at_most("batch", batch, MOST_BATCH)
    return given


def _named(images: Iterable[ImageLike] | ImageData) -> list[GivenImage]:
    """Return the images with their names."""
    if isinstance(images, ImageData):
        return [GivenImage(None, images.name(index), images.name(index), index) for index in range(len(images))]
    listed = list(images)
    return [
        GivenImage(image, "", f"{number} of {len(listed)}")
        if isinstance(image, Image.Image)
        else GivenImage(image, str(image), str(image))
        for number, image in enumerate(listed, 1)
    ]


def open_given(
    batch: Sequence[GivenImage], data: ImageData | None, convert: Callable[[Image.Image], T], skip_bad: bool
) -> tuple[list[GivenImage], list[T]]:
    """Return the readable images of a batch, and what each is converted to.

    Args:
        batch: some images.
        data: the labelled data of which they are; None for others.
        convert: from an upright image, such as to pixels.
        skip_bad: leave out images that cannot be read.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is False.
    """
    readable_images, converted = [], []
    for one in batch:
        try:
            if one.image is None:
                assert data is not None
                opened = data.read(one.index)
            else:
                opened = open_image(one.image, one.name)
            with readable(one.name):
                converted.append(convert(opened))
            readable_images.append(one)
        except DataError:
            if not skip_bad:
                raise
    return readable_images, converted
