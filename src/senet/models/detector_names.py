"""Names of detectors: "faster_rcnn:NAME" and "retinanet:NAME", where NAME is the network of the backbone."""

from typing import Literal

from senet.utils.choices import literal_values

__all__ = ["DETECTORS", "MIN_SIZE", "NUM_CLASSES", "DetectorKind", "is_detector", "split_detector"]

DetectorKind = Literal["faster_rcnn", "retinanet"]
# Defaults: the classes of COCO, and torchvision's shorter side of images in pixels.
NUM_CLASSES = 80
MIN_SIZE = 800
DETECTORS: tuple[DetectorKind, ...] = literal_values(DetectorKind)


def is_detector(name: str) -> bool:
    """Return whether a name has the prefix of a detector; its backbone may not exist."""
    return name.partition(":")[0] in DETECTORS and ":" in name


def split_detector(name: str) -> tuple[DetectorKind, str]:
    """Return the kind and the backbone's name of a detector: ("retinanet", "se_resnet50")."""
    kind, _, backbone = name.partition(":")
    return kind, backbone  # type: ignore[return-value]
