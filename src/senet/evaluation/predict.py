"""The most probable classes of single images."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Unpack

import torch
from PIL import Image
from torch import Tensor, nn

from senet.data import Preprocessing
from senet.data.images import open_image, readable
from senet.evaluation.inputs import InputKeywords, InputOptions, network_config
from senet.evaluation.logits import check_finite, network_logits
from senet.utils.arguments import argument_name
from senet.utils.errors import DataError
from senet.utils.keywords import check_keywords
from senet.utils.limits import MOST_BATCH, check_at_most
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress
from senet.utils.renamed import RENAMED_ARGUMENTS

__all__ = ["Prediction", "predict"]

ImageLike = str | PathLike[str] | Image.Image


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image.

    Attributes:
        name: file of the image; "" for an image in memory.
        classes: class names, the most probable first; indices as text if the network has no names.
        probabilities: (K,), probabilities of these classes.
    """

    name: str
    classes: list[str]
    probabilities: list[float]


@check_keywords(**RENAMED_ARGUMENTS)
@torch.no_grad()
def predict(
    model: nn.Module,
    images: Iterable[ImageLike],
    options: InputOptions | None = None,
    *,
    top: int = 5,
    progress: Progress = no_progress,
    **keywords: Unpack[InputKeywords],
) -> list[Prediction]:
    """Predict the most probable classes of images. The network keeps its mode.

    Args:
        model: a network with `pretrained_cfg` in timm's form.
        images: files, or PIL images.
        options: preprocessing, class names and batch size; 32 images per batch by default.
        top: number of classes for each image.
        progress: shows progress.
        **keywords: fields of `InputOptions` instead: resize, crop, mean, std, classes, batch and skip_bad.

    Returns:
        A prediction for each image, in order; images that are left out have none.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is False.
        NonFiniteError: a logit is NaN or infinite; the message names the first image.
        ValueError: `top` or `batch` is below 1, there are no images, or the network has no classes or no
            `pretrained_cfg`.
        TypeError: `images` is a single image, or a keyword is unknown.
    """
    options = replace(options or InputOptions(batch=32), **keywords)
    if isinstance(images, str | PathLike | Image.Image):
        raise TypeError(f"images must be a list of files or images, got {images!r}; put it in a list")
    images, batch = list(images), options.batch
    if not images:
        raise ValueError("images is empty; give one image or more")
    for name, number in (("top", top), ("batch", batch)):
        if number < 1:
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
                # A stable sort: a tie goes to the class with the lower index, as in `evaluate`.
                values, indices = row.double().softmax(0).sort(descending=True, stable=True)
                best = [classes[index] for index in indices[:top].tolist()]
                found.append(Prediction(file, best, values[:top].tolist()))
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
