"""Top-1 and top-5 error in the paper's protocol, and predictions for single images."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from senet.data import ImageData, Loader, Preprocessing, decode, image_paths, open_data, open_loader, warn_of_skipped
from senet.data.class_names import check_names, warn_of_order
from senet.data.decoding import KINDS, upright
from senet.data.images import readable
from senet.data.loading.device_batches import batch_device, prefetched
from senet.evaluation.logits import check_finite
from senet.evaluation.scoring import Scores, batches_between_reads
from senet.utils.errors import DataError, NonFiniteError
from senet.utils.limits import MOST_BATCH, check_at_most
from senet.utils.memory_errors import suggesting_batch
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress
from senet.utils.sizes import SizeLike

__all__ = [
    "ClassResult",
    "Evaluation",
    "Prediction",
    "evaluate",
    "evaluate_loader",
    "image_files",
    "loader_for",
    "network_logits",
    "open_image",
    "predict",
]


@dataclass(frozen=True)
class ClassResult:
    """One class of an evaluation: name, number of images, top-1 and top-5 error in percent."""

    name: str
    images: int
    top1_error: float
    top5_error: float


@dataclass(frozen=True)
class Evaluation:
    """Errors on a data set.

    Attributes:
        top1_error, top5_error: percent of the images whose class is not the first, or not among the first five, by
            logit. With fewer than five classes the second is 0.
        loss: mean cross entropy in nats.
        images: that were evaluated.
        classes: the same by class, for those that have images.
        skipped: names of images that could not be read.
    """

    top1_error: float
    top5_error: float
    loss: float
    images: int
    classes: list[ClassResult]
    skipped: list[str]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image.

    Attributes:
        name: the image's file, or "".
        classes: names, the most probable first; indices as text where the network has no names.
        probabilities: (K,), of those classes.
    """

    name: str
    classes: list[str]
    probabilities: list[float]


def evaluate(
    model: nn.Module,
    data: str | ImageData,
    *,
    resize: SizeLike | None = None,
    crop: SizeLike | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    batch: int = 128,
    workers: int = 0,
    skip_bad: bool = False,
    progress: Progress = no_progress,
) -> Evaluation:
    """Evaluate a network: the shorter side resized, the centre cropped (paper section 6.1).

    Args:
        model: a network with `pretrained_cfg` in timm's form, which says how images enter it and, as `label_names`, its
            classes; classes of the data are then matched by name, otherwise by their order. A `DataWarning` says so
            where that order is ambiguous.
        data: a spec, of which the validation split is taken where it has one; or an open data set.
        resize: pixels of the shorter side, or (height, width) that the image is to cover, instead of the network's own.
        crop: pixels of a side of the central crop, or its (height, width), instead of the network's own.
        mean: of each channel, on the scale of 0 to 1, instead of the network's own.
        std: the same.
        classes: names in the order of the network's logits, instead of the network's own.
        batch: images at a time.
        workers: processes that decode images, where they do not fit in memory.
        skip_bad: leave out images that cannot be read.
        progress: shows progress.

    Raises:
        DataError: the data cannot be opened, an image cannot be read, or the classes do not fit the network's.
        NonFiniteError: a logit is NaN or infinite; the message names the first image.
        ValueError: sizes, mean or std that cannot be, or a network without classes or `pretrained_cfg`.
    """
    loader = loader_for(
        model,
        data,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        classes=classes,
        batch=batch,
        workers=workers,
        skip_bad=skip_bad,
        device=batch_device(next(model.parameters(), torch.empty(0)).device),
        progress=progress,
    )
    return evaluate_loader(model, loader, progress=progress)


def loader_for(
    model: nn.Module,
    data: str | ImageData,
    *,
    resize: SizeLike | None = None,
    crop: SizeLike | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    batch: int = 128,
    workers: int = 0,
    skip_bad: bool = False,
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> Loader:
    """Batches of validation data as a network takes them, their class indices those of the network.

    Args:
        model, data, resize, crop, mean, std, classes, batch, workers, skip_bad, progress: as of `evaluate`.
        device: where batches are wanted, see `open_loader`; None leaves them on the host.

    Raises:
        DataError, ValueError: as `evaluate`.
    """
    cfg = _cfg(model, classes)
    preprocessing = Preprocessing.of(cfg, resize=resize, crop=crop, mean=mean, std=std)
    data = open_data(data) if isinstance(data, str) else data
    names = cfg.get("label_names")
    if names is not None:
        data = data.with_classes(names)
    elif len(data.classes) != cfg["num_classes"]:
        raise DataError(
            f"{data.spec} has {len(data.classes)} classes, and the network {cfg['num_classes']}; to match classes by "
            f"name, give the network's as label_names in its pretrained_cfg, or as classes= (--classes FILE)"
        )
    else:
        warn_of_order(data.classes, data.spec)
    return open_loader(
        data, preprocessing, batch=batch, workers=workers, skip_bad=skip_bad, device=device, progress=progress
    )


@torch.no_grad()
def evaluate_loader(
    model: nn.Module,
    loader: Loader,
    *,
    progress: Progress = no_progress,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Evaluation:
    """Evaluate a network on batches; its mode is as before when this ends.

    Args:
        model: the network.
        loader: its batches of validation data; of several processes, this one's shares of them.
        progress: shows progress over batches.
        total: sums a tensor over all processes, of which each has evaluated its shares; None if this is the only one.

    Raises:
        DataError: an image cannot be read, or none can where such images are left out.
        NonFiniteError: a logit is NaN or infinite; the message names the first image. On a GPU it is raised up to
            `batches_between_reads` batches later: until then nothing waits for the device. Of several processes all
            raise it, after the last batch, and those whose own logits are finite name no image.
    """
    classes = len(loader.data.classes)
    device = next(model.parameters()).device
    scores, every = Scores(classes), batches_between_reads(device)
    batches, failure = loader.epoch(), None
    if loader.device is None and batch_device(device) is not None:
        batches = prefetched(batches, device)
    with evaluating(model):
        for number in progress(range(len(loader)), len(loader), f"evaluate {loader.data.spec}"):
            pixels, labels = next(batches)
            if not len(labels) or failure is not None:
                continue  # none of its images can be read; or the other processes wait at the end
            logits = _logits(model, loader.preprocessing, pixels)
            scores.watch(logits, number * loader.batch)
            few = logits.shape[1] < classes
            if few or (number + 1) % every == 0:
                failure = _failure(model, scores, loader)
            if failure is not None:
                if total is None:
                    raise failure
                continue
            if few:
                raise DataError(
                    f"the network gives {logits.shape[1]} logits, and {loader.data.spec} has {classes} classes; set "
                    f"num_classes to the number of its logits"
                )
            scores.add(logits, labels.to(logits.device, non_blocking=True))
    failure = failure or _failure(model, scores, loader)
    # In float64, which counts exactly as far as there are images.
    whole = torch.cat((scores.sums(), torch.tensor([float(failure is not None)], dtype=torch.float64)))
    whole = whole if total is None else total(whole)
    if whole[-1]:
        raise failure or NonFiniteError(f"the logits of an image of {loader.data.spec} are not finite")
    counts, loss = whole[:-2].long().view(3, classes), float(whole[-2])
    images, top1, top5 = counts.sum(1).tolist()
    if not images:
        raise DataError(f"{loader.data.spec} has no readable image")
    by_class = [
        ClassResult(name, n, 100 * one / n, 100 * five / n)
        for name, (n, one, five) in zip(loader.data.classes, counts.T.tolist(), strict=True)
        if n
    ]
    return Evaluation(100 * top1 / images, 100 * top5 / images, loss / images, images, by_class, list(loader.skipped))


def _failure(model: nn.Module, scores: Scores, loader: Loader) -> NonFiniteError | None:
    """What is wrong with the logits so far."""
    place = scores.first_bad()
    if place is None:
        return None
    number, row = divmod(place, loader.batch)
    try:
        check_finite(scores.logits, f"{loader.name_of(number, row)} (batch {number + 1})", model)
    except NonFiniteError as error:
        return error
    return None


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Iterable[str | PathLike[str] | Image.Image],
    *,
    top: int = 5,
    batch: int = 32,
    resize: SizeLike | None = None,
    crop: SizeLike | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    progress: Progress = no_progress,
) -> list[Prediction]:
    """The most probable classes of images.

    Args:
        model: a network with `pretrained_cfg` in timm's form; its mode is as before when this ends.
        images: files, or PIL images.
        top: how many classes of each.
        batch: images at a time.
        resize: pixels of the shorter side, or (height, width) that the image is to cover, instead of the network's own.
        crop: pixels of a side of the central crop, or its (height, width), instead of the network's own.
        mean: of each channel, on the scale of 0 to 1, instead of the network's own.
        std: the same.
        classes: names in the order of the network's logits, instead of the network's own.
        skip_bad: leave out images that cannot be read.
        progress: shows progress.

    Returns:
        One of each image, in their order, but for those that are left out.

    Raises:
        DataError: an image cannot be read, and `skip_bad` is off.
        NonFiniteError: a logit is NaN or infinite; the message names the first image.
        ValueError: `top` or `batch` below 1, no images, or a network without classes or `pretrained_cfg`.
        TypeError: one image instead of a list.
    """
    if isinstance(images, str | PathLike | Image.Image):
        raise TypeError(f"images must be a list of files or images, got {images!r}; put it in a list")
    images = list(images)
    if top < 1 or batch < 1 or not images:
        raise ValueError(f"need 1 image or more, top and batch of 1 or more; got {len(images)}, {top} and {batch}")
    check_at_most("batch", batch, MOST_BATCH)
    cfg = _cfg(model, classes)
    preprocessing = Preprocessing.of(cfg, resize=resize, crop=crop, mean=mean, std=std)
    starts = range(0, len(images), batch)
    found = []
    with evaluating(model):
        for start in progress(starts, len(starts), "predict"):
            some, pixels = [], []
            for place, image in enumerate(images[start : start + batch], start):
                name = f"{place + 1} of {len(images)}" if isinstance(image, Image.Image) else str(image)
                try:
                    opened = open_image(image, name)
                    with readable(name):
                        pixels.append(preprocessing.pixels(opened))
                    some.append((image, name))
                except DataError:
                    if not skip_bad:
                        raise
            if not some:
                continue
            logits = network_logits(model, preprocessing, torch.stack(pixels))
            names = cfg.get("label_names") or [str(n) for n in range(logits.shape[1])]
            for (image, name), row in zip(some, logits, strict=True):
                given = isinstance(image, Image.Image)
                check_finite(row, f"image {name}" if given else name, model)
                # Stable, so that a tie goes to the class with the lower index, as in `evaluate`.
                values, indices = row.double().softmax(0).sort(descending=True, stable=True)
                best = [names[index] for index in indices[:top].tolist()]
                found.append(Prediction("" if given else name, best, values[:top].tolist()))
    return found


def image_files(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """Image files that are named, and all in the folders that are named, sorted.

    A `DataWarning` says how many files of the folders are no images.

    Raises:
        DataError: a path is empty or does not exist, or a folder holds no images.
    """
    files = []
    for name in paths:
        if not os.fspath(name).strip():  # an empty path would be the working directory
            raise DataError(f"the name of an image or folder is empty, got {os.fspath(name)!r}; give one")
        path = Path(name)
        if not path.exists():
            raise DataError(f"no image or folder at {path}")
        if not path.is_dir():
            files.append(path)
            continue
        inside, skipped = image_paths(path)
        if not inside:
            raise DataError(f"the folder {path} holds no images ({KINDS})")
        warn_of_skipped(skipped, str(path))
        files += sorted(map(Path, inside))
    return files


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


def network_logits(model: nn.Module, preprocessing: Preprocessing, pixels: Tensor) -> Tensor:
    """(N, C, H, W) of 0 to 255 -> (N, num_classes), float32 and on the CPU, from a network of any device and dtype.

    Raises:
        ValueError: the network gives anything else than a row of logits for each image.
    """
    return _logits(model, preprocessing, pixels).cpu()


def _logits(model: nn.Module, preprocessing: Preprocessing, pixels: Tensor) -> Tensor:
    """As `network_logits`, but on the network's device where that is a GPU of CUDA; nothing waits for it."""
    like = next(model.parameters())
    with suggesting_batch(len(pixels)):
        images = preprocessing.normalise(pixels.to(like.device)).to(like.dtype)
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(pixels):
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{type(model).__name__} gives {found} for {len(pixels)} images, and no logits (N, num_classes); give a "
            f"network, or a wrapper of one, that returns its logits"
        )
    return logits.float() if logits.is_cuda else logits.float().cpu()  # float64, for the loss, is not in all devices


def _cfg(model: nn.Module, given: Sequence[str] | None) -> dict[str, Any]:
    """How images enter a network, and what its classes are: its `pretrained_cfg`, with `num_classes` as they are.

    Args:
        model: the network.
        given: names for its classes, instead of its own.

    Raises:
        ValueError: see `check_names`; it does not say so, it has no classes, or another number of names for them.
    """
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict):
        raise ValueError(
            f"{type(model).__name__} has no pretrained_cfg, which says how images enter it; build it with "
            f"senet.create_model or senet.load, or give it one in timm's form"
        )
    names, classes = cfg.get("label_names"), getattr(model, "num_classes", cfg.get("num_classes"))
    if not classes:
        raise ValueError(f"the network has no classes (num_classes is {classes}); give it a classifier that has")
    if names is not None and len(names) != classes:
        raise ValueError(
            f"the network has {classes} classes and pretrained_cfg has {len(names)} label_names; give as many, or None"
        )
    if given is not None:
        names = check_names(given, names, classes)
    return cfg | {"num_classes": classes, "label_names": names}
