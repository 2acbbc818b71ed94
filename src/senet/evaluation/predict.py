"""Predict the classes of single images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from senet.data import Preprocessing
from senet.data.images import open_image, readable
from senet.evaluation.inputs import InputOptions, network_config
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
    """

    name: str
    classes: list[str]
    probabilities: list[float]


# Indices and probabilities of the predicted classes, from logits (K,), `pretrained_cfg` and the number of classes.
Choose = Callable[[Tensor, Mapping[str, Any], int | None], tuple[list[int], list[float]]]


@torch.no_grad()
def predict_images(
    model: nn.Module,
    images: Iterable[ImageLike],
    options: InputOptions | None = None,
    *,
    choose: Choose,
    top: int | None = None,
    progress: Progress = no_progress,
) -> list[Prediction]:
    """Predict the classes of images. The network keeps its mode; see `senet.predict`.

    Args:
        model: a network with `pretrained_cfg` in timm's form.
        images: files, or PIL images.
        options: preprocessing, class names and batch size; 32 images per batch by default.
        choose: chooses the classes.
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
    images, batch = list(images), options.batch
    if not images:
        raise ValueError("images is empty; give one image or more")
    for name, number in (("top", top), ("batch", batch)):
        if number is not None and number < 1:
            raise ValueError(f"{argument_name(name)} must be 1 or more, got {number}")
    check_at_most("batch", batch, MOST_BATCH)
    cfg = network_config(model, options.classes)
    preprocessing = Preprocessing.of(cfg, options)
    starts = range(0, len(images), batch)
    found = []
    with evaluating(model):
        for start in progress(starts, len(starts), "predict"):
            names, pixels = _open(images, slice(start, start + batch), preprocessing, options.skip_bad)
            if not names:
                continue
            logits = network_logits(model, preprocessing, torch.stack(pixels))
            classes = cfg.get("label_names") or [str(n) for n in range(logits.shape[1])]
            for (file, name), row in zip(names, logits, strict=True):
                check_finite(row, file or f"image {name}", model)
                indices, probabilities = choose(row, cfg, top)
                found.append(Prediction(file, [classes[index] for index in indices], probabilities))
    return found


def _open(
    images: list[ImageLike], batch: slice, preprocessing: Preprocessing, skip_bad: bool
) -> tuple[list[tuple[str, str]], list[Tensor]]:
    """Return file and name of each readable image of a batch, and its pixels (C, H, W); an image in memory has no file.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is False.
    """
    names, pixels = [], []
    for number, image in enumerate(images[batch], batch.start + 1):
        file = "" if isinstance(image, Image.Image) else str(image)
        name = file or f"{number} of {len(images)}"
        try:
            opened = open_image(image, name)
            with readable(name):
                pixels.append(preprocessing.pixels(opened))
            names.append((file, name))
        except DataError:
            if not skip_bad:
                raise
    return names, pixels
