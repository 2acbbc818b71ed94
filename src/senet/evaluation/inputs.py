"""How the images of a data set enter a network: options, the network's own configuration, and a loader of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import nn

from senet.data import ImageData, Loader, Preprocessing, PreprocessingOptions, open_images, open_loader
from senet.data.class_names import check_names, warn_of_order
from senet.utils.arguments import argument, in_python_or
from senet.utils.errors import DataError
from senet.utils.progress import Progress, no_progress
from senet.utils.sizes import SizeLike

__all__ = ["BATCH", "InputKeywords", "InputOptions", "loader_for", "network_config", "with_network_classes"]


# Images per batch of an evaluation, by default.
BATCH = 128


@dataclass(frozen=True, kw_only=True)
class InputOptions(PreprocessingOptions):
    """Preprocessing, class names and batch size of an evaluation; None keeps the network's own.

    Attributes:
        resize: see `senet.data.PreprocessingOptions`, like `crop`, `mean` and `std`.
        classes: class names in the order of the network's logits.
        batch: images per batch; None is the default of the task and the command.
        skip_bad: skip unreadable images, instead of raising an error.

    Examples:
        >>> from senet.evaluation import InputOptions
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> options = InputOptions(resize=40, crop=32, batch=4)
        >>> senet.evaluate(model, "photos", options).images
        8
    """

    classes: Sequence[str] | None = None
    batch: int | None = None
    skip_bad: bool = False


class InputKeywords(TypedDict, total=False):
    """The fields of `InputOptions` as keyword arguments."""

    resize: SizeLike | None
    crop: SizeLike | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    classes: Sequence[str] | None
    batch: int | None
    skip_bad: bool


def loader_for(
    model: nn.Module,
    data: str | ImageData,
    options: InputOptions | None = None,
    *,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> Loader:
    """Open a loader of validation data for a network, with the class indices of the network.

    Args:
        model: see `senet.evaluate`.
        data: a spec, or an open data set.
        options: preprocessing, class names and batch size.
        workers: processes that decode images which are not in memory.
        device: device of the batches, see `open_loader`; None is the host.
        progress: shows progress.

    Raises:
        DataError: see `senet.evaluate`.
        ValueError: see `senet.evaluate`.
    """
    options = options or InputOptions()
    cfg = network_config(model, options.classes)
    preprocessing = Preprocessing.of(cfg, options)
    return open_loader(
        with_network_classes(open_images(data) if isinstance(data, str) else data, cfg),
        preprocessing,
        batch=BATCH if options.batch is None else options.batch,
        workers=workers,
        skip_bad=options.skip_bad,
        device=device,
        progress=progress,
    )


def with_network_classes(data: ImageData, cfg: Mapping[str, Any]) -> ImageData:
    """Return the images with the class indices of a network: by name, or by order if the network has no names.

    Args:
        data: the images.
        cfg: see `network_config`.

    Raises:
        DataError: the classes do not match.
    """
    names = cfg.get("label_names")
    if names is not None:
        data = data.with_classes(names)
    elif len(data.classes) != cfg["num_classes"]:
        raise DataError(
            f"{data.spec} has {len(data.classes)} classes, and the network {cfg['num_classes']}; to match classes by "
            f"name, give the network's as label_names in its pretrained_cfg, or as {argument('classes')}"
        )
    else:
        warn_of_order(data.classes, data.spec)
    return data


def network_config(model: nn.Module, classes: Sequence[str] | None) -> dict[str, Any]:
    """Return a network's `pretrained_cfg`, with `num_classes` and `label_names` as they apply.

    Args:
        model: the network.
        classes: class names that replace the network's own; None keeps them.

    Raises:
        ValueError: the network has no `pretrained_cfg`, no classes, or another number of class names; see also
            `senet.data.class_names.check_names`.
    """
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict):
        remedy = in_python_or(
            "build it with senet.create_model or senet.load, or give it", "let the code that builds it give it"
        )
        raise ValueError(
            f"{type(model).__name__} has no pretrained_cfg, which says how images enter it; {remedy} one in timm's form"
        )
    names, count = cfg.get("label_names"), getattr(model, "num_classes", cfg.get("num_classes"))
    if not count:
        raise ValueError(f"the network has no classes (num_classes is {count}); give it a classifier that has")
    if names is not None and len(names) != count:
        raise ValueError(
            f"the network has {count} classes and pretrained_cfg has {len(names)} label_names; give as many, or None"
        )
    if classes is not None:
        names = check_names(classes, names, count)
    return cfg | {"num_classes": count, "label_names": names}
