"""Predict the classes of single images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from senet.data import Preprocessing
from senet.data.images import ImageData
from senet.evaluation.given_images import ImageLike, given_images, open_given
from senet.evaluation.inputs import InputOptions, network_config, with_network_classes
from senet.evaluation.logits import check_finite, network_logits
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["Choose", "Prediction", "predict_images"]


@dataclass(frozen=True)
class Prediction:
    """What is predicted for an image.

    Attributes:
        name: file of the image; "" for an image in memory.
        classes: class names, the most probable first; indices as text if the network has no names.
        probabilities: (K,), probabilities of these classes.
        truth: class names of what the image shows; None if they are not known.
        wrong: whether the prediction differs from it; None if that is not known.
        columns: heads of `cells`.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> found = senet.predict(model, senet.open_data("photos"), top=1)
        >>> found[0].truth, len(found[0].classes)
        (['cat'], 1)
    """

    columns: ClassVar[tuple[str, ...]] = ("class", "probability")

    name: str
    classes: list[str]
    probabilities: list[float]
    truth: list[str] | None = None
    wrong: bool | None = None

    def cells(self, rank: int) -> list[str]:
        """Return the class of a rank, from 0, as cells of a table."""
        return [self.classes[rank], f"{self.probabilities[rank]:.6g}"]


# Indices and probabilities of the predicted classes, from logits (K,), `pretrained_cfg` and the number of classes.
Choose = Callable[[Tensor, Mapping[str, Any], int | None], tuple[list[int], list[float]]]
# Whether a prediction is wrong, from logits (K,), `pretrained_cfg` and the target of the image.
IsWrong = Callable[[Tensor, Mapping[str, Any], Any], bool | None]


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
    options = options or InputOptions()
    count = 32 if options.batch is None else options.batch
    data = images if isinstance(images, ImageData) else None
    given, batch = given_images(images, count, top), count
    cfg = network_config(model, options.classes)
    preprocessing = Preprocessing.of(cfg, options)
    data = data and with_network_classes(data, cfg)
    starts = range(0, len(given), batch)
    found = []
    with evaluating(model):
        for start in progress(starts, len(starts), "predict"):
            opened, pixels = open_given(given[start : start + batch], data, preprocessing.pixels, options.skip_bad)
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
