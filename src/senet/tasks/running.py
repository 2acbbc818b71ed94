"""Evaluate networks, and predict with them, by the task that they were trained for."""

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from typing import Any, Unpack

import torch
from PIL import Image
from torch import nn

from senet.data import ImageData, Loader, open_images
from senet.data.loading import batch_device
from senet.evaluation.inputs import InputKeywords, InputOptions
from senet.evaluation.inputs import loader_for as loader_of_images
from senet.evaluation.logits import input_like
from senet.evaluation.predict import Prediction
from senet.tasks.registry import task_of
from senet.utils.keywords import check_keywords
from senet.utils.progress import Progress, no_progress
from senet.utils.renamed import RENAMED_ARGUMENTS

__all__ = ["evaluate", "loader_for", "predict"]


def loader_for(
    model: nn.Module,
    data: str | ImageData,
    options: InputOptions | None = None,
    *,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> Loader:
    """Open a loader of validation data for a network, with the labels of its task.

    Args:
        model: the network.
        data: a spec, or an open data set.
        options: see `senet.evaluation.loader_for`, like the other arguments.
        workers: processes that decode images which are not in memory.
        device: device of the batches; None is the host.
        progress: shows progress.

    Raises:
        DataError, ValueError: see `senet.evaluate`.
    """
    task, options = task_of(model), options or InputOptions()
    images = task.data(open_images(data) if isinstance(data, str) else data)
    options = replace(options, batch=task.evaluation_batch) if options.batch is None else options
    return loader_of_images(model, images, options, workers=workers, device=device, progress=progress)


@check_keywords(**RENAMED_ARGUMENTS)
def evaluate(
    model: nn.Module,
    data: str | ImageData,
    options: InputOptions | None = None,
    *,
    workers: int = 0,
    confusion: bool = False,
    progress: Progress = no_progress,
    **keywords: Unpack[InputKeywords],
) -> Any:
    """Evaluate a network on a data set: resize the shorter side, crop the centre (paper section 6.1).

    Args:
        model: a network with `pretrained_cfg` in timm's form, which describes its inputs and, as `label_names`, its
            classes. Classes of the data are matched by name, or by order if the network has no names; a `DataWarning`
            is issued where that order is ambiguous.
        data: a spec, of which the validation split is used if there is one; or an open data set.
        options: preprocessing, class names and batch size; 128 images per batch by default, 4 of a detector.
        workers: processes that decode images which do not fit in memory.
        confusion: count the confusion matrix of a classifier, `Evaluation.confusion`.
        progress: shows progress.
        **keywords: fields of `InputOptions` instead: resize, crop, mean, std, classes, batch and skip_bad.

    Returns:
        An `Evaluation` of a classifier; a `MultiLabelEvaluation` of a network that was trained with task="multilabel";
        a `DetectionEvaluation` of a detector.

    Raises:
        DataError: the data cannot be opened, an image cannot be read, or the classes do not match the network's.
        NonFiniteError: a logit is NaN or infinite; the message names the first image.
        ValueError: sizes, mean or std are invalid, or the network has no classes or no `pretrained_cfg`.
        TypeError: a keyword is unknown.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> found = senet.evaluate(model, "photos", batch=4)
        >>> found.images, 0 <= found.top1_error <= 100
        (8, True)
    """
    options = replace(options or InputOptions(), **keywords)
    device = batch_device(input_like(model).device)
    loader = loader_for(model, data, options, workers=workers, device=device, progress=progress)
    task = task_of(model)
    evaluated = task.evaluate_confusion if confusion else task.evaluate
    return evaluated(model, loader, progress=progress)


@check_keywords(**RENAMED_ARGUMENTS)
def predict(
    model: nn.Module,
    images: Iterable[str | PathLike[str] | Image.Image] | ImageData,
    options: InputOptions | None = None,
    *,
    top: int | None = None,
    threshold: float | None = None,
    progress: Progress = no_progress,
    **keywords: Unpack[InputKeywords],
) -> list[Prediction]:
    """Predict the classes of images: the most probable, all labels above their thresholds, or the classes of boxes.

    The model keeps its mode.

    Args:
        model: a network with `pretrained_cfg` in timm's form.
        images: files, or PIL images; or labelled images of `open_data`, whose predictions have `truth` and `wrong`.
        options: preprocessing, class names and batch size; 32 images per batch by default, 4 of a detector.
        top: highest number of classes for each image. By default 5 of a classifier, and of a multi-label network all
            labels at or above their thresholds; of a detector all boxes.
        threshold: lowest probability of a box of a detector, 0.5 by default.
        progress: shows progress.
        **keywords: fields of `InputOptions` instead: resize, crop, mean, std, classes, batch and skip_bad.

    Returns:
        A prediction for each image, in order; images that are left out have none. A `BoxPrediction` of a detector has
        `boxes` as well.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is False; or the classes of the data do not match.
        NonFiniteError: a logit is NaN or infinite; the message names the first image.
        ValueError: `top` or `batch` is below 1, `threshold` is not from 0 to 1, there are no images, or the network has
            no classes or no `pretrained_cfg`.
        TypeError: `images` is a single image, or a keyword is unknown.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> [found] = senet.predict(model, ["photos/val/cat/0.png"], classes=["cat", "dog"])
        >>> sorted(found.classes), f"{sum(found.probabilities):.3f}"
        (['cat', 'dog'], '1.000')
    """
    options = replace(options or InputOptions(), **keywords)
    task = task_of(model)
    images = task.data(images) if isinstance(images, ImageData) else images
    return task.predict(model, images, options, top=top, threshold=threshold, progress=progress)
