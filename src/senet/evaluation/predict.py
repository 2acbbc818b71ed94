"""Predict the classes of single images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from senet.data import Preprocessing
from senet.data.images import ImageData, open_image, readable
from senet.evaluation.inputs import InputOptions, network_config, with_network_classes
from senet.evaluation.logits import check_finite, network_logits
from senet.utils.arguments import argument_name
from senet.utils.errors import DataError
from senet.utils.limits import MOST_BATCH, check_at_most
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["Choose", "Prediction", "predict_images"]

ImageLike = str | PathLike[str] | Image.Image


@dataclass(frozen=True)
class Prediction:
    """What is predicted for an image.

    Attributes:
        name: file of the image; "" for an image in memory.
        classes: class names, the most probable first; indices as text if the network has no names.
        probabilities: (K,), probabilities of these classes.
        truth: class names of what the image shows; None if they are not known.
        wrong: whether the prediction differs from it; None if that is not known.
    """

    name: str
    classes: list[str]
    probabilities: list[float]
    truth: list[str] | None = None
    wrong: bool | None = None


# Indices and probabilities of the predicted classes, from logits (K,), `pretrained_cfg` and the number of classes.
Choose = Callable[[Tensor, Mapping[str, Any], int | None], tuple[list[int], list[float]]]
# Whether a prediction is wrong, from logits (K,), `pretrained_cfg` and the target of the image.
IsWrong = Callable[[Tensor, Mapping[str, Any], Any], bool | None]


@dataclass(frozen=True)
class _Given:
    """An image to predict: its file, "" in memory; its name for messages; its number in labelled data."""

    image: ImageLike | None
    file: str
    name: str
    index: int = -1


@torch.no_grad()
def predict_images(
    model: nn.Module,
    images: Iterable[ImageLike] | ImageData,
    options: InputOptions | None = None,
    *,
    choose: Choose,
    is_wrong: IsWrong,
    top: int | None = None,
    progress: Progress = no_progress,
) -> list[Prediction]:
    """Predict the classes of images. The network keeps its mode; see `senet.predict`.

    Args:
        model: a network with `pretrained_cfg` in timm's form.
        images: files, or PIL images; or labelled images, whose predictions have their truth.
        options: preprocessing, class names and batch size; 32 images per batch by default.
        choose: chooses the classes.
        is_wrong: compares a prediction with the truth.
        top: highest number of classes for each image; None leaves it to `choose`.
        progress: shows progress.

    Returns:
        A prediction for each image, in order; images that are left out have none.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is False.
        NonFiniteError: a logit is NaN or infinite; the message names the first image.
        ValueError: `top` or `batch` is below 1, there are no images, or the network has no classes or no
            `pretrained_cfg`.
        TypeError: `images` is a single image.
    """
    options = options or InputOptions(batch=32)
    if isinstance(images, str | PathLike | Image.Image):
        raise TypeError(f"images must be a list of files or images, got {images!r}; put it in a list")
    data = images if isinstance(images, ImageData) else None
    given, batch = _named(images), options.batch
    if not given:
        raise ValueError("images is empty; give one image or more")
    for name, number in (("top", top), ("batch", batch)):
        if number is not None and number < 1:
            raise ValueError(f"{argument_name(name)} must be 1 or more, got {number}")
    check_at_most("batch", batch, MOST_BATCH)
    cfg = network_config(model, options.classes)
    preprocessing = Preprocessing.of(cfg, options)
    data = data and with_network_classes(data, cfg)
    starts = range(0, len(given), batch)
    found = []
    with evaluating(model):
        for start in progress(starts, len(starts), "predict"):
            opened, pixels = _open(given[start : start + batch], data, preprocessing, options.skip_bad)
            if not opened:
                continue
            logits = network_logits(model, preprocessing, torch.stack(pixels))
            names = cfg.get("label_names") or (data.classes if data else [str(n) for n in range(logits.shape[1])])
            for one, row in zip(opened, logits, strict=True):
                check_finite(row, one.file or f"image {one.name}", model)
                indices, probabilities = choose(row, cfg, top)
                prediction = Prediction(one.file, [names[index] for index in indices], probabilities)
                if data is not None:
                    wrong = is_wrong(row, cfg, data.target(one.index))
                    prediction = replace(prediction, truth=data.names_of(one.index), wrong=wrong)
                found.append(prediction)
    return found


def _named(images: Iterable[ImageLike] | ImageData) -> list[_Given]:
    """Return the images with their names."""
    if isinstance(images, ImageData):
        return [_Given(None, images.name(index), images.name(index), index) for index in range(len(images))]
    listed = list(images)
    return [
        _Given(image, "", f"{number} of {len(listed)}")
        if isinstance(image, Image.Image)
        else _Given(image, str(image), str(image))
        for number, image in enumerate(listed, 1)
    ]


def _open(
    batch: list[_Given], data: ImageData | None, preprocessing: Preprocessing, skip_bad: bool
) -> tuple[list[_Given], list[Tensor]]:
    """Return the readable images of a batch, and the pixels (C, H, W) of each.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is False.
    """
    readable_images, pixels = [], []
    for one in batch:
        try:
            if one.image is None:
                assert data is not None
                opened = data.read(one.index)
            else:
                opened = open_image(one.image, one.name)
            with readable(one.name):
                pixels.append(preprocessing.pixels(opened))
            readable_images.append(one)
        except DataError:
            if not skip_bad:
                raise
    return readable_images, pixels
