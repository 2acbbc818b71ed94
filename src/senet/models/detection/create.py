"""Create detectors by name: build the backbone, load its weights, and freeze it."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from torch import nn

from senet.models.catalogue import (
    ELSEWHERE,
    INSERT_OPTIONS,
    build_plain_classifier,
    check_without_weights,
    create_classifier,
)
from senet.models.detection.build import detector_on
from senet.models.detection.freezing import freeze_backbone
from senet.models.detection.spec import DETECTOR_OPTIONS, DetectorSpec
from senet.models.detector_names import NUM_CLASSES, is_detector, split_detector
from senet.models.table import network, plain_name
from senet.utils.arguments import argument, in_python_or
from senet.utils.choices import Missing
from senet.utils.errors import unknown_name

__all__ = ["build_plain_detector", "create_detector"]


def create_detector(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    weights: str | PathLike[str] | nn.Module | None = None,
    missing: Missing | None = None,
    head: bool = True,
    entry: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    backbone_weights: str | PathLike[str] | nn.Module | None = None,
    **options: Any,
) -> nn.Module:
    """Build a detector, see `create_model`.

    Without `freeze_bn`, the backbone's batch norms are frozen if it has weights, as in torchvision: statistics of a few
    images per step are too noisy to train with, and those of random weights are useless to freeze.

    Raises:
        TypeError, ValueError: as in `create_model`.
    """
    if weights is not None:
        raise ValueError(
            f"{argument('weights')} is for classifiers: {argument('backbone_weights')} loads a classifier's weights "
            f"into the backbone of a detector, and {in_python_or('senet.load(path)', 'its path as the network')} loads "
            f"a detector"
        )
    if features_only or out_indices is not None:
        raise ValueError(f"features_only is for classifiers; the child `backbone` of {name!r} returns its maps")
    if backbone_weights is None:
        check_without_weights("backbone_weights", missing=missing, head=head, entry=entry)
    plain, backbone_name = plain_name(name), split_detector(name)[1]
    if is_detector(backbone_name):
        only = backbone_name.rpartition(":")[2]
        raise ValueError(f"{name!r} has a detector as its backbone; give a classifier, such as {only!r}")
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more for a detector, got {num_classes}; the background is not one")
    _check_options(plain, options)
    if options.get("freeze_bn") is None:
        options["freeze_bn"] = backbone_weights is not None
    spec = DetectorSpec(**{key: options.pop(key) for key in DETECTOR_OPTIONS if key in options})
    given_weights = {"weights": backbone_weights, "missing": missing, "head": head, "entry": entry}
    backbone: Any = create_classifier(
        backbone_name,
        in_channels=in_channels,
        **({"num_classes": 1} if backbone_weights is None else given_weights),
        **options,
    )
    model = detector_on(backbone, plain, spec, NUM_CLASSES if num_classes is None else num_classes)
    if backbone_weights is not None:
        model.weights_report = backbone.weights_report
    return freeze_backbone(model)  # type: ignore[no-any-return]


def build_plain_detector(
    name: str, *, num_classes: int | None = None, in_channels: int = 3, **architecture: Any
) -> nn.Module:
    """Return a plain detector of which nothing is frozen, see `build_plain`."""
    spec = DetectorSpec(**{key: architecture.pop(key) for key in DETECTOR_OPTIONS if key in architecture})
    backbone = build_plain_classifier(split_detector(name)[1], num_classes=1, in_channels=in_channels, **architecture)
    return detector_on(backbone, name, spec, NUM_CLASSES if num_classes is None else num_classes)  # type: ignore[no-any-return]


def _check_options(plain: str, options: dict[str, Any]) -> None:
    """Check the names of options; `create_classifier` checks those of the backbone again.

    Raises:
        TypeError: an unknown option; the message names the closest one.
    """
    row = network(split_detector(plain)[1])
    known = (*DETECTOR_OPTIONS, "backbone_weights", *INSERT_OPTIONS, *row.options)
    for option in options:
        if option == "pretrained":
            what = f"{argument('backbone_weights')} takes a classifier's file, 'timm:NAME' or 'torchvision:NAME'"
            raise TypeError(f"create_model has no option 'pretrained': {what}")
        if option not in known and option not in ELSEWHERE:
            raise TypeError(unknown_name("option", option, known))
