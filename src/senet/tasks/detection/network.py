"""Losses and detections of torchvision's detectors on batches of the loader, whose images have one size.

torchvision's class 0 is the background: class k of the data is its label k + 1. Only this module converts.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from senet.data.boxes import BoxTarget, unpack

__all__ = ["Detections", "detect", "detection_losses"]

_BACKGROUND = 1


@dataclass(frozen=True)
class Detections:
    """What a detector found in an image, the most certain first.

    Attributes:
        boxes: (n, 4), x1, y1, x2 and y2 in pixels of the original image.
        classes: (n,), class indices.
        scores: (n,), probabilities of the classes, 0 to 1.
    """

    boxes: Float[Tensor, "n 4"]
    classes: Int[Tensor, "n"]
    scores: Float[Tensor, "n"]


def detection_losses(
    model: Any, images: Float[Tensor, "N C H W"], targets: Float[Tensor, "N R 6"], *, forward: Any = None
) -> dict[str, Tensor]:
    """Return torchvision's losses of a batch, by name; training minimizes their sum.

    Args:
        model: a detector of `create_model`, in training mode.
        images: (N, C, H, W), 0 to 1, each padded at the right and the bottom.
        targets: (N, 1 + B, 6), see `senet.data.boxes.pack`. Crowd boxes are left out.
        forward: called in place of the model: under autocast, or with the gradients of several processes.

    Returns:
        "loss_classifier", "loss_box_reg", "loss_objectness" and "loss_rpn_box_reg" of Faster R-CNN; "classification"
        and "bbox_regression" of RetinaNet. Each is a mean over the batch.
    """
    unpacked = [unpack(target) for target in targets]
    labels = [{"boxes": one.boxes[~one.crowd], "labels": one.classes[~one.crowd] + _BACKGROUND} for one in unpacked]
    with model.transform.keeping_size():  # the loader has resized them, in training to one of several scales
        return (forward or model)(_cut(images, unpacked), labels)  # type: ignore[no-any-return]


def detect(model: Any, images: Float[Tensor, "N C H W"], targets: Float[Tensor, "N R 6"]) -> list[Detections]:
    """Return the detections in each image of a batch. They do not depend on the other images.

    Args:
        model: a detector of `create_model`, in evaluation mode.
        images: (N, C, H, W), 0 to 1, each padded at the right and the bottom.
        targets: (N, 1 + B, 6), see `senet.data.boxes.pack`, of which only the sizes are read.
    """
    unpacked = [unpack(target) for target in targets]
    with model.transform.keeping_size():
        # One at a time: torchvision pads a batch to its largest image, and places anchors in the padding.
        found = [model([image])[0] for image in _cut(images, unpacked)]
    return [_detections(one, target) for one, target in zip(found, unpacked, strict=True)]


def _detections(found: dict[str, Tensor], target: BoxTarget) -> Detections:
    kept = found["labels"] >= _BACKGROUND  # RetinaNet has an output for the background, which no box trains
    boxes, labels, scores = (found[key][kept] for key in ("boxes", "labels", "scores"))
    return Detections(target.in_original(boxes), labels - _BACKGROUND, scores)


def _cut(images: Tensor, targets: list[BoxTarget]) -> list[Tensor]:
    """Return the images without their padding."""
    return [image[:, : one.size[0], : one.size[1]] for image, one in zip(images, targets, strict=True)]
